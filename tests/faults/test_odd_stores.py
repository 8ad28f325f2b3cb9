"""Stores that are not what S3 is: what they refuse, ignore or limit costs what it must, and nothing else.

A whole engine before a store in memory that deviates in one way. Each test ends with the deviation gone where it can
go, and both sides equal.
"""

import asyncio
import os
from collections import Counter

import pytest

from tests.device import Device
from tests.faults.small_store import Failure, SmallStore, Stored

MIB = 2**20

pytestmark = pytest.mark.slow


@pytest.fixture
def store(stub_s3, reply) -> SmallStore:
    stub_s3.default = SmallStore(reply)
    return stub_s3.default


@pytest.fixture
def device(tmp_path, stub_s3) -> Device:
    return Device(tmp_path, stub_s3.storage())


def keys_asked(stub_s3) -> Counter[tuple[str, str]]:
    """How often each (method, path) was asked for."""
    return Counter((request.method, request.target.partition("?")[0]) for request in stub_s3.requests)


def refusing(status: int, code: str, is_meant):
    """A store's `refuse`: an error for every request of which this is true."""

    def refuse(request, key, query):
        if is_meant(request, key, query):
            raise Failure(status, code)

    return refuse


def allow(request, key, query) -> None:
    """Nothing is refused."""


@pytest.mark.fault("B21")
@pytest.mark.parametrize("engine", ["obstore", "s3fs"])
async def test_store_that_knows_no_newer_checksums_is_served(device, stub_s3, store, engine):
    """Neither engine sends the checksum headers that some stores refuse: small and large files go both ways."""
    store.lies.add("no-new-checksums")
    large = os.urandom(17 * MIB)
    device.write("out/small", b"one")
    device.write("out/large", large)
    store.objects["incoming/x"] = Stored(b"two", "e" * 32, {})

    snapshot = await device.sync(device.egress(), device.ingress(), s3_engine=engine)

    assert {view.state for view in snapshot.targets} == {"in-step"}
    assert store.objects["sent/small"].body == b"one"
    assert store.objects["sent/large"].body == large
    assert (device.inbox / "x").read_bytes() == b"two"
    assert store.uploads == {}


@pytest.mark.fault("B21")
@pytest.mark.parametrize(("engine", "size"), [("obstore", 1000), ("obstore", 17 * MIB), ("s3fs", 17 * MIB)])
async def test_store_that_ignores_if_match_tears_no_download(device, stub_s3, store, until, engine, size):
    """An object that is replaced while it is fetched comes as one of its versions, though the store checks nothing.

    Nor does its ETag tell anything of its content.
    """
    store.lies |= {"ignores-conditions", "opaque"}
    old, new = os.urandom(size), os.urandom(size)
    store.objects["incoming/x"] = Stored(old, store._etag(old))
    gets = []

    def replace_meanwhile(request, key, query):
        if request.method == "GET" and key == "incoming/x":
            gets.append(request)
            if len(gets) == (1 if size < MIB else 2):
                store.objects[key] = Stored(new, store._etag(new))

    store.refuse = replace_meanwhile
    async with device.running(device.ingress(), s3_engine=engine) as running:
        await until((device.inbox / "x").exists)
        assert (device.inbox / "x").read_bytes() in (old, new)
        await running.in_step()

    assert (device.inbox / "x").read_bytes() == new
    assert all("if-match" in request.headers for request in gets)


@pytest.mark.fault("B23")
async def test_object_that_the_store_finds_too_large_fails_alone(device, stub_s3, store, until):
    """It is listed with reason and step, tried at the slow pace, and arrives once the limit is gone."""
    store.refuse = refusing(400, "EntityTooLarge", lambda request, *_: len(request.body) > MIB)
    device.write("out/large", os.urandom(2 * MIB))
    device.write("out/small")
    async with device.running(device.egress(), parked_retry_s=600) as running:
        await until(lambda: running.view().failing and "sent/small" in store.objects)
        device.write("out/later")
        await until(lambda: "sent/later" in store.objects)
        count = keys_asked(stub_s3)["PUT", "/b/sent/large"]
        await running.swept()
        await running.swept()

        (failing,) = running.view().failing
        assert failing.relpath == "large"
        assert "EntityTooLarge" in failing.message
        assert keys_asked(stub_s3)["PUT", "/b/sent/large"] == count == 1
        store.refuse = allow
        device.write("out/large", b"smaller")
        await running.in_step()

    assert store.objects["sent/large"].body == b"smaller"


@pytest.mark.fault("B23")
@pytest.mark.parametrize("resume_after_s", ["30", "0"], ids=["streamed", "recorded"])
async def test_parts_that_the_store_finds_too_small_leave_none_behind(device, store, until, resume_after_s):
    """A store that wants larger parts refuses to publish: nothing is visible, no part stays, the others go on."""
    store.refuse = refusing(
        400, "EntityTooSmall", lambda request, key, query: request.method == "POST" and "uploadId" in query
    )
    content = os.urandom(9 * MIB)
    device.write("out/large", content)
    device.write("out/small")
    async with device.running(device.egress(), parked_retry_s=600, resume_after_s=resume_after_s) as running:
        await until(lambda: running.view().failing and "sent/small" in store.objects)

        assert "EntityTooSmall" in running.view().failing[0].message
        assert "sent/large" not in store.objects
        await until(lambda: not store.uploads)
        store.refuse = allow
        os.utime(device.outbox / "large")
        await running.in_step()

    assert store.objects["sent/large"].body == content
    assert store.uploads == {}


@pytest.mark.fault("B24")
async def test_longest_key_is_carried_and_a_longer_one_named_without_a_request(device, stub_s3, store, until):
    """1,024 bytes arrive; one more is left out by rule, and no sweep asks for it."""
    fits = "/".join(["d" * 200] * 5) + "/" + "n" * (1024 - len("sent/") - 5 * 201)
    device.write(f"out/{fits}", b"fits")
    device.write(f"out/{fits}x", b"does not")
    async with device.running(device.egress()) as running:
        await until(lambda: running.view().skipped_by_reason == {"unsafe-name": 1})
        await running.in_step()

        assert running.view().failing == ()

    assert len(f"sent/{fits}") == 1024
    assert list(store.objects) == [f"sent/{fits}"]
    assert keys_asked(stub_s3)["PUT", f"/b/sent/{fits}x"] == 0


@pytest.mark.fault("B24")
async def test_key_that_only_this_store_finds_too_long_fails_alone_and_is_not_hammered(device, stub_s3, store, until):
    """A lower limit than S3's: one attempt at the slow pace, however many sweeps; renamed, it arrives."""
    store.refuse = refusing(400, "KeyTooLongError", lambda request, key, query: len(key) > 100)
    long = "n" * 150
    device.write(f"out/{long}")
    device.write("out/short")
    async with device.running(device.egress(), parked_retry_s=600) as running:
        await until(lambda: running.view().failing and "sent/short" in store.objects)
        await running.swept()
        await running.swept()

        assert "KeyTooLongError" in running.view().failing[0].message
        assert "rename" in running.view().failing[0].message
        assert keys_asked(stub_s3)["PUT", f"/b/sent/{long}"] == 1
        (device.outbox / long).rename(device.outbox / "renamed")
        await running.in_step()

    assert sorted(store.objects) == ["sent/renamed", "sent/short"]


WRONG = {
    "NoSuchBucket": (404, "bucket's name"),
    "AuthorizationHeaderMalformed": (400, "BUCKET_REGION"),
    "PermanentRedirect": (301, "BUCKET_REGION"),
}


@pytest.mark.fault("B16")
async def test_wrong_bucket_region_or_address_reads_as_an_outage_and_never_as_a_deletion(device, stub_s3, store, until):
    """Both targets say so with the next step, ask seldom, forget and delete nothing, and go on when it is mended."""
    store.objects["incoming/x"] = Stored(b"two", store._etag(b"two"))
    device.write("out/f", b"one")
    async with device.running(device.egress(), device.ingress()) as running:
        await running.in_step()
        store.refuse = refusing(404, "NoSuchBucket", lambda *_: True)
        for name in "ghij":
            device.write(f"out/{name}", b"new")
        for code, (status, step) in WRONG.items():
            store.refuse = refusing(status, code, lambda *_: True)
            for way in ("egress", "ingress"):
                await until(lambda way=way, code=code: code in running.view(way).reason)

                assert running.view(way).state == "blocked"
                assert step in running.view(way).reason + running.view(way).fix
        count = len(stub_s3.requests)
        await asyncio.sleep(1)

        assert len(stub_s3.requests) - count < 20
        assert (device.inbox / "x").read_bytes() == b"two"
        assert [running.view(way).journal_rows for way in ("egress", "ingress")] == [1, 1]
        store.refuse = allow
        await running.in_step()

    asked = keys_asked(stub_s3)
    assert not [path for method, path in asked if method == "DELETE"]
    assert asked["PUT", "/b/sent/f"] == 1
    assert asked["GET", "/b/incoming/x"] == 1
    assert set(store.objects) == {"incoming/x", *(f"sent/{name}" for name in "fghij")}


@pytest.mark.fault("B16")
async def test_prefix_with_nothing_beneath_it_removes_no_file(device, stub_s3, store):
    """An ingress that is pointed elsewhere finds an empty listing: what came from the old prefix stays."""
    store.objects["incoming/x"] = Stored(b"two", store._etag(b"two"))
    await device.sync(device.ingress())

    async with device.running(device.ingress(prefix="elsewhere/")) as running:
        await running.swept()
        await running.swept()

        assert running.view("ingress").state == "in-step"

    assert (device.inbox / "x").read_bytes() == b"two"
    assert not [path for method, path in keys_asked(stub_s3) if method == "DELETE"]


@pytest.mark.fault("B17")
async def test_target_that_may_not_write_stops_no_target_that_may_read(device, stub_s3, store, until):
    """Credentials that read one prefix and may not write the other: ingress goes on, egress says so and asks seldom."""
    store.lies.add("no-write")
    for number in range(20):
        device.write(f"out/f{number}")
    slow = {"retry_max_s": 60, "parked_retry_s": 600, "drain_timeout_s": 1}
    async with device.running(device.egress(), device.ingress(), **slow) as running:
        await until(lambda: running.view("egress").state == "blocked")
        for number in range(50):
            store.objects[f"incoming/x{number}"] = Stored(b"two", store._etag(b"two"))
        await until(lambda: device.inbox.exists() and len(list(device.inbox.iterdir())) == 50)
        await running.swept()

        assert running.view("ingress").state == "in-step"
        assert "AccessDenied" in running.view("egress").reason
        assert sum(count for (method, _), count in keys_asked(stub_s3).items() if method == "PUT") < 40
        store.lies.clear()
    await device.sync(device.egress())

    assert len([key for key in store.objects if key.startswith("sent/")]) == 20


@pytest.mark.fault("B10")
async def test_etags_that_something_on_the_way_changes_are_told_and_nothing_is_published(device, store, until):
    """GET never tells the version that the listing told: the files fail with that reason, and come once it ends."""
    store.lies.add("weakens-etags")
    store.objects["incoming/x"] = Stored(b"two", store._etag(b"two"))
    async with device.running(device.ingress()) as running:
        await until(lambda: running.view("ingress").state == "failing")

        assert running.view("ingress").failing_by_reason == {"remote-changed": 1}
        assert not (device.inbox / "x").exists()
        store.lies.clear()
        await running.in_step()

    assert (device.inbox / "x").read_bytes() == b"two"
