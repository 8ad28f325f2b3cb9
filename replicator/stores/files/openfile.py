"""One file opened for reading: its bytes, whether it moved meanwhile, and whether somebody still writes it.

Owns: reads bounded by the fingerprint taken at open, and the close gate. Never: names, links, decisions.
Source: fcntl(2), "Leases": a read lease is refused (EAGAIN) while any descriptor or writable mapping of the file
exists anywhere; it needs the file's owner or CAP_LEASE, and a local file system.
"""

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from replicator.errors import SourceChanged
from replicator.model import Fingerprint
from replicator.stores.files.beneath import fingerprint_of, look, sync_directory, translating
from replicator.stores.kernel import tells_changes_apart

_COARSE = 5
"""CLOCK_REALTIME_COARSE of linux/time.h, for which Python has no name."""
_TICK_S = time.clock_getres(_COARSE)
"""How often the clock moves from which file systems take their stamps: 1 to 10 ms."""
_SECOND_NS = 10**9


def ignore_lease_signals() -> None:
    """Let no lease break end this process; call it once, in the main thread, before any `has_writer`.

    A writer that opens a file during the microsecond of a probe makes the kernel send SIGIO to the prober,
    and SIGIO's default action is to end the process.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


class OpenFile:
    """A plain file open for reading; use it as a context manager. Reads have no position, so threads may share it."""

    def __init__(self, fd: int, relpath: str, *, directory: int, name: str, found: os.stat_result) -> None:
        """Takes over `fd` and `directory`, the descriptor of the directory in which it is called `name`.

        `found` is what fstat(2) told of `fd`.
        """
        self._fd = fd
        self._directory = directory
        self._name = name
        self.relpath = relpath
        self._device = found.st_dev
        self.fingerprint: Fingerprint = fingerprint_of(found)
        """The version at open: everything read is promised to be of it only while `is_unchanged`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptors back; leaving the context does it too."""
        os.close(self._fd)
        os.close(self._directory)

    def read(self) -> bytes:
        """The whole content. Raises SourceChanged when the file is no longer as long as its fingerprint."""
        with translating(self.relpath, "read"):
            content = os.pread(self._fd, self.fingerprint.size + 1, 0)
        if len(content) < self.fingerprint.size:
            content += self.read_at(len(content), self.fingerprint.size)
        if len(content) > self.fingerprint.size:
            raise SourceChanged(f"{self.relpath!r} grew while it was read. It is read again")
        return content

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer only at the end the fingerprint told; SourceChanged when cut short."""
        end = min(offset + size, self.fingerprint.size)
        pieces: list[bytes] = []
        with translating(self.relpath, "read"):
            while offset < end:
                piece = os.pread(self._fd, end - offset, offset)
                if not piece:
                    raise SourceChanged(f"{self.relpath!r} was cut short while it was read. It is read again")
                pieces.append(piece)
                offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def blocks(self, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The content in order, up to the length the fingerprint told."""
        for offset in range(0, self.fingerprint.size, block_bytes):
            yield self.read_at(offset, block_bytes)

    def is_unchanged(self) -> bool:
        """Whether its name, in the directory it was found in, still leads to this very file in this very version."""
        with translating(self.relpath, "looked at"):
            found = look(self._directory, self._name)
        return found is not None and fingerprint_of(found) == self.fingerprint

    def tick_left_s(self) -> float:
        """0.0 once another change would have another ctime, else seconds until that is worth asking again.

        What is read before, in the tick of the last change, may change again without a trace in the fingerprint.
        """
        ahead_ns = self.fingerprint.ctime_ns - time.clock_gettime_ns(_COARSE)
        # A ctime far ahead is of a clock that was set back: the next change has another one.
        is_racy = 0 <= ahead_ns < _SECOND_NS and not tells_changes_apart(self._device)
        return _TICK_S if is_racy else 0.0

    def make_durable(self) -> None:
        """Let its bytes and its name outlive a power cut, whoever wrote them."""
        with translating(self.relpath, "written"):
            os.fsync(self._fd)
            sync_directory(self._directory)

    def has_writer(self) -> bool | None:
        """As the function of this name."""
        return has_writer(self._fd)


def has_writer(fd: int) -> bool | None:
    """Whether anybody has the file open for writing, or mapped so; None where the kernel does not tell.

    Also None while SIGIO would still end the process: see `ignore_lease_signals`. The lease is given back
    at once, so that no writer is kept waiting.
    """
    if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
        return None
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as exc:
        return True if exc.errno == errno.EAGAIN else None
    with suppress(OSError):  # Already broken by a writer: nothing is left to give back.
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
