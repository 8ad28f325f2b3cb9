"""Uploads that the network breaks: nothing torn, nothing doubled, nothing left behind."""

import os
from dataclasses import replace

import pytest

from tests.faults import wire
from tests.faults.sides import both_equal, keep_versions, put_off, told, uploads, versions
from tests.waiting import eventually

PART = 5 * 2**20
STREAM = {"part_size_bytes": PART, "resume_after_s": 3600}
RECORDED = {"part_size_bytes": PART, "resume_after_s": 0}
pytestmark = pytest.mark.slow

WAYS = pytest.mark.parametrize("way", [STREAM, RECORDED], ids=["stream", "parts"])


@pytest.mark.fault("B2")
async def test_small_upload_reset_at_any_byte_is_sent_again(far_device, proxy, witness, is_long):
    """Wherever the connection breaks, nobody ever sees a part of the file, and the next attempt sends all of it."""
    size = 100_000
    cuts = range(0, size + 1, 500) if is_long else (0, 1, 4096, size // 2, size - 1, size)
    for at in cuts:
        far_device.write(f"out/f{at}", os.urandom(size))
        proxy.reset_upload(at, key=f"sent/f{at}")

    async with far_device.running(far_device.egress()) as running:
        await running.in_step()

        assert put_off(running)["unavailable"] >= len(cuts)
    assert [len(proxy.seen("put", key=f"sent/f{at}")) for at in cuts] == [2] * len(cuts)
    await both_equal(far_device, witness)


@pytest.mark.fault("B2")
@WAYS
async def test_upload_in_parts_reset_at_any_byte_is_completed_once(far_device, proxy, witness, way):
    """A part that breaks off is sent again; what becomes visible is the whole file, in one version."""
    keep_versions(witness)
    cuts = (0, 2**20, PART - 1)
    for at in cuts:
        far_device.write(f"out/f{at}", os.urandom(2 * PART + 1000))
        proxy.reset_upload(at, operations="part", key=f"sent/f{at}")

    async with far_device.running(far_device.egress(), **way) as running:
        await running.in_step()

        assert put_off(running)["unavailable"] >= 1
    assert [len(versions(witness, f"sent/f{at}")) for at in cuts] == [1, 1, 1]
    await both_equal(far_device, witness)


@pytest.mark.fault("B5")
async def test_lost_answer_to_a_small_upload_doubles_nothing(far_device, proxy, witness):
    """A HEAD finds what arrived though nobody was told; below its price the same bytes are sent once more."""
    keep_versions(witness)
    far_device.write("out/small", b"tiny")
    far_device.write("out/large", os.urandom(100_000))
    for key in ("sent/small", "sent/large"):
        proxy.on("put", wire.lost(), key=key)

    async with far_device.running(far_device.egress()) as running:
        await running.in_step()

        assert put_off(running) == {"unavailable": 2}
        assert running.count("adopted") == 1
    assert len(versions(witness, "sent/large")) == 1
    assert len(set(versions(witness, "sent/small"))) == 1
    await both_equal(far_device, witness)


@pytest.mark.fault("B5", "B9")
@WAYS
@pytest.mark.parametrize("operation", ["create", "part", "complete"])
async def test_lost_answer_in_an_upload_of_parts_doubles_nothing(far_device, proxy, witness, way, operation):
    """Whichever answer is lost: one version of the object in the end, and no upload that costs money for ever."""
    keep_versions(witness)
    far_device.write("out/f", os.urandom(2 * PART + 1000))
    rule = proxy.on(operation, wire.lost())

    async with far_device.running(far_device.egress(), **way) as running:
        await running.in_step()

        # A library that cleans up finds its upload complete, and says that it is gone.
        is_gone = way is STREAM and operation == "complete"
        assert put_off(running) == {"remote-changed" if is_gone else "unavailable": 1}
    assert rule.hits == 1
    assert len(versions(witness, "sent/f")) == 1
    await both_equal(far_device, witness)


@pytest.mark.fault("B8")
@WAYS
async def test_error_inside_a_good_answer_completes_nothing(far_device, proxy, witness, way):
    """A completion that answers 200 and tells an error is a failure; the upload is completed by another attempt."""
    keep_versions(witness)
    far_device.write("out/f", os.urandom(PART + 1000))
    seen: list[list[str]] = []

    def fault(call: wire.Call, forward: wire.Forward) -> wire.Answer | None:
        seen.append(versions(witness, "sent/f"))
        return wire.error(200, "InternalError")(call, forward)

    proxy.on("complete", fault, times=2)

    async with far_device.running(far_device.egress(), **way) as running:
        await running.in_step()

        assert put_off(running) == {"unavailable": 2}
    assert seen == [[], []]
    assert len(versions(witness, "sent/f")) == 1
    await both_equal(far_device, witness)


@pytest.mark.fault("B9")
@WAYS
async def test_slow_completion_is_waited_for(far_device, proxy, witness, way):
    """A store that keeps the connection alive with blanks while it joins the parts is not taken for a dead one."""
    far_device.write("out/f", os.urandom(PART + 1000))

    def with_blanks(answer: wire.Answer) -> wire.Answer:
        head, _, rest = answer.body.partition(b"?>")
        return replace(answer, body=head + b"?>" + b" " * 300 + rest, drip_bytes_s=400)

    proxy.on("complete", wire.changed(with_blanks))
    async with far_device.running(far_device.egress(), read_timeout_s=0.5, **way) as running:
        await running.in_step()

        assert put_off(running) == {}
    assert len(proxy.seen("complete")) == 1
    await both_equal(far_device, witness)


_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Welcome to the hotel</body></html>"
STRANGE = {
    "500": wire.error(500, "InternalError"),
    "502": wire.status(502, _PAGE, Content_Type="text/html"),
    "504": wire.status(504),
    "page": wire.status(200, _PAGE, Content_Type="text/html"),
    "empty": wire.status(200),
}


@pytest.mark.fault("B7")
async def test_answer_of_no_store_is_no_upload(far_device, proxy, witness):
    """Server errors, a web page with 200 and an empty 200: each upload and each question is asked again."""
    far_device.write("out/first")  # with nothing in the bucket a listing tells, and nothing has to be asked
    async with far_device.running(far_device.egress()) as running:
        await running.watching()  # the sweeps that list are over
        await running.in_step()
        for name, fault in STRANGE.items():
            proxy.on("put", fault, key=f"sent/put-{name}", times=2)
            proxy.on("head", fault, key=f"sent/head-{name}", times=2)
            far_device.write(f"out/put-{name}", os.urandom(1000))
            far_device.write(f"out/head-{name}", os.urandom(100_000))
        await running.in_step()

        assert put_off(running)["unavailable"] >= 20
        assert {"500", "502", "504", "unparsable"} <= told(running)
    await both_equal(far_device, witness)


@pytest.mark.fault("B7")
@WAYS
async def test_answer_of_no_store_completes_nothing(far_device, proxy, witness, way):
    """What is no answer of S3 to a part or a completion is none: the object appears once, and whole."""
    keep_versions(witness)
    for name in ("502", "page", "empty"):
        far_device.write(f"out/{name}", os.urandom(PART + 1000))
        for operation in ("create", "part", "complete"):
            proxy.on(operation, STRANGE[name], key=f"sent/{name}")

    async with far_device.running(far_device.egress(), **way) as running:
        await running.in_step()

        assert put_off(running)["unavailable"] >= 9
    assert [len(versions(witness, f"sent/{name}")) for name in ("502", "page", "empty")] == [1, 1, 1]
    await both_equal(far_device, witness)


@pytest.mark.fault("B10")
async def test_etag_that_is_no_checksum_is_believed_to_be_opaque(far_device, proxy, witness):
    """A strange ETag in an upload's answer is taken as it is and sends nothing twice; an answer without one is none."""
    for name, value in (("wrong", "0" * 32), ("opaque", "an-etag-of-a-gateway"), ("none", None)):
        far_device.write(f"out/{name}", os.urandom(1000))
        proxy.on("put", wire.etag(value), key=f"sent/{name}")

    async with far_device.running(far_device.egress()) as running:
        await running.in_step()
        await running.swept()

        assert put_off(running) == {"unavailable": 1}
    puts = {name: len(proxy.seen("put", key=f"sent/{name}")) for name in ("wrong", "opaque", "none")}
    assert puts == {"wrong": 1, "opaque": 1, "none": 2}
    await both_equal(far_device, witness)


@pytest.mark.fault("B22")
async def test_object_that_somebody_else_overwrote_is_ours_again_with_the_next_version(far_device, proxy, witness):
    """Two parties at one key never fight: theirs stays while the file does, and the file's next version replaces it."""
    keep_versions(witness)
    path = far_device.write("out/f", b"ours")
    async with far_device.running(far_device.egress()) as running:
        await running.in_step()
        await witness.put("sent/f", b"theirs")
        os.utime(path, (1_600_000_000, 1_600_000_000))
        before = len(proxy.calls)
        await running.in_step()
        await running.swept()
        assert len(proxy.calls) == before
        assert await witness.get("sent/f") == b"theirs"

        path.write_bytes(b"ours, newer")
        await running.in_step()
        await running.swept()

    assert len(proxy.seen("put")) == 2
    assert len(versions(witness, "sent/f")) == 3
    await both_equal(far_device, witness)


@pytest.mark.fault("B26")
async def test_upload_of_a_dead_instance_is_thrown_away_once_the_store_answers(far_device, proxy, witness):
    """A start that cannot reach the store leaves the old upload for later; it goes with the file's next version."""
    path = far_device.write("out/f", os.urandom(2 * PART))
    foreign = witness.client.create_multipart_upload(Bucket=witness.bucket, Key="sent/foreign")["UploadId"]
    proxy.on("part", wire.refused(), nth=2, times=None)
    async with far_device.running(far_device.egress(), drain_timeout_s=0, **RECORDED):
        await eventually(lambda: proxy.seen("part"))
    path.write_bytes(b"small now")
    proxy.calm()
    proxy.on("abort", wire.error(503, "SlowDown"), times=1)
    assert sorted(uploads(witness)) == ["sent/f", "sent/foreign"]

    async with far_device.running(far_device.egress(), **RECORDED) as running:
        await running.in_step()

    assert uploads(witness) == ["sent/foreign"]
    witness.client.abort_multipart_upload(Bucket=witness.bucket, Key="sent/foreign", UploadId=foreign)
    await both_equal(far_device, witness)
