"""More events than the kernel's queue holds."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

WRITER = """
import os, sys
top, count = sys.argv[1], int(sys.argv[2])
for directory in range(10):
    os.makedirs(f"{top}/{directory}", exist_ok=True)
    for number in range(count // 10):
        with open(f"{top}/{directory}/{number}", "w") as file:
            file.write("x")
for directory in range(10):
    os.mkdir(f"{top}/{directory}/new")
"""
FILES = 20_000
NAMES = ("one", "two")


def burst(top: Path) -> None:
    """Two workloads at once, each with its own half of the files; blocks until both have ended."""
    command = [sys.executable, "-ISc", WRITER]
    writers = [subprocess.Popen([*command, str(top / name), str(FILES // 2)]) for name in NAMES]
    for writer in writers:
        assert writer.wait() == 0


def queue_holds() -> int:
    """How many events the kernel keeps for a reader."""
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.mark.fault("A7")
@pytest.mark.slow
async def test_queue_overflows_while_the_reader_is_held_up(scene, until):
    """20,000 files while nobody reads the queue: the overflow is counted, and every file is seen without the clock."""
    if queue_holds() > FILES:
        pytest.skip("this machine's queue holds the burst: fs.inotify.max_queued_events is raised")
    for name in NAMES:
        for directory in range(10):
            scene.write(f"{name}/{directory}/early")
    async with scene.watching("inotify") as watch:
        burst(scene.out)  # on the event loop's own thread: nothing is read meanwhile

        await watch.in_step(within_s=30)
        assert watch.health.overflows >= 1
        assert len(watch.rows()) == FILES + 20

        # Directories whose making was among the lost events are watched by now.
        late = {f"{name}/{directory}/new/late" for name in NAMES for directory in range(10)}
        for relpath in late:
            scene.write(relpath)
        await until(lambda: late <= watch.told)


@pytest.mark.slow
async def test_burst_of_two_writers(scene, source):
    """20,000 files of two writers as fast as they can: what events miss one sweep finds, and counts."""
    async with scene.watching(source) as watch:
        await asyncio.to_thread(burst, scene.out)
        await watch.quiet()
        missing = len(watch.missing())

        found = await watch.swept()

        assert found == missing
        assert len(watch.rows()) == FILES


@pytest.mark.slow
async def test_burst_without_events(scene):
    """20,000 files of two writers with events switched off: one sweep after the last write sees every file."""
    async with scene.watching("off", interval_s=3600) as watch:
        await asyncio.to_thread(burst, scene.out)

        await watch.swept()

        assert len(watch.rows()) == FILES
