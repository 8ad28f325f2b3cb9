"""Writers that take their time: what is not finished is not sent, whatever tells of it.

The whole engine with a real S3 server. The bucket keeps every version of the file, so a premature one stays there as
evidence. A writer goes on once the engine has found the file busy twice.
"""

import asyncio
import contextlib
import mmap
import os
from collections.abc import AsyncIterator, Callable

import pytest

from replicator.config.settings import load
from replicator.engine import Engine
from replicator.model import Direction, Prefix, Target
from replicator.observe.metrics import Metrics
from replicator.stores.files.export import ignore_lease_signals
from replicator.supervisor import Supervisor

pytestmark = pytest.mark.slow

SIZE = 3 * 4096
HALF, WHOLE = b"a" * SIZE, b"b" * SIZE


class OneTarget:
    """A configuration that never changes."""

    heartbeat_s = 0.0

    def __init__(self, target: Target) -> None:
        self._target = target

    def read(self) -> tuple[Target, ...]:
        return (self._target,)

    async def changes(self) -> AsyncIterator[tuple[Target, ...]]:
        yield (self._target,)
        await asyncio.Event().wait()

    async def tell(self, report: object) -> None:
        """Nobody is told."""


class Bench:
    """A replicator that runs, and the file `out/f` that a writer works at."""

    def __init__(self, engine: Engine, path, witness, until: Callable) -> None:
        self.path = path
        self._engine, self._witness, self._until = engine, witness, until

    async def is_found_busy(self) -> None:
        """Until the file was looked at twice and put off, because somebody is writing it."""
        await self._until(lambda: any(job.attempts >= 2 for job in self._engine.queue.jobs()))

    async def sent(self) -> list[bytes]:
        """Every version of the object there ever was, once the last written one is there."""
        while (bodies := await asyncio.to_thread(self._versions)) == [] or bodies[-1] != self.path.read_bytes():
            await asyncio.sleep(0.05)
        return bodies

    def _versions(self) -> list[bytes]:
        listed = self._witness.client.list_object_versions(Bucket=self._witness.bucket, Prefix="sent/f")
        versions = sorted(listed.get("Versions", ()), key=lambda version: version["LastModified"])
        return [self._witness.body_of("sent/f", version["VersionId"]) for version in versions]


@pytest.fixture(params=["inotify", "watchfiles", "off"])
async def bench(request, scene, storage, witness, until) -> AsyncIterator[Bench]:
    """A whole engine over the scene's directory, with each source of events and with none."""
    versioning = {"Status": "Enabled"}
    witness.client.put_bucket_versioning(Bucket=witness.bucket, VersioningConfiguration=versioning)
    words = {
        "state_dir": str(scene.state),
        "watcher": request.param,
        "sweep_interval_s": "1" if request.param == "off" else "3600",
        "debounce_quiet_s": "0.05",
        "debounce_ceiling_s": "0.2",
        "free_space_floor_bytes": "0",
        "retry_max_s": "1",
        "http_listen": "",
    }
    ignore_lease_signals()  # as every command does first
    settings = load(words, {}).settings
    target = Target("w", Direction.EGRESS, str(scene.export), "out", Prefix("sent/"), storage)
    async with Engine(settings, Metrics()) as engine:
        supervisor = Supervisor(engine, OneTarget(target), lambda: settings)
        running = asyncio.create_task(supervisor.run())
        try:
            await until(lambda: engine.patrols and running.done() is False)
            patrol = next(iter(engine.patrols.values()))
            await until(lambda: patrol.report and (request.param == "off" or patrol.watcher.health.is_armed))
            yield Bench(engine, scene.out / "f", witness, until)
        finally:
            supervisor.stop()
            await running


async def test_slow_writer(bench):
    """A program that pauses between two writes: nothing is sent before its close, and then the whole."""
    with bench.path.open("wb", buffering=0) as file:
        file.write(HALF)
        await bench.is_found_busy()
        file.seek(0)
        file.write(WHOLE)

    assert await bench.sent() == [WHOLE]


async def test_idle_writer(bench):
    """A program that has finished writing and holds the file open: sent at its close, which changes nothing."""
    with bench.path.open("wb", buffering=0) as file:
        file.write(WHOLE)
        await bench.is_found_busy()

    assert await bench.sent() == [WHOLE]


@pytest.mark.fault("A4")
async def test_mapped_writer(bench):
    """A program that writes through a mapping, with the file's descriptor closed: nothing before it is unmapped."""
    with bench.path.open("w+b") as file:
        file.truncate(SIZE)
        mapping = mmap.mmap(file.fileno(), SIZE)
    with contextlib.closing(mapping):
        mapping[:] = HALF
        await bench.is_found_busy()
        mapping[:] = WHOLE

    assert await bench.sent() == [WHOLE]


async def test_writer_in_a_child(bench):
    """A descriptor that a child inherited: its parent's close is not the end, the child's is."""
    file = os.open(bench.path, os.O_WRONLY | os.O_CREAT)
    child = await asyncio.create_subprocess_exec(
        "sh", "-c", 'read wait; printf "%s" "$1"', "sh", WHOLE.decode(), stdin=asyncio.subprocess.PIPE, stdout=file
    )
    os.write(file, HALF[:1])
    os.lseek(file, 0, os.SEEK_SET)
    os.close(file)
    await bench.is_found_busy()
    await child.communicate(b"go on\n")
    assert child.returncode == 0

    assert await bench.sent() == [WHOLE]


async def test_two_writers(bench):
    """Two programs with the file open: the first one's close is not the end, the second's is."""
    with bench.path.open("wb", buffering=0) as second:
        with bench.path.open("r+b", buffering=0) as first:
            first.write(HALF)
        await bench.is_found_busy()
        second.write(WHOLE)

    assert await bench.sent() == [WHOLE]
