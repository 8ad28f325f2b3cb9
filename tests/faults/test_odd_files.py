"""Files of odd sizes, names and times: each is an object under its exact name, or is listed with its reason.

The whole engine with a real S3 server.
"""

import json
import os

import pytest

from replicator.explain import explain
from replicator.observe.status import to_json
from tests.waiting import eventually

pytestmark = pytest.mark.slow
MIB = 2**20
PART = 5 * MIB


@pytest.mark.fault("A20")
@pytest.mark.parametrize("resume_after_s", [0, 3600], ids=["recorded parts", "stream"])
async def test_sizes_about_the_part_size(device, witness, resume_after_s):
    """No byte, one byte, and a byte more or less than whole parts: each object has the size and bytes of its file."""
    sizes = (0, 1, PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1)
    for size in sizes:
        device.write(f"out/{size}", os.urandom(size))

    snapshot = await device.sync(device.egress(), part_size_bytes=PART, resume_after_s=resume_after_s)

    assert snapshot.targets[0].state == "in-step"
    assert len(await witness.keys("sent/")) == len(sizes)
    for size in sizes:
        assert await witness.get(f"sent/{size}") == (device.outbox / str(size)).read_bytes()


@pytest.mark.fault("A20")
async def test_sparse_file_larger_than_any_object(device, witness):
    """A file above the 5 TiB that an object may have is listed as too large without a byte read; others go on."""
    huge = device.write("out/huge", b"")
    os.truncate(huge, 5 * 2**40 + 1)
    device.write("out/other")
    async with device.running(device.egress()) as running:
        await running.in_step()
        await running.in_step()

        assert running.view().skipped_by_reason == {"too-large": 1}
        assert not running.view().failing
        (place,) = explain(running.engine, str(huge))().places
        assert "5 TiB" in place.rule
        assert running.requests().keys() <= {"put_object", "list_objects_v2"}

        os.truncate(huge, 10)
        await running.in_step()
    assert await witness.keys() == ["sent/huge", "sent/other"]


@pytest.mark.fault("A21")
async def test_names_that_are_hard_to_carry(device, witness):
    """Twins of one letter, ends that others cut off, the longest names: an object each; what has no key is named."""
    names = ["é", "e\u0301", "ends.", "ends ", " ", "#?%+\\&", "x" * 255, "a%2Fb", "..\\up", "%00", "ends"]
    for name in names:
        device.write(f"out/{name}", name.encode())
    with open(os.fsencode(device.outbox) + b"/bad\xff", "wb"):
        pass
    device.write("out/" + "/".join(["d" * 250] * 4) + "/" + "f" * 100)
    async with device.running(device.egress()) as running:
        await running.in_step()

        assert running.view().skipped_by_reason == {"unsafe-name": 2}
        assert not running.view().failing
    assert sorted(await witness.keys()) == sorted(f"sent/{name}" for name in names)
    for name in names:
        assert await witness.get(f"sent/{name}") == name.encode()


@pytest.mark.fault("A21")
async def test_name_with_a_line_break(device, witness):
    """A file name with a line break is sent, or fails with its name escaped; it closes the way to nobody else."""
    device.write("out/two\nlines", b"x")
    for number in range(20):
        device.write(f"out/{number}", b"y")
    async with device.running(device.egress()) as running:
        await eventually(lambda: running.view().journal_rows >= 20)
        await eventually(lambda: running.view().failing or running.view().journal_rows == 21)

        assert running.view().state in ("failing", "in-step")
        assert "\n" not in json.dumps(to_json(running.supervisor.snapshot()))
        (device.outbox / "two\nlines").rename(device.outbox / "one line")
        await running.in_step()
    assert await witness.get("sent/one line") == b"x"


TIMES_NS = {
    "future": 4_000_000_000 * 10**9,
    "beyond 64 bits of ns": 15_000_000_000 * 10**9,
    "epoch": 0,
    "before the epoch": -1_500_000_000,
    "whole second": 1_700_000_000 * 10**9,
}


@pytest.mark.fault("H3")
async def test_files_with_odd_times(device, witness):
    """Times of the future, of 1970, before it, and in whole seconds: each version is sent once."""
    for name, time_ns in TIMES_NS.items():
        os.utime(device.write(f"out/{name}", b"first"), ns=(time_ns, time_ns))
    async with device.running(device.egress()) as running:
        await running.in_step()
        await running.in_step()
        assert running.requests()["put_object"] == len(TIMES_NS)

        for name in TIMES_NS:
            path = device.outbox / name
            seen = os.stat(path)
            path.write_bytes(b"other")
            os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        await running.in_step()
        await running.in_step()

        assert running.requests()["put_object"] == 2 * len(TIMES_NS)
    for name in TIMES_NS:
        assert await witness.get(f"sent/{name}") == b"other"


@pytest.mark.fault("H3")
async def test_times_survive_the_way_through_the_bucket(device, witness):
    """The time that egress tells is the file's, and the one that ingress gives it, where that is not before 1970."""
    for name, time_ns in TIMES_NS.items():
        os.utime(device.write(f"out/{name}", name.encode()), ns=(time_ns, time_ns))
    await device.sync(device.egress())

    await device.sync(device.ingress(prefix="sent/"))

    for name in TIMES_NS:
        told = (await witness.head(f"sent/{name}"))["Metadata"]["mtime"]
        time_ns = min(os.stat(device.outbox / name).st_mtime_ns, 2**63 - 1)
        assert float(told) == pytest.approx(time_ns / 1e9, abs=1e-3)
        if time_ns >= 0:
            assert os.stat(device.inbox / name).st_mtime_ns == time_ns
