"""Downloads that the network breaks: readers of a file see the old version or the new one, and nothing between."""

import hashlib
import os

import pytest

from replicator.stores.s3 import direct, fast_client
from replicator.transfer import outcome
from tests.device import Device, Running
from tests.faults import wire
from tests.faults.sides import both_equal, put_off, sweep, told
from tests.waiting import eventually

pytestmark = pytest.mark.slow

SIZE = 100_000
RANGED = 17 * 2**20


async def in_step_with_old(running: Running, witness, versions: dict[str, tuple[bytes, bytes]]) -> None:
    """The old versions on both sides, so that faults can be armed before anybody asks for the new ones."""
    for name, (old, _) in versions.items():
        await witness.put(f"incoming/{name}", old)
    await sweep(running)
    await running.in_step()


async def until_new(running: Running, device: Device, witness, versions: dict[str, tuple[bytes, bytes]]) -> None:
    """Put the new versions, until every file is of its own; at no look before may it be anything but the old one."""

    def are_new() -> bool:
        found = {name: (device.inbox / name).read_bytes() for name in versions}
        assert [name for name in found if found[name] not in versions[name]] == []
        return all(found[name] == new for name, (_, new) in versions.items())

    for name, (_, new) in versions.items():
        await witness.put(f"incoming/{name}", new)
    await sweep(running)
    await eventually(are_new)


@pytest.mark.fault("B3", "B11")
async def test_body_that_breaks_or_lies_leaves_the_old_file(far_device, proxy, witness, is_long):
    """Cut at any byte, short, or flipped at any byte: what arrived is discarded, and the next attempt is whole."""
    cuts = range(0, SIZE, 500) if is_long else (0, 1, 4096, SIZE // 2, SIZE - 1)
    faults = {f"cut{at}": wire.cut(at) for at in cuts}
    faults |= {f"short{to}": wire.short(to) for to in (0, 1, SIZE - 1)}
    faults |= {f"flipped{at}": wire.flipped(at) for at in (0, SIZE // 2, SIZE - 1)}
    versions = {name: (b"old " + name.encode(), os.urandom(SIZE)) for name in faults}
    far_device.inbox.mkdir()
    async with far_device.running(far_device.ingress()) as running:
        await in_step_with_old(running, witness, versions)
        rules = [proxy.on("get", fault, key=f"incoming/{name}") for name, fault in faults.items()]
        await until_new(running, far_device, witness, versions)
        await running.in_step()

        assert [rule.hits for rule in rules] == [1] * len(faults)
        assert put_off(running)["unavailable"] >= 1
        assert put_off(running)["integrity"] >= 3
    await both_equal(far_device, witness)


@pytest.mark.fault("B3", "B11")
@pytest.mark.parametrize("kind", [wire.cut, wire.short, wire.flipped])
async def test_range_that_breaks_or_lies_leaves_the_old_file(far_device, proxy, witness, kind):
    """A large object comes in ranges; none of them, first or last, gets into the file unless it is whole and true."""
    versions = {"f": (b"old", os.urandom(RANGED))}
    async with far_device.running(far_device.ingress()) as running:
        await in_step_with_old(running, witness, versions)
        proxy.on("get", kind(2**20))
        proxy.on("get", kind(3 * 2**19), nth=3)  # of the next attempt
        await until_new(running, far_device, witness, versions)
        await running.in_step()

        assert put_off(running).keys() <= {"unavailable", "integrity"}
    await both_equal(far_device, witness)


@pytest.mark.fault("B4")
async def test_body_that_stalls_or_drips_is_given_up(far_device, proxy, witness, monkeypatch):
    """Silence ends by the read timeout, a drip by the least rate; small bodies, ranges and listings alike."""
    monkeypatch.setattr(fast_client, "_SMALL_S", 1.0)
    monkeypatch.setattr(outcome, "_GRACE_S", 1.0)
    monkeypatch.setattr(direct, "_GRACE_S", 1.0)
    versions = {name: (b"old", os.urandom(SIZE)) for name in ("stalled", "dripped", "after")}
    async with far_device.running(
        far_device.ingress(), part_size_bytes=5 * 2**20, min_rate_bytes_s=20 * 2**20, read_timeout_s=0.5
    ) as running:
        await in_step_with_old(running, witness, versions)
        rules = [
            proxy.on("get", wire.stalled(), key="incoming/stalled"),
            proxy.on("get", wire.dripped(10), key="incoming/dripped"),
            proxy.on("list", wire.stalled(), nth=2),
            proxy.on("list", wire.dripped(10), nth=3),
        ]
        await until_new(running, far_device, witness, versions)
        await eventually(lambda: all(rule.hits for rule in rules))
        await running.in_step()

        assert put_off(running)["unavailable"] >= 2
        assert "timeout" in told(running)
    await both_equal(far_device, witness)


@pytest.mark.fault("B10")
async def test_etag_that_does_not_fit_publishes_nothing_wrong(far_device, proxy, witness):
    """An answer with another ETag or none is not the object that was asked for; the listed version is fetched again."""
    versions = {name: (b"old", os.urandom(SIZE)) for name in ("wrong", "opaque", "none")}
    async with far_device.running(far_device.ingress()) as running:
        await in_step_with_old(running, witness, versions)
        for name, value in (("wrong", "0" * 32), ("opaque", "of-a-gateway"), ("none", None)):
            proxy.on("get", wire.etag(value), key=f"incoming/{name}")
            proxy.on("head", wire.etag(value), key=f"incoming/{name}")
        await until_new(running, far_device, witness, versions)
        await running.in_step()

        assert put_off(running).keys() == {"unavailable", "remote-changed"}
    await both_equal(far_device, witness)


@pytest.mark.fault("B10")
async def test_object_with_an_opaque_etag_is_fetched_once(far_device, proxy, witness):
    """A store whose ETags are no checksums is believed by length; nothing is fetched again and again for it."""
    content = os.urandom(SIZE)
    await witness.put("incoming/f", content)
    about = {"ETag": '"opaque"', "Last_Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    proxy.on("list", wire.replaced("<ETag>.*?</ETag>", "<ETag>opaque</ETag>"), times=None)
    proxy.on("get", wire.status(200, content, **about), times=None)
    async with far_device.running(far_device.ingress()) as running:
        await running.in_step()
        await sweep(running)
        await running.in_step()

        assert put_off(running) == {}
    assert len(proxy.seen("get")) == 1
    await both_equal(far_device, witness)


@pytest.mark.fault("B7")
async def test_answer_of_no_store_is_no_object(far_device, proxy, witness):
    """Server errors, a web page with 200 and an empty 200 never become a file; the old one stays till then."""
    page = b"<!DOCTYPE html><html><body>Sign in</body></html>"
    faults = {
        "500": wire.error(500, "InternalError"),
        "502": wire.status(502, page, Content_Type="text/html"),
        "504": wire.status(504),
        "page": wire.status(200, page, Content_Type="text/html"),
        "empty": wire.status(200),
    }
    versions = {name: (b"old", os.urandom(SIZE)) for name in faults}
    async with far_device.running(far_device.ingress()) as running:
        await in_step_with_old(running, witness, versions)
        for name, fault in faults.items():
            proxy.on("get", fault, key=f"incoming/{name}", times=2)
        await until_new(running, far_device, witness, versions)
        await running.in_step()

        assert put_off(running)["unavailable"] >= 10
        assert {"InternalError", "502", "504", "unparsable"} <= told(running)
    await both_equal(far_device, witness)


@pytest.mark.fault("B12")
@pytest.mark.parametrize("size", [SIZE, RANGED], ids=["whole", "ranges"])
async def test_object_replaced_while_it_is_fetched_is_one_version(far_device, proxy, witness, size):
    """However the new version falls between listing, first and last range: the file is one of them, never a mix."""
    first, second, third = (os.urandom(size) for _ in range(3))

    def put(content: bytes):
        return lambda _: witness.client.put_object(Bucket=witness.bucket, Key="incoming/f", Body=content)

    proxy.on("get", wire.first(put(second)))
    proxy.on("get", wire.then(put(third)))  # the next attempt's
    await witness.put("incoming/f", first)
    async with far_device.running(far_device.ingress()) as running:
        await eventually(lambda: (device_file := far_device.inbox / "f").exists() and device_file.read_bytes() == third)
        await running.in_step()

        assert put_off(running)["remote-changed"] >= 1
    await both_equal(far_device, witness)


@pytest.mark.fault("B13")
async def test_object_deleted_between_listing_and_fetch_harms_no_file(far_device, proxy, witness):
    """What is gone by the time it is asked for leaves no file and no alarm; a file of an older version stays."""
    await witness.put("incoming/known", b"old")
    await witness.put("incoming/stays", b"stays")
    async with far_device.running(far_device.ingress()) as running:
        await running.in_step()
        for key in ("incoming/known", "incoming/never"):
            gone = wire.first(lambda call: witness.client.delete_object(Bucket=witness.bucket, Key=call.key))
            proxy.on("get", gone, key=key)
            await witness.put(key, b"new")
        await sweep(running)
        await running.in_step()
        assert (far_device.inbox / "known").read_bytes() == b"old"
        assert not (far_device.inbox / "never").exists()
        await eventually(lambda: running.view("ingress").journal_rows == 1)

        assert put_off(running)["object-missing"] == 2
        assert running.view("ingress").state == "in-step"
        await witness.put("incoming/known", b"newest")
        await sweep(running)
        await running.in_step()
    conflicts = [path for path in far_device.inbox.iterdir() if ".sync-conflict-" in path.name]
    assert [path.read_bytes() for path in conflicts] == [b"old"]
    conflicts[0].unlink()
    await both_equal(far_device, witness)


def test_sizes_are_those_that_these_tests_mean():
    """The small bodies are above those that are moved in runs, and the large ones come in ranges."""
    from replicator.transfer.pull import RANGED_FROM_BYTES
    from replicator.transfer.turns import SMALL_BYTES

    assert SMALL_BYTES < SIZE < RANGED_FROM_BYTES < RANGED
    assert hashlib.md5(b"content").hexdigest() in wire.entry("k").decode()
