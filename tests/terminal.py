"""A program on a pseudo-terminal: what it draws there, the keys it gets, the size of its window."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>()][A-Z0-9]?)")
CTRL_C = "\x03"


class Terminal:
    """The side of the one who looks at it and types."""

    def __init__(self, master: int, process: subprocess.Popen) -> None:
        self.process = process
        self._master = master
        self._raw = b""
        self._reading = threading.Thread(target=self._read, name="terminal")
        self._reading.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while block := os.read(self._master, 65536):
                self._raw += block

    @property
    def raw(self) -> str:
        """All that was written, with its codes."""
        return self._raw.decode()

    @property
    def text(self) -> str:
        """All that was written, without codes."""
        return _CODES.sub("", self.raw)

    @property
    def picture(self) -> str:
        """What was drawn last from the upper left corner on."""
        return _CODES.sub("", self.raw.rpartition("\x1b[H")[2])

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """As a window manager does it: the kernel tells the program by a signal."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def until(self, condition: Callable[["Terminal"], object], within_s: float = 30) -> None:
        deadline = time.monotonic() + within_s
        while not condition(self):
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)

    def end(self) -> int:
        """Wait for the program's own end; its exit code."""
        code = self.process.wait(30)
        self._reading.join(5)
        return code


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    size: tuple[int, int] = (100, 30),
    stdout: int | None = None,
) -> Iterator[Terminal]:
    """Run a program whose standard input, error and, unless `stdout` is given, output are a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    clean = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        env={"TERM": "xterm-256color"} | clean,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call; Ctrl-C needs it
    )
    os.close(slave)
    terminal = Terminal(master, process)
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        terminal._reading.join(5)
        os.close(master)
        if process.stdout:
            process.stdout.close()
