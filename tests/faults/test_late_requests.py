"""Requests that the store carries out long after we gave them up: what they overwrite is put right, nothing is freed.

The whole engine with a real S3 server; the proxy holds a request back until the test lets it go. The wall clock is the
test's own.
"""

import asyncio
import os
import pickle
import sys
import threading

import pytest

from replicator.model import LATE_LOOK_S, LATE_OVER_S
from tests.faults import wire
from tests.faults.sides import both_equal, sweep
from tests.waiting import eventually

PART = 5 * 2**20
RECORDED = {"part_size_bytes": PART, "resume_after_s": 0}
STREAM = {"part_size_bytes": PART, "resume_after_s": 3600}
pytestmark = [pytest.mark.slow, pytest.mark.fault("B5")]

ENGINES = pytest.mark.parametrize("engine", ["obstore", "s3fs"])


@pytest.fixture
def release():
    """Lets the request go that is late."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def holds(witness):
    """Waits until the object has this content."""

    async def until(content: bytes, key: str = "sent/f") -> None:
        async def is_there() -> bool:
            return await witness.get(key) == content

        await eventually(is_there)

    return until


async def overtake(running, device, proxy, release) -> None:
    """The file's first version was sent and is held back, the second is confirmed."""
    proxy.on("put", wire.late(release), key="sent/f")
    path = device.write("out/f", b"first")
    await eventually(lambda: proxy.seen("put", key="sent/f"))
    path.write_bytes(b"second")
    await running.in_step()
    assert running.view().late_writes == 1


@ENGINES
async def test_older_version_that_comes_in_late_is_put_right_after_a_minute(
    far_device, proxy, witness, release, holds, shift, engine
):
    """A lost request overwrites the version that was confirmed after it; the object is looked at and sent again."""
    async with far_device.running(far_device.egress(), s3_engine=engine) as running:
        await overtake(running, far_device, proxy, release)
        await holds(b"second")

        release.set()
        await holds(b"first")
        shift(LATE_LOOK_S + 1)
        await sweep(running)
        await holds(b"second")
        await running.in_step()

    await both_equal(far_device, witness)


async def test_older_version_that_comes_in_after_the_first_look_is_put_right_by_the_last(
    far_device, proxy, witness, release, holds, shift
):
    """A signature is good for half an hour at most: the look after that is the last, and nobody asks any more."""
    async with far_device.running(far_device.egress()) as running:
        await overtake(running, far_device, proxy, release)
        shift(LATE_LOOK_S + 1)
        await sweep(running)
        await eventually(lambda: running.engine.journal.late_writes(1)[0].is_looked_at)

        release.set()
        await holds(b"first")
        await sweep(running)
        await running.in_step()
        await holds(b"first")
        assert len(proxy.seen("head")) == 1
        shift(LATE_OVER_S + 2)
        await sweep(running)
        await holds(b"second")
        await eventually(lambda: not running.view().late_writes)

        asked = len(proxy.calls)
        shift(3 * LATE_OVER_S)
        await sweep(running)
        await running.in_step()
        assert len(proxy.calls) == asked
    await both_equal(far_device, witness)


async def test_file_is_freed_only_when_nothing_can_come_in_any_more(far_device, proxy, release, holds, shift):
    """Where an upload frees the device, the file stays until its object is safe: it is what puts the object right."""
    path = far_device.outbox / "f"
    async with far_device.running(far_device.egress(delete_after_upload=True)) as running:
        await overtake(running, far_device, proxy, release)
        await sweep(running)
        await running.in_step()
        assert path.exists()
        assert not proxy.seen("head")

        release.set()
        await holds(b"first")
        shift(LATE_LOOK_S + 1)
        await sweep(running)
        await holds(b"second")
        await running.in_step()
        assert path.exists()

        shift(LATE_OVER_S + 2)
        await sweep(running)
        await eventually(lambda: not path.exists())

    await holds(b"second")


async def test_lost_answer_to_the_version_that_is_confirmed_costs_nothing(far_device, proxy, shift):
    """The same bytes once more change nothing: no look at the object, and the device is freed as ever."""
    proxy.on("put", wire.lost(), key="sent/f")
    proxy.on("put", wire.lost(), key="freed/f")
    far_device.write("out/f", b"tiny")
    freed = far_device.write("free/f", b"tiny")
    targets = far_device.egress(), far_device.egress("free", "freed/", delete_after_upload=True)
    async with far_device.running(*targets) as running:
        await eventually(lambda: len(proxy.seen("put")) == 4 and not freed.exists())

        shift(LATE_LOOK_S + 1)
        await sweep(running)
        await eventually(lambda: all(late.is_looked_at for late in running.engine.journal.late_writes(1)))
        shift(LATE_OVER_S + 2)
        await sweep(running)
        await eventually(lambda: not running.view().late_writes)

        assert not proxy.seen("head", "get")
        assert len(proxy.seen("put")) == 4


async def test_next_process_knows_what_may_come_in_late(far_device, proxy, release, holds, shift):
    """What was not answered outlives the process that asked."""
    async with far_device.running(far_device.egress()) as running:
        await overtake(running, far_device, proxy, release)
    release.set()
    await holds(b"first")

    async with far_device.running(far_device.egress()) as running:
        await running.in_step()
        assert running.view().late_writes == 1
        shift(LATE_LOOK_S + 1)
        await sweep(running)
        await holds(b"second")


@pytest.mark.parametrize("way", [STREAM, RECORDED], ids=["stream", "parts"])
async def test_late_completion_of_an_older_version_does_not_last(
    far_device, proxy, witness, release, holds, shift, way
):
    """A completion that comes in after the next version was sent: its upload is gone by then, or it is put right."""
    rule = proxy.on("complete", wire.late(release), key="sent/f")
    path = far_device.write("out/f", os.urandom(PART + 1000))
    async with far_device.running(far_device.egress(), **way) as running:
        await eventually(lambda: rule.hits)
        path.write_bytes(b"small now")
        await running.in_step()
        assert running.view().late_writes == 1

        release.set()
        late = next(fate for fate in proxy.fates if fate.call.operation == "complete")
        await eventually(lambda: late.done_s)
        shift(LATE_LOOK_S + 1)
        await sweep(running)
        await eventually(lambda: proxy.seen("head"))
        await running.in_step()

        await holds(b"small now")
    await both_equal(far_device, witness)


async def test_late_abort_harms_no_other_upload(far_device, proxy, witness, release):
    """An abort that comes in late finds the upload that it was meant for, or none."""
    path = far_device.write("out/f", os.urandom(2 * PART))
    broken = proxy.on("part", wire.refused(), times=None)
    async with far_device.running(far_device.egress(), **RECORDED) as running:
        await eventually(lambda: broken.hits)
        abort = proxy.on("abort", wire.late(release))
        path.write_bytes(os.urandom(2 * PART + 1))
        await eventually(lambda: abort.hits)
        proxy.on("part", wire.first(lambda _: release.set()))  # once the next upload has begun
        broken.times = 0
        await running.in_step()

    assert len(proxy.seen("abort")) >= 2
    await both_equal(far_device, witness)


CHILD = """
import asyncio, pickle, sys
from tests.device import Device
from tests.waiting import eventually

async def main():
    Device.__post_init__ = lambda self: None
    device = pickle.load(sys.stdin.buffer)
    async with device.running(device.egress()):
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_request_under_way_at_a_kill_is_expected_late(far_device, proxy, release, holds, shift):
    """Nobody heard of its end; the next process sends the newer version, and looks after it."""

    def held(_call: wire.Call, forward: wire.Forward) -> None:
        release.wait(60)
        forward()

    proxy.on("put", held)
    path = far_device.write("out/f", b"first")
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, stdin=asyncio.subprocess.PIPE)
    try:
        child.stdin.write(pickle.dumps(far_device))
        child.stdin.close()
        await eventually(lambda: proxy.seen("put"))
    finally:
        child.kill()
        await child.wait()
    path.write_bytes(b"second")

    async with far_device.running(far_device.egress()) as running:
        await running.in_step()
        await holds(b"second")
        assert running.view().late_writes == 1

        release.set()
        await holds(b"first")
        shift(LATE_LOOK_S + 2)
        await sweep(running)
        await holds(b"second")
