"""Trees that are large and files that never rest: what it costs is bounded, and told where it takes long."""

import asyncio
import threading
import time

import pytest

from tests.waiting import eventually

pytestmark = pytest.mark.slow

TREE = """
top, directories, per, depth = args[0], *map(int, args[1:])
for number in range(directories):
    path = f"{top}/{number % 100}/{number}"
    os.makedirs(path)
    for one in range(per):
        open(f"{path}/{one}", "w").close()
os.chdir(top)
for _ in range(depth):
    os.mkdir("d")
    os.chdir("d")
"""


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.fault("G1")
@pytest.mark.timeout(600)
async def test_large_and_deep_tree(scene, play, is_long):
    """Thousands of directories, and hundreds within each other: sweep after sweep takes no more memory."""
    directories, depth = (10_000 if is_long else 500), 400  # what removes the tree in the end recurses
    play(TREE, scene.out, directories, 10, depth)
    async with scene.watching("inotify", is_ready=False) as watch:
        await watch.in_step(within_s=300 if is_long else 40)
        for _ in range(3):
            await watch.patrol.sweep()
        before, began_s = resident_bytes(), time.monotonic()
        for _ in range(10):
            await watch.patrol.sweep()
        took_s = time.monotonic() - began_s

        report = watch.patrol.report
        assert (report.directories, report.files) == (directories + 100 + depth + 1, directories * 10)
        assert report.skipped == {}
        assert resident_bytes() - before < 8 * 2**20
        assert 0 < report.busy_s <= took_s
        assert watch.patrol.interval_s >= report.cpu_s


@pytest.mark.fault("G2")
async def test_file_that_is_rewritten_all_the_time(device, witness):
    """A file rewritten 1,000 times a second is sent while that goes on, once a window at most, and its end is sent."""
    path = device.write("out/f", b"0")
    is_over = threading.Event()

    def rewrite() -> None:
        number = 0
        while not is_over.wait(0.001):
            number += 1
            path.write_bytes(b"%d" % number)

    async with device.running(device.egress(), sweep_interval_s=3600) as running:
        await running.watching()
        sent = running.requests().get("put_object", 0)
        writer = threading.Thread(target=rewrite)
        began_s = time.monotonic()
        writer.start()
        try:
            await eventually(lambda: running.requests().get("put_object", 0) >= sent + 3)
            await asyncio.sleep(1)
        finally:
            is_over.set()
            writer.join()
        windows = (time.monotonic() - began_s) / 0.2
        assert running.requests()["put_object"] - sent <= windows + 4  # the first windows are shorter

        async def is_last():
            return await witness.get("sent/f") == path.read_bytes()

        await eventually(is_last)
        await eventually(lambda: running.view().state == "in-step")
        assert running.count("failed") == 0
