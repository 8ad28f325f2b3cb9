"""Fixtures of the file and journal tests: an export, a disk that is too small, a process without rights."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from replicator.model import Fingerprint, Row
from replicator.stores.files.export import Export
from replicator.stores.journal.journal import Journal
from tests.waiting import wait_until

NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The top of an export, empty."""
    path = tmp_path / "export"
    path.mkdir()
    return path


@pytest.fixture
def export(root: Path) -> Export:
    """The whole of `root`, strict about hard links."""
    return Export(str(root))


@pytest.fixture
def open_root() -> Iterator[Path]:
    """An export that every user can reach, as pytest's own directories are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB and a few dozen inodes."""
    if os.geteuid() != 0:
        pytest.skip("mounts a tmpfs, which needs root")
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=40", "none", str(path)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount a tmpfs here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def run_as_nobody() -> Callable[..., str]:
    """Run Python code in a process without any privilege; the code finds its arguments in `args`."""

    def run(code: str, *args: object) -> str:
        prelude = (
            "import os, sys\n"
            "from replicator.errors import *\n"
            "from replicator.stores.files.export import Export\n"
            "from replicator.stores.journal.journal import Journal\n"
            "import encodings.ascii, resource\n"
            "args = sys.argv[1:]\n"
            f"if os.geteuid() == 0: os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", prelude + code, *map(str, args)],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )

        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """A row of `relpath`, told from others of the same path by `version`."""

    def make(relpath: str, version: int = 1, size: int = 100) -> Row:
        fingerprint = Fingerprint(size=size, mtime_ns=10**18 + version, ctime_ns=10**18, ino=version)
        return Row(
            relpath, fingerprint, etag=f"etag-{version}", checksum=f"md5:{version}", is_verified=version % 2 == 1
        )

    return make


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An open journal, empty."""
    journal = Journal.open(str(tmp_path / "state"))
    yield journal
    journal.close()


@pytest.fixture
def in_threads() -> Callable[..., list[Any]]:
    """Run each call in a thread of its own, all at a time; what they returned or raised, in their order."""

    def run(*calls: Callable[[], Any]) -> list[Any]:
        with ThreadPoolExecutor(len(calls)) as threads:
            pending = [threads.submit(call) for call in calls]
            return [one.exception(timeout=30) or one.result() for one in pending]

    return run


class HeldCommit:
    """The first transaction of a committer waits before its COMMIT until it is let go, so that others queue."""

    def __init__(self, committer: Any) -> None:
        self._committer = committer
        self._is_reached, self._may_go = threading.Event(), threading.Event()
        self.transactions = 0
        committer._connection.set_trace_callback(self._trace)

    def _trace(self, sql: str) -> None:
        if sql == "COMMIT":
            self.transactions += 1
            self._is_reached.set()
            self._may_go.wait(30)

    def wait_reached(self) -> None:
        """Until the first transaction stands before its COMMIT."""
        assert self._is_reached.wait(30)

    def wait_queued(self, count: int) -> None:
        """Until that many statements wait for the next transaction."""
        wait_until(lambda: len(self._committer._gathering.statements) >= count)

    def let_go(self) -> None:
        """Let the first transaction, and all that follow, be committed."""
        self._may_go.set()


@pytest.fixture
def hold_commit() -> Callable[[Any], HeldCommit]:
    """Hold the first transaction of a committer, see HeldCommit."""
    return HeldCommit
