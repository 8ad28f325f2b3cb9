"""What every object store must do, over a real server. Another store or server slots in as one more parameter."""

import asyncio
import contextlib
import dataclasses
import hashlib
import random

import pytest

from replicator import checksum
from replicator.errors import AccessDenied, BucketMissing, ObjectMissing, RemoteChanged, TransferError
from replicator.stores.s3 import S3fsStore

STORES = {"s3fs": S3fsStore}

MIB = 2**20

KEYS = {
    "space": "a b",
    "trailing-space": "a ",
    "nfc": "caf\u00e9",
    "nfd": "cafe\u0301",
    "plus": "a+b",
    "percent": "100%",
    "encoded-space": "a%20b",
    "encoded-slash": "a%2Fb",
    "question": "a?b",
    "version-query": "a?versionId=x",
    "hash": "a#b",
    "xml": "&<>\"'",
    "backslash": "a\\b",
    "punctuation": "~:*[]{}@=,;!$()^`|",
    "emoji": "\U0001f600/\U0001f680",
    "tab": "a\tb",
    "control": "a\x01b",
    "newline": "a\nb",
    "double-slash": "k//x",
    "dot": "k/./x",
    "dot-dot": "k/../x",
    "leading-slash": "/lead",
    "marker": "dir/",
    "long-segment": "s" * 300,
    "longest": "/".join(["d" * 127] * 8),
}


@pytest.fixture(params=STORES)
async def store(request, storage):
    """The store under test, with pages short enough that several are needed."""
    one = STORES[request.param](storage, connections=16, connect_timeout_s=5, read_timeout_s=30, page_keys=7)
    yield one
    await one.close()


async def read(store, key, **which) -> bytes:
    return b"".join([block async for block in store.get(key, **which)])


async def listed(store, prefix=""):
    return [entry async for page in store.list(prefix) for entry in page]


def md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


async def put(store, key, body=b"x", metadata=None):
    return await store.put(key, body, md5=md5(body), metadata=metadata or {})


async def fill(store, keys) -> None:
    gate = asyncio.Semaphore(16)

    async def one(key):
        async with gate:
            await put(store, key)

    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(one(key))


@pytest.mark.parametrize("size", [0, 1, 8 * MIB])
async def test_object_round_trips_whole(store, witness, size):
    """What was put is what anybody gets, byte for byte, under the ETag that was returned."""
    body = random.Random(size).randbytes(size)

    etag = await put(store, "o", body)

    assert await witness.get("o") == body
    assert await read(store, "o", etag=etag) == body
    assert (await store.head("o")).etag == etag == checksum.etag_of(checksum.checksum_of([body]))


async def test_put_replaces(store, witness):
    """A second put leaves only the second version, under another ETag."""
    first = await put(store, "o", b"first")

    second = await put(store, "o", b"second")

    assert first != second
    assert await witness.get("o") == b"second"


async def test_metadata_comes_back_from_head_in_lower_case(store):
    """Metadata survives, its names in lower case, which is all that HTTP keeps of them."""
    await put(store, "o", b"12345", {"Mtime": "1700000000.123456789", "by": "replicator"})

    found = await store.head("o")

    assert found.metadata == {"mtime": "1700000000.123456789", "by": "replicator"}
    assert found.size == 5


@pytest.mark.parametrize("name", KEYS)
async def test_key_is_itself(store, witness, s3_server, name):
    """Each key names one object of exactly that name, on every way in and out."""
    key = KEYS[name]
    if name == "newline" and "amazonaws" not in s3_server.endpoint:
        pytest.skip("moto answers 404 to a key with a newline")

    etag = await put(store, key, name.encode())

    assert await witness.keys() == [key]
    assert [entry.key for entry in await listed(store)] == [key]
    assert (await store.head(key)).etag == etag
    assert await read(store, key, etag=etag) == name.encode()
    await store.delete(key)
    assert await witness.keys() == []


@pytest.mark.slow
async def test_list_is_complete_and_in_byte_order_over_many_pages(s3):
    """2,500 keys come in pages of 1,000, each once, in byte order of the whole key."""
    keys = sorted((f"{i % 50:02}{'/.-'[i % 3]}{i:04}" for i in range(2500)), key=str.encode)
    await fill(s3, keys)

    pages = [page async for page in s3.list("")]

    assert [len(page) for page in pages] == [1000, 1000, 500]
    assert [entry.key for page in pages for entry in page] == keys


async def test_list_goes_on_over_short_pages(store):
    """Continuation neither loses nor repeats a key, whatever stands at the page's end."""
    keys = sorted([*(f"n{i:02}" for i in range(20)), "n0/x", "n0.x", "n 0", "n+0", "n%0", "n\u00e9"], key=str.encode)
    await fill(store, keys)

    assert [entry.key for entry in await listed(store)] == keys


async def test_list_tells_what_head_tells(store):
    """Size, ETag and time of a listed object are those of HEAD; metadata is not known from a listing."""
    await put(store, "o", b"12345", {"a": "b"})

    entry = (await listed(store))[0]

    assert entry == await store.head("o")
    assert entry.metadata is None
    assert entry.mtime_ns > 1_600_000_000 * 10**9


async def test_prefix_ends_where_it_ends(store):
    """`data/` has nothing of `data2/` or `data`, and a prefix without objects is an empty listing."""
    await fill(store, ["data", "data/a", "data/b/c", "data2/a", "dat"])

    assert [entry.key for entry in await listed(store, "data/")] == ["data/a", "data/b/c"]
    assert await listed(store, "none/") == []


async def test_get_of_another_version_says_so(store, witness):
    """Bytes of another version than the one asked for are never delivered."""
    etag = await put(store, "o", b"first")
    await witness.put("o", b"second")

    with pytest.raises(RemoteChanged):
        await read(store, "o", etag=etag)


async def test_get_goes_on_from_an_offset(store):
    """A download resumes at any byte but the end, where nothing is left to ask for."""
    body = random.Random(1).randbytes(3 * MIB)
    etag = await put(store, "o", body)

    assert await read(store, "o", etag=etag, offset=1) == body[1:]
    assert await read(store, "o", etag=etag, offset=2 * MIB + 17) == body[2 * MIB + 17 :]
    with pytest.raises(RemoteChanged):
        await read(store, "o", etag=etag, offset=len(body))


async def test_get_yields_blocks_worth_a_write(store):
    """Blocks are 256 KiB at least, but for the last, and small beside a part."""
    etag = await put(store, "o", bytes(3 * MIB))

    sizes = [len(block) async for block in store.get("o", etag=etag)]

    assert min(sizes[:-1]) >= 256 * 1024
    assert max(sizes) <= 2 * MIB


async def test_get_may_be_left_early(store):
    """A reader that stops reading leaves nothing behind that hinders the next request."""
    etag = await put(store, "o", bytes(8 * MIB))

    for _ in range(40):
        async with contextlib.aclosing(store.get("o", etag=etag)) as blocks:
            await anext(blocks)

    assert len(await read(store, "o", etag=etag)) == 8 * MIB


async def test_multipart_is_invisible_until_complete(store, witness):
    """Parts show nowhere until the upload completes; its ETag is the one we compute, its metadata is there."""
    parts = [bytes([n]) * size for n, size in ((1, 5 * MIB), (2, 5 * MIB), (3, 17))]
    upload = await store.create_upload("big", metadata={"a": "b"})
    etags = [await store.put_part("big", upload, n, part, md5=md5(part)) for n, part in enumerate(parts, start=1)]
    assert await witness.keys() == []

    etag = await store.complete_upload("big", upload, etags)

    assert etag == checksum.etag_of(checksum.checksum_of(parts, part_size_bytes=5 * MIB))
    assert await witness.get("big") == b"".join(parts)
    assert (await store.head("big")).metadata == {"a": "b"}
    assert await store.list_uploads("") == ()


async def test_abort_leaves_nothing(store, witness):
    """An aborted upload is gone, its object never was; aborting again is fine."""
    part = bytes(5 * MIB)
    upload = await store.create_upload("big", metadata={})
    await store.put_part("big", upload, 1, part, md5=md5(part))

    await store.abort_upload("big", upload)
    await store.abort_upload("big", upload)

    assert await store.list_uploads("") == ()
    with pytest.raises(TransferError):  # ObjectMissing by the API; moto fails
        await store.put_part("big", upload, 2, part, md5=md5(part))
    assert await witness.keys() == []


async def test_uploads_are_listed_by_prefix(store):
    """Unfinished uploads are found by prefix, over as many pages as it takes, with the id that aborts them."""
    keys = [f"data/{n:02}" for n in range(9)] + ["data/a b+c%", "data2/x"]
    made = {(key, await store.create_upload(key, metadata={})) for key in keys}

    assert set(await store.list_uploads("")) == made
    assert set(await store.list_uploads("data/")) == {pair for pair in made if pair[0] != "data2/x"}


async def test_delete_twice_is_fine(store, witness):
    """Deleting what is not there is done already."""
    await put(store, "o")

    await store.delete("o")
    await store.delete("o")

    assert await witness.keys() == []


async def test_missing_object_says_so(store):
    """No object is ObjectMissing for HEAD and GET alike."""
    with pytest.raises(ObjectMissing):
        await store.head("none")
    with pytest.raises(ObjectMissing):
        await read(store, "none", etag="0" * 32)


@pytest.mark.parametrize("name", STORES)
async def test_missing_bucket_says_so(storage, name):
    """No bucket is BucketMissing, never an empty listing."""
    other = dataclasses.replace(storage, bucket="test-no-such-bucket")
    store = STORES[name](other, connections=2, connect_timeout_s=5, read_timeout_s=30)
    try:
        with pytest.raises(BucketMissing):
            await store.probe()
        with pytest.raises(BucketMissing):
            await listed(store)
        with pytest.raises(BucketMissing):
            await put(store, "o")
        with pytest.raises(BucketMissing):
            await store.list_uploads("")
    finally:
        await store.close()


@pytest.mark.parametrize("name", STORES)
async def test_wrong_credentials_say_so(stub_s3, reply, name):
    """Refused credentials are AccessDenied on every way in, never an empty listing (moto checks none: a stub does)."""
    body = b"<Error><Code>InvalidAccessKeyId</Code></Error>"
    stub_s3.default = reply(403, {"Content-Type": "application/xml"}, body)
    store = STORES[name](stub_s3.storage(), connections=2, connect_timeout_s=5, read_timeout_s=30)
    try:
        for call in (store.probe(), listed(store), put(store, "o"), store.head("o"), read(store, "o", etag="e")):
            with pytest.raises(AccessDenied):
                await call
    finally:
        await store.close()


async def test_probe_passes_on_a_bucket_that_is_there(store):
    """Probing an empty bucket and a full one raises nothing."""
    await store.probe()
    await fill(store, ["a", "b", "c"])

    await store.probe()
