"""The recipes of docs/operations/disasters.md, on a real S3 server: what they promise comes out."""

import asyncio
import shutil

from replicator.verify import verify
from tests.device import Device

NAMES = [f"f{number}" for number in range(6)]


async def filled(device) -> None:
    """Six files on the device and in the bucket."""
    for name in NAMES:
        device.write(f"out/{name}", name.encode())
    await device.sync(device.egress())


async def differences(device) -> dict[str, str]:
    (found,) = await verify(device.effective(), (device.egress(),))
    return {item.relpath: item.problem for item in found.differences}


async def test_lost_device_is_filled_from_its_bucket_and_sends_nothing_again(device, tmp_path, witness):
    """What a device sent is fetched by a mapping the other way round; put into service then, it sends none of it."""
    await filled(device)
    fresh = Device(tmp_path / "fresh", device.storage)

    await fresh.sync(fresh.ingress("out", "sent/"))
    assert {path.name: path.read_bytes() for path in fresh.outbox.iterdir()} == {name: name.encode() for name in NAMES}

    async with fresh.running(fresh.egress()) as running:
        await running.in_step()
        assert "put_object" not in running.requests()
    assert await differences(fresh) == {}


async def test_emptied_bucket_is_told_by_verify_and_filled_by_a_fresh_journal(device, witness):
    """Objects that somebody removed are missed by verify alone; without the journal, all are sent again."""
    await filled(device)
    for name in NAMES:
        await witness.delete(f"sent/{name}")

    snapshot = await device.sync(device.egress())
    assert snapshot.targets[0].state == "in-step"
    assert await witness.keys("sent/") == []
    assert await differences(device) == dict.fromkeys(NAMES, "missing in the bucket")

    shutil.rmtree(device.home / "state")
    await device.sync(device.egress())
    assert await differences(device) == {}
    assert await witness.keys("sent/") == [f"sent/{name}" for name in NAMES]


async def test_bucket_that_went_and_came_back_empty_is_filled_again(device, witness, until):
    """What is confirmed counts no more than its bucket: the device sends again all that it still has."""
    await filled(device)
    async with device.running(device.egress(), sweep_interval_s=1, parked_retry_s=1) as running:
        await running.in_step()
        for name in NAMES:
            await witness.delete(f"sent/{name}")
        await asyncio.to_thread(witness.client.delete_bucket, Bucket=witness.bucket)
        device.write("out/waits", b"waits")
        await until(lambda: running.view().cause == "bucket-missing")
        await asyncio.to_thread(witness.client.create_bucket, Bucket=witness.bucket)

        await until(lambda: running.view().state == "in-step" and running.view().journal_rows == len(NAMES) + 1)

        async def is_whole():
            return await witness.keys("sent/") == [f"sent/{name}" for name in (*NAMES, "waits")]

        await until(is_whole)
        await running.in_step()
    assert await differences(device) == {}
