"""A watched directory under faults: the real patrol over a real journal, and a stand-in for queue and workers.

The stand-in looks at every hinted path once and writes its row. So the rows are what replication would have seen, and
a test asks one thing of them: that they equal the disk. With the source of events named, no sweep runs by the clock,
and only those that the watcher itself asks for help; with `off` there is nothing but sweeps.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from pydantic import SecretStr

from replicator.detect import patrol as patrol_module
from replicator.detect.patrol import Patrol, Rhythm
from replicator.detect.watcher import Kind
from replicator.errors import KeyUnsafe, LeftOut, Refused
from replicator.model import OWN_DIR, Direction, Fingerprint, Hint, Prefix, Row, Storage, Target
from replicator.observe.metrics import Metrics, who
from replicator.reconcile.keys import key_of
from replicator.stores.files.export import Export
from replicator.stores.journal.journal import Journal
from replicator.stores.lane import Lane
from replicator.stores.objects import ObjectStore
from tests.device import Device
from tests.waiting import eventually

SOURCES = ("inotify", "watchfiles")
DEADLINE_S = 12
NOBODY = 65534
CANNOT = 77
"""How a child says that the machine does not let it make the fault."""


class EmptyBucket:
    """As much of an object store as an egress sweep asks of one that it was never compared with."""

    streams = True

    def list(self, prefix: str) -> Iterator[list]:
        return iter([[]])


class Everybody:
    """A gate that is always open."""

    losses = 0
    error = None

    def admits(self, now_s: float) -> bool:
        return True

    def released(self) -> None: ...
    def succeeded(self) -> None: ...
    def failed(self, key: str, error: Exception, now_s: float) -> None:
        raise error


class Looker:
    """In place of queue and workers: at most one look a path at a time, and the row of what was seen."""

    def __init__(self, lane: Lane) -> None:
        self.told: Counter[str] = Counter()
        """Hints of events, by path."""
        self._lane = lane
        self._is_looking = False
        self._waiting: set[str] = set()

    def put(self, lane: Lane, hint: Hint, *, is_event: bool = False) -> bool:
        assert hint.relpath is not None
        self.told[hint.relpath] += is_event
        is_new = hint.relpath not in self._waiting
        self._waiting.add(hint.relpath)
        return is_new

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting) or self._is_looking

    async def wait_until(self, *, at_most: int) -> None:
        while len(self._waiting) > at_most:
            await asyncio.sleep(0.005)

    async def run(self) -> None:
        while True:
            paths, self._waiting = self._waiting, set()
            self._is_looking = bool(paths)
            if paths:
                await asyncio.to_thread(self._look, paths)
            await asyncio.sleep(0.005)

    def _look(self, paths: set[str]) -> None:
        lane, rows = self._lane, []
        for relpath in paths:
            with contextlib.suppress(KeyUnsafe, LeftOut, Refused):
                key_of(lane.target.prefix, relpath)
                if file := lane.export.stat(relpath):
                    rows.append((lane.number, Row(relpath, file.fingerprint, etag="e", checksum="")))
                elif lane.row(relpath):
                    lane.journal.forget(lane.number, relpath)
        lane.journal.settle_all(rows)


@dataclass
class Watch:
    """A patrol at work."""

    patrol: Patrol
    looker: Looker
    metrics: Metrics

    @property
    def health(self):
        return self.patrol.watcher.health

    @property
    def is_clockwork(self) -> bool:
        """Nothing but sweeps by the clock."""
        return self.health.source == "off"

    @property
    def told(self) -> set[str]:
        """Every path that an event has hinted."""
        return {path for path, count in self.looker.told.items() if count}

    def sweeps(self) -> float:
        return self._count("sweeps")

    def found(self) -> float:
        """`replicator_sweep_found_total`: changes that sweeps found and no event announced."""
        return self._count("sweep_found")

    def _count(self, name: str) -> float:
        return getattr(self.metrics, name).labels(*who(self.patrol.lane.target))._value.get()

    def rows(self) -> dict[str, Fingerprint]:
        return {row.relpath: row.fingerprint for row in self.patrol.lane.rows()}

    def disk(self) -> dict[str, Fingerprint]:
        """The truth: each plain file of the watched directory with an ASCII name."""
        target = self.patrol.lane.target
        top = f"{target.root}/{target.subdir}".rstrip("/")
        found = {}
        for parent, directories, names in os.walk(top):
            if parent == top and OWN_DIR in directories:
                directories.remove(OWN_DIR)
            for name in names:
                path = f"{parent}/{name}"
                seen = os.lstat(path)
                if stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1 and os.fsencode(name).isascii():
                    version = Fingerprint(seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
                    found[path[len(top) + 1 :]] = version
        return found

    def missing(self) -> set[str]:
        """Files on disk whose present version nobody has looked at."""
        return {relpath for relpath, _ in self.disk().items() - self.rows().items()}

    async def in_step(self, within_s: float = DEADLINE_S) -> None:
        """Until each file on disk was looked at in its present version."""
        began_s = now_s = time.monotonic()
        while missing := await asyncio.to_thread(self.missing):
            asked_s, now_s = now_s, time.monotonic()
            late = f"{len(missing)} of {len(self.disk())} files unseen after {within_s} s, such as {min(missing)!r}"
            assert now_s < began_s + within_s, late
            await asyncio.sleep(0.02 + (now_s - asked_s))  # asking costs time that looking could use

    async def looked_at(self, *relpaths: str) -> None:
        """Until these files were looked at in their present version, whatever else there is."""
        while not self.missing().isdisjoint(relpaths):
            await asyncio.sleep(0.02)

    async def quiet(self, for_s: float = 1.0) -> None:
        """Until nothing was hinted or looked at for so long: what comes by events has come."""
        told, since = -1, time.monotonic()
        while time.monotonic() - since < for_s:
            if told != (told := self.looker.told.total()) or self.looker.is_busy:
                since = time.monotonic()
            await asyncio.sleep(0.05)

    async def swept(self) -> float:
        """One sweep, as the clock would bring it, and its looks; how many changes it found that no event announced."""
        before = self.found()
        await self.patrol.sweep()
        await self.in_step()
        return self.found() - before

    async def exact(self) -> None:
        """Until the rows equal the disk: what is gone is forgotten once two sweeps saw it absent."""
        if not self.is_clockwork:
            await self.patrol.sweep()
            await self.patrol.sweep()
        await eventually(lambda: self.rows() == self.disk(), DEADLINE_S)


@dataclass
class Scene:
    """An export with an egress target in `out`, and a place for the journal."""

    home: Path
    """Of the export, on the file system under test."""
    state: Path

    @property
    def export(self) -> Path:
        return self.home / "export"

    @property
    def out(self) -> Path:
        return self.export / "out"

    def write(self, relpath: str, content: bytes = b"content") -> Path:
        """A file beneath the watched directory, its parents made."""
        path = self.out / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def give_to_nobody(self) -> None:
        """Let a process without privilege own all of it."""
        if os.geteuid() == 0:
            for parent, _, names in os.walk(self.home):
                for path in (parent, *(f"{parent}/{name}" for name in names)):
                    os.chown(path, NOBODY, NOBODY)

    @contextlib.asynccontextmanager
    async def watching(
        self, kind: Kind, *, interval_s: float | None = None, subdir: str = "out", is_ready: bool = True
    ) -> AsyncIterator[Watch]:
        """The directory watched while the block runs. Unless `is_ready` is false, events arrive when it begins.

        `interval_s`: seconds between sweeps; by default none but the asked for, and with `off` several a second.
        """
        interval_s = interval_s or (0.25 if kind == "off" else 3600)
        with contextlib.closing(Journal.open(str(self.state))) as journal:
            lane = self._lane(journal, subdir)
            looker, metrics = Looker(lane), Metrics()
            rhythm = Rhythm(kind, sweep_interval_s=interval_s, sweep_cpu_share=1, quiet_s=0.05, ceiling_s=0.2)
            patrol = Patrol(lane, rhythm=rhythm, intake=looker, admission=Everybody(), metrics=metrics)
            watch = Watch(patrol, looker, metrics)
            assert watch.health.source == kind
            tasks = [asyncio.create_task(one, name="scene") for one in (patrol.run(), looker.run())]
            try:
                if is_ready:
                    await eventually(
                        lambda: watch.sweeps() >= 1 if kind == "off" else watch.sweeps() >= 2 and watch.health.is_armed
                    )
                    await watch.in_step()
                yield watch
                assert not any(task.done() for task in tasks), "the patrol ended by itself"
            finally:
                for task in tasks:
                    task.cancel()
                for end in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(end, Exception):
                        raise end

    def _lane(self, journal: Journal, subdir: str) -> Lane:
        storage = Storage("http://s3", "b", "us-east-1", SecretStr("AKID"), SecretStr("SECRET"))
        target = Target("w", Direction.EGRESS, str(self.export), subdir, Prefix("sent/"), storage)
        return Lane(
            target,
            Export(target.root, subdir),
            cast("ObjectStore", EmptyBucket()),
            journal,
            journal.target(target.identity),
        )


@pytest.fixture(params=SOURCES)
def source(request) -> str:
    """Each source of events in turn."""
    return str(request.param)


@pytest.fixture(params=[*SOURCES, "off"])
def kind(request) -> str:
    """Each source of events in turn, without sweeps by the clock; then no events at all."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """Sweeps out of turn may follow each other at once, so that a test need not wait a second for each."""
    monkeypatch.setattr(patrol_module, "_SOONEST_S", 0.05)


@pytest.fixture
def shift(monkeypatch):
    """Sets how many seconds the wall clock of this process is off."""
    off_s = [0.0]
    real, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real() + off_s[0])
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + int(off_s[0] * 10**9))
    return lambda seconds: off_s.__setitem__(0, seconds)


@pytest.fixture
def scene(tmp_path) -> Iterator[Scene]:
    """A scene in memory, where the kernel makes files faster than anybody can watch them."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    home = Path(tempfile.mkdtemp(prefix="replicator-", dir=memory))
    home.chmod(0o755)
    (home / "export/out").mkdir(parents=True)
    yield Scene(home, home / "state")
    shutil.rmtree(home)


@pytest.fixture
def scene_on_disk(tmp_path) -> Scene:
    """A scene on the file system of temporary files, which may give a new directory the number of a removed one."""
    (tmp_path / "export/out").mkdir(parents=True)
    return Scene(tmp_path, tmp_path / "state")


@pytest.fixture
def device(tmp_path, storage) -> Device:
    """A whole engine with a real S3 server, on the file system of temporary files."""
    return Device(tmp_path, storage)


@pytest.fixture
def play() -> Callable[..., None]:
    """Runs code of a workload in an interpreter of its own, with `args`; blocks until it has ended."""

    def run(code: str, *args: object) -> None:
        subprocess.run(
            [sys.executable, "-ISc", f"import os, sys\nargs = sys.argv[1:]\n{code}", *map(str, args)], check=True
        )

    return run


# Faults that only another user or another namespace can have

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def mount_memory(path: Path) -> None:
    """Mount an empty file system in memory over `path`; only in a child's own namespace."""
    _checked(_libc.mount(b"none", os.fsencode(path), b"tmpfs", 0, None))


def unmount(path: Path) -> None:
    """Take the file system away that is mounted at `path`."""
    _checked(_libc.umount2(os.fsencode(path), _MNT_DETACH))


def _checked(code: int) -> None:
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _enter_namespaces() -> None:
    """Become root of a user namespace of its own, with mounts of its own."""
    user, group = os.geteuid(), os.getegid()
    _checked(_libc.unshare(_NEWUSER | _NEWNS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)


def _become_nobody() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _in_child(enter: Callable[[], None], deed: Callable[[], None]) -> None:
    """Do it in a forked child; what it raises there fails the test, what it may not enter skips it."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests stay behind, with their locks
        child = os.fork()
    if child == 0:
        status = 1
        try:
            enter()
        except OSError as error:
            os.write(writing, str(error).encode())
            os._exit(CANNOT)
        try:
            deed()
            status = 0
        except BaseException:  # noqa: BLE001 - told to the parent, whose test it fails
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(status)
    os.close(writing)
    try:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as pipe:
            told = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    if code == CANNOT:
        pytest.skip(f"this machine does not allow it: {told}")
    assert code == 0, f"in the child:\n{told}"


@pytest.fixture
def in_namespaces() -> Callable[[Callable[[], None]], None]:
    """Does a deed as root of a user and mount namespace of its own, so that limits and mounts are its alone."""
    return lambda deed: _in_child(_enter_namespaces, deed)


@pytest.fixture
def as_nobody() -> Callable[[Callable[[], None]], None]:
    """Does a deed without any privilege."""
    return lambda deed: _in_child(_become_nobody, deed)


@pytest.fixture
def mounts() -> tuple[Callable[[Path], None], Callable[[Path], None]]:
    """To mount memory over a path, and to unmount it."""
    return mount_memory, unmount
