"""What every object store must do, over a real server. Another store or server slots in as one more parameter."""

import asyncio
import contextlib
import dataclasses
import hashlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from replicator import checksum
from replicator.errors import (
    AccessDenied,
    BucketMissing,
    ObjectMissing,
    RemoteChanged,
    SourceChanged,
    TransferError,
    Unavailable,
)

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


@pytest.fixture
def open_here(storage, open_any):
    """A store on the test's bucket, by every engine in turn, with pages so short that several are needed."""
    return lambda **settings: open_any(storage, **{"connections": 16, "read_timeout_s": 30, "page_keys": 7} | settings)


@pytest.fixture
def open_fast(open_any, engine):
    """Opens stores that expect a fast line, so that no large body is given long."""
    more = {"min_rate_bytes_s": 100 * MIB} if engine == "obstore" else {}
    return lambda storage, **settings: open_any(storage, **more | settings)


@pytest.fixture
def s3_answers(reply):
    """What a store with one object `o` of one byte answers to anything."""

    def answer(request):
        if "list-type" in request.target:
            return reply(200, {}, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        if request.method == "PUT":
            return reply(200, {"ETag": '"e"'})
        headers = {"ETag": '"e"', "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}
        return reply(204) if request.method == "DELETE" else reply(200, headers, b"x")

    return answer


@pytest.fixture
def store(open_here):
    """The store under test."""
    return open_here()


@pytest.fixture
def sees(witness):
    """What is in the bucket: `sees.keys()`, `sees.body(key)`, `sees.put(key, body)`; the witness, without a loop."""
    return Sight(witness)


class Sight:
    def __init__(self, witness):
        self._witness = witness

    def keys(self):
        return asyncio.run(self._witness.keys())

    def body(self, key):
        return asyncio.run(self._witness.get(key))

    def put(self, key, body):
        return asyncio.run(self._witness.put(key, body))


def read(store, key, **which) -> bytes:
    return b"".join(store.get(key, **which).blocks)


def listed(store, prefix=""):
    return [entry for page in store.list(prefix) for entry in page]


def md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def put(store, key, body=b"x", metadata=None):
    return store.put(key, body, md5=md5(body), metadata=metadata or {})


def fill(store, keys) -> None:
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: put(store, key), keys))


@pytest.mark.parametrize("size", [0, 1, 8 * MIB])
def test_object_round_trips_whole(store, sees, size):
    """What was put is what anybody gets, byte for byte, under the ETag that was returned."""
    body = random.Random(size).randbytes(size)

    etag = put(store, "o", body)

    assert sees.body("o") == body
    assert read(store, "o", etag=etag) == body
    assert (store.head("o")).etag == etag == checksum.etag_of(checksum.checksum_of([body]))


def test_put_replaces(store, sees):
    """A second put leaves only the second version, under another ETag."""
    first = put(store, "o", b"first")

    second = put(store, "o", b"second")

    assert first != second
    assert sees.body("o") == b"second"


def test_metadata_comes_back_from_head_in_lower_case(store):
    """Metadata survives, its names in lower case, which is all that HTTP keeps of them."""
    put(store, "o", b"12345", {"Mtime": "1700000000.123456789", "by": "replicator"})

    found = store.head("o")

    assert found.metadata == {"mtime": "1700000000.123456789", "by": "replicator"}
    assert found.size == 5


@pytest.mark.parametrize("name", KEYS)
def test_key_is_itself(store, sees, s3_server, name):
    """Each key names one object of exactly that name, on every way in and out."""
    key = KEYS[name]
    if name == "newline" and "amazonaws" not in s3_server.endpoint:
        pytest.skip("moto answers 404 to a key with a newline")

    etag = put(store, key, name.encode())

    assert sees.keys() == [key]
    assert [entry.key for entry in listed(store)] == [key]
    assert (store.head(key)).etag == etag
    assert read(store, key, etag=etag) == name.encode()
    store.delete(key)
    assert sees.keys() == []


@pytest.fixture(scope="module")
def many(s3_server, shared_witness):
    """A bucket with 2,500 objects, and their keys."""
    keys = sorted((f"{i % 50:02}{'/.-'[i % 3]}{i:04}" for i in range(2500)), key=str.encode)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: shared_witness.client.put_object(Bucket=shared_witness.bucket, Key=key), keys))
    return s3_server.storage(shared_witness.bucket), keys


@pytest.mark.slow
def test_list_is_complete_and_in_byte_order_over_many_pages(many, open_any):
    """2,500 keys come in pages of 1,000, each once, in byte order of the whole key."""
    storage, keys = many
    store = open_any(storage, page_keys=1000, read_timeout_s=30)

    pages = list(store.list(""))

    assert [len(page) for page in pages] == [1000, 1000, 500]
    assert [entry.key for page in pages for entry in page] == keys


def test_list_goes_on_over_short_pages(store):
    """Continuation neither loses nor repeats a key, whatever stands at the page's end."""
    keys = sorted([*(f"n{i:02}" for i in range(20)), "n0/x", "n0.x", "n 0", "n+0", "n%0", "n\u00e9"], key=str.encode)
    fill(store, keys)

    assert [entry.key for entry in listed(store)] == keys


def test_list_tells_what_head_tells(store):
    """Size, ETag and time of a listed object are those of HEAD; metadata is not known from a listing."""
    put(store, "o", b"12345", {"a": "b"})

    entry = (listed(store))[0]

    assert entry == store.head("o")
    assert entry.metadata is None
    assert entry.mtime_ns > 1_600_000_000 * 10**9


def test_prefix_ends_where_it_ends(store):
    """`data/` has nothing of `data2/` or `data`, and a prefix without objects is an empty listing."""
    fill(store, ["data", "data/a", "data/b/c", "data2/a", "dat"])

    assert [entry.key for entry in listed(store, "data/")] == ["data/a", "data/b/c"]
    assert listed(store, "none/") == []


def test_get_of_another_version_says_so(store, sees):
    """Bytes of another version than the one asked for are never delivered."""
    etag = put(store, "o", b"first")
    sees.put("o", b"second")

    with pytest.raises(RemoteChanged):
        read(store, "o", etag=etag)


def test_get_goes_on_from_an_offset(store):
    """A download resumes at any byte but the end, where nothing is left to ask for."""
    body = random.Random(1).randbytes(3 * MIB)
    etag = put(store, "o", body)

    assert read(store, "o", etag=etag, offset=1) == body[1:]
    assert read(store, "o", etag=etag, offset=2 * MIB + 17) == body[2 * MIB + 17 :]
    with pytest.raises(RemoteChanged):
        read(store, "o", etag=etag, offset=len(body))


def test_get_yields_blocks_worth_a_write(store):
    """Blocks are 256 KiB at least, but for the last, and small beside a part."""
    etag = put(store, "o", bytes(3 * MIB))

    sizes = [len(block) for block in store.get("o", etag=etag).blocks]

    assert min(sizes[:-1]) >= 256 * 1024
    assert max(sizes) <= 2 * MIB


def test_get_may_be_left_early(store):
    """A reader that stops reading leaves nothing behind that hinders the next request."""
    etag = put(store, "o", bytes(8 * MIB))

    for _ in range(40):
        with contextlib.closing(store.get("o", etag=etag).blocks) as blocks:
            next(blocks)

    assert len(read(store, "o", etag=etag)) == 8 * MIB


def test_multipart_is_invisible_until_complete(store, sees):
    """Parts show nowhere until the upload completes; its ETag is the one we compute, its metadata is there."""
    parts = [bytes([n]) * size for n, size in ((1, 5 * MIB), (2, 5 * MIB), (3, 17))]
    upload = store.create_upload("big", metadata={"a": "b"})
    etags = [store.put_part("big", upload, n, part, md5=md5(part)) for n, part in enumerate(parts, start=1)]
    assert sees.keys() == []

    etag = store.complete_upload("big", upload, etags)

    assert etag == checksum.etag_of(checksum.checksum_of(parts, part_size_bytes=5 * MIB))
    assert sees.body("big") == b"".join(parts)
    assert (store.head("big")).metadata == {"a": "b"}
    assert store.list_uploads("") == ()


def test_abort_leaves_nothing(store, sees):
    """An aborted upload is gone, its object never was; aborting again is fine."""
    part = bytes(5 * MIB)
    upload = store.create_upload("big", metadata={})
    store.put_part("big", upload, 1, part, md5=md5(part))

    store.abort_upload("big", upload)
    store.abort_upload("big", upload)

    assert store.list_uploads("") == ()
    with pytest.raises(TransferError):  # ObjectMissing by the API; moto fails
        store.put_part("big", upload, 2, part, md5=md5(part))
    assert sees.keys() == []


def test_uploads_are_listed_by_prefix(store):
    """Unfinished uploads are found by prefix, over as many pages as it takes, with the id that aborts them."""
    keys = [f"data/{n:02}" for n in range(9)] + ["data/a b+c%", "data2/x"]
    made = {(key, store.create_upload(key, metadata={})) for key in keys}

    assert set(store.list_uploads("")) == made
    assert set(store.list_uploads("data/")) == {pair for pair in made if pair[0] != "data2/x"}


@pytest.mark.parametrize("name", ["plain", "space", "version-query", "double-slash", "emoji"])
def test_asking_for_a_proof_leaves_no_trace(store, sees, name):
    """Whether the store checks uploads is found out without an object, a version or an upload that stays."""
    key = KEYS.get(name, name)
    put(store, key, b"before")

    answers = {store.is_checking_uploads(key) for _ in range(2)}

    assert len(answers) == 1
    assert (sees.keys(), sees.body(key)) == ([key], b"before")
    assert list(store.list_uploads("")) == []


def test_delete_twice_is_fine(store, sees):
    """Deleting what is not there is done already."""
    put(store, "o")

    store.delete("o")
    store.delete("o")

    assert sees.keys() == []


def test_missing_object_says_so(store):
    """No object is ObjectMissing for HEAD and GET alike."""
    with pytest.raises(ObjectMissing):
        store.head("none")
    with pytest.raises(ObjectMissing):
        read(store, "none", etag="0" * 32)


def test_missing_bucket_says_so(storage, open_any):
    """No bucket is BucketMissing, never an empty listing."""
    store = open_any(dataclasses.replace(storage, bucket="test-no-such-bucket"))

    for call in (
        store.probe,
        lambda: listed(store),
        lambda: put(store, "o"),
        lambda: store.put_parts("o", iter([b"x"]), part_size=5 * MIB, metadata={}),
        lambda: store.list_uploads(""),
    ):
        with pytest.raises(BucketMissing):
            call()


def test_wrong_credentials_say_so(stub_s3, reply, open_any):
    """Refused credentials are AccessDenied on every way in, never an empty listing (moto checks none: a stub does)."""
    body = b"<Error><Code>InvalidAccessKeyId</Code></Error>"
    stub_s3.default = reply(403, {"Content-Type": "application/xml"}, body)
    store = open_any(stub_s3.storage())

    for call in (
        store.probe,
        lambda: listed(store),
        lambda: put(store, "o"),
        lambda: store.put_parts("o", iter([b"x"]), part_size=5 * MIB, metadata={}),
        lambda: store.head("o"),
        lambda: store.get("o", etag="e"),
    ):
        with pytest.raises(AccessDenied):
            call()


def test_probe_passes_on_a_bucket_that_is_there(store):
    """Probing an empty bucket and a full one raises nothing."""
    store.probe()
    fill(store, ["a", "b", "c"])

    store.probe()


# Ranges


def test_get_of_a_range(store):
    """A range is those bytes and no others, wherever it lies."""
    body = random.Random(2).randbytes(3 * MIB)
    etag = put(store, "o", body)

    for offset, size in ((0, 1), (0, MIB), (17, 2 * MIB), (len(body) - 1, 1), (0, len(body))):
        assert read(store, "o", etag=etag, offset=offset, size=size) == body[offset : offset + size]


def test_get_of_nothing(store):
    """No bytes of an empty object, or of any, are none."""
    empty, full = put(store, "empty", b""), put(store, "full", b"12345")

    assert read(store, "empty", etag=empty) == b""
    assert read(store, "empty", etag=empty, size=0) == b""
    assert read(store, "full", etag=full, offset=2, size=0) == b""


def test_range_of_another_version_says_so(store, sees):
    """Ranges of two versions are never mixed."""
    etag = put(store, "o", bytes(1000))
    sees.put("o", b"1" * 1000)

    with pytest.raises(RemoteChanged):
        read(store, "o", etag=etag, offset=10, size=10)


def test_get_brings_the_metadata_of_its_version(store):
    """Metadata comes with the answer to GET: no second request could be about the same version."""
    etag = put(store, "o", b"12345", {"Mtime": "1.5", "by": "replicator"})

    assert store.get("o", etag=etag).metadata == {"mtime": "1.5", "by": "replicator"}
    assert store.get("o", etag=etag, offset=1, size=2).metadata == {"mtime": "1.5", "by": "replicator"}


# Streamed puts


def multipart_answers(reply, *, delay_s=0.0):
    """What a store answers to each step of an upload; parts take `delay_s`."""

    def answer(request):
        if "uploads" in request.target:
            return reply(200, {}, b"<R><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId></R>")
        if request.method == "PUT":
            return reply(200, {"ETag": '"e"'}, delay_s=delay_s)
        return reply(
            200, {}, b"<CompleteMultipartUploadResult><ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>"
        )

    return answer


def parts_of(*sizes):
    return [bytes([n + 1]) * size for n, size in enumerate(sizes)]


@pytest.mark.parametrize("sizes", [(5 * MIB, 5 * MIB, 17), (5 * MIB,), (17,), (5 * MIB, 5 * MIB)])
def test_streamed_put_is_one_object_of_just_these_parts(store, sees, sizes):
    """The ETag is that of these parts in this order, each as long as it came; metadata is there."""
    parts = parts_of(*sizes)

    etag = store.put_parts("big", iter(parts), part_size=5 * MIB, metadata={"A": "b"})

    assert etag == checksum.etag_of(checksum.checksum_of(parts, part_size_bytes=5 * MIB))
    assert sees.body("big") == b"".join(parts)
    assert store.head("big").metadata == {"a": "b"}
    assert store.list_uploads("") == ()


def test_streamed_put_of_nothing_is_an_empty_object(store, sees):
    """S3 takes no upload without a part, so there is an empty one."""
    store.put_parts("empty", iter([]), part_size=5 * MIB, metadata={})

    assert sees.body("empty") == b""


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_streamed_put_that_breaks_off_leaves_nothing(store, sees, sent):
    """What the source of the parts raises comes through as it is; no object, no old version lost, no parts hidden."""
    put(store, "big", b"before")
    error = SourceChanged("the file changed while it was read")

    def parts():
        yield from parts_of(*[5 * MIB] * sent)
        raise error

    with pytest.raises(SourceChanged) as caught:
        store.put_parts("big", parts(), part_size=5 * MIB, metadata={})

    assert caught.value is error
    assert sees.body("big") == b"before"
    for key, upload_id in store.list_uploads(""):  # a part still on its way can outlive the engine's own abort
        store.abort_upload(key, upload_id)
    assert store.list_uploads("") == ()


def test_streamed_put_reads_no_further_ahead_than_it_must(stub_s3, open_any, reply):
    """The source is asked for a part only when there is room: no more than three are in memory at a time."""
    stub_s3.default = multipart_answers(reply, delay_s=0.1)
    store = open_any(stub_s3.storage())
    held = []

    def parts():
        for number in range(8):
            held.append(1 + number - sum("partNumber" in request.target for request in stub_s3.answered))
            yield bytes(5 * MIB)

    store.put_parts("o", parts(), part_size=5 * MIB, metadata={})

    assert max(held) <= 3


def test_streamed_put_of_any_key(store, sees):
    """Keys that one engine cannot name are streamed all the same."""
    for key in ("k//x", "/lead", "dir/", "a\tb"):
        store.put_parts(key, iter([b"x"]), part_size=5 * MIB, metadata={})

    assert sorted(sees.keys()) == sorted(["k//x", "/lead", "dir/", "a\tb"])


# What is not there


def test_parts_of_an_unknown_upload_say_so(stub_s3, open_any, reply):
    """An upload that the store does not know is ObjectMissing, for its parts and for its end."""
    body = b"<Error><Code>NoSuchUpload</Code></Error>"
    stub_s3.default = reply(404, {"Content-Type": "application/xml"}, body)
    store = open_any(stub_s3.storage())

    with pytest.raises(ObjectMissing):
        store.put_part("k", "gone", 1, b"x", md5=md5(b"x"))
    with pytest.raises(ObjectMissing):
        store.complete_upload("k", "gone", ["e"])
    store.abort_upload("k", "gone")


# Many at a time


def test_two_hundred_threads_at_once(store):
    """Puts and gets of two hundred threads get their own bytes, each."""
    start = threading.Barrier(200)

    def one(number):
        body = random.Random(number).randbytes(4096)
        start.wait(30)
        etag = put(store, f"n{number:03}", body)
        return read(store, f"n{number:03}", etag=etag) == body

    with ThreadPoolExecutor(200) as threads:
        assert all(threads.map(one, range(200)))

    assert len(listed(store)) == 200


# Silence


@pytest.mark.fault("B4")
@pytest.mark.parametrize("way", ["put", "put_parts", "head", "get", "list", "delete"])
def test_silent_store_is_unavailable(stub_s3, open_fast, reply, way):
    """A store that says nothing costs the read timeout, on every way in."""
    stub_s3.default = reply(delay_s=30)
    store = open_fast(stub_s3.storage(), read_timeout_s=0.3)
    call = {
        "put": lambda: put(store, "o"),
        "put_parts": lambda: store.put_parts("o", iter([b"x"]), part_size=5 * MIB, metadata={}),
        "head": lambda: store.head("o"),
        "get": lambda: store.get("o", etag="e"),
        "list": lambda: listed(store),
        "delete": lambda: store.delete("o"),
    }[way]

    begun = time.monotonic()
    with pytest.raises(Unavailable, match=r"\(timeout\)"):
        call()

    assert time.monotonic() - begun < 5


@pytest.mark.fault("B4")
def test_silence_in_the_middle_of_a_body(stub_s3, open_any, reply):
    """A body that stops coming costs the read timeout, counted from its last byte."""
    stub_s3.default = reply(200, {"ETag": '"e"', "Content-Length": "3000000"}, bytes(2_000_000))
    store = open_any(stub_s3.storage(), read_timeout_s=0.3)

    with pytest.raises(Unavailable, match=r"\(timeout\)"):
        read(store, "o", etag="e")


@pytest.mark.fault("B4")
@pytest.mark.parametrize("way", ["put", "put_part", "put_parts"])
def test_store_that_takes_no_bytes_is_unavailable(stub_s3, open_fast, way):
    """An upload that is stuck in the middle ends too, though no answer is due yet."""
    stub_s3.is_deaf = True
    store = open_fast(stub_s3.storage(), read_timeout_s=1)
    body = bytes(64 * MIB)
    call = {
        "put": lambda: put(store, "o", body),
        "put_part": lambda: store.put_part("o", "u", 1, body, md5=md5(body)),
        "put_parts": lambda: store.put_parts("o", iter([body]), part_size=64 * MIB, metadata={}),
    }[way]

    begun = time.monotonic()
    with pytest.raises(Unavailable):
        call()

    assert time.monotonic() - begun < 10


def test_slow_store_is_waited_for(stub_s3, open_any, reply):
    """What is taken slowly is not silence: the read timeout does not bound the time of a whole body."""
    stub_s3.pause_s = 0.05
    stub_s3.default = reply(headers={"ETag": '"e"'})
    store = open_any(stub_s3.storage(), read_timeout_s=1)

    assert put(store, "o", bytes(32 * MIB)) == "e"


# Who may hear of it


def test_session_token_is_signed_into_every_request(stub_s3, open_any, reply, s3_answers):
    """The token of temporary credentials goes along with each request, and is part of its signature."""
    stub_s3.default = s3_answers
    store = open_any(stub_s3.storage(session_token=SecretStr("TOKEN")))

    put(store, "o")
    store.head("o")
    read(store, "o", etag="e")
    listed(store)
    store.delete("o")

    assert len(stub_s3.requests) == 5
    for request in stub_s3.requests:
        assert request.headers["x-amz-security-token"] == "TOKEN"
        assert "x-amz-security-token" in request.headers["authorization"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_reaches_no_second_host(stub_s3, start_stub, open_any, reply, status):
    """A redirect is an error: neither signature nor token nor body reach the host that it points to."""
    second = start_stub()
    elsewhere = f"http://localhost:{second.port}/b/k"
    stub_s3.default = reply(status, {"Location": elsewhere})
    store = open_any(stub_s3.storage(session_token=SecretStr("TOKEN")))

    for call in (
        lambda: put(store, "o"),
        lambda: store.put_parts("o", iter([b"x"]), part_size=5 * MIB, metadata={}),
        lambda: store.head("o"),
        lambda: store.get("o", etag="e"),
        lambda: listed(store),
        store.probe,
        lambda: store.delete("o"),
    ):
        with pytest.raises(AccessDenied, match="region"):
            call()

    assert second.connections == 0


# Bodies


def test_body_of_another_length_is_unavailable(stub_s3, open_any, reply):
    """A body that is cut anywhere is an error after what came, never a shorter object."""
    body = bytes(range(250)) * 8000

    for cut_at in (0, 1, 300_000, len(body) - 1):
        stub_s3.default = reply(200, {"ETag": '"e"'}, body, cut_at=cut_at)
        with pytest.raises(Unavailable):
            read(open_any(stub_s3.storage()), "o", etag="e")


def test_range_of_another_length_is_unavailable(stub_s3, open_any, reply):
    """An answer that holds another range than the one asked for is no part of the object."""
    store = open_any(stub_s3.storage())

    for said, body in (("4-8/10", b"45678"), ("5-9/10", b"56789"), ("0-3/10", b"0123")):
        stub_s3.default = reply(206, {"ETag": '"e"', "Content-Range": f"bytes {said}"}, body)
        with pytest.raises(Unavailable):
            read(store, "o", etag="e", offset=4, size=6)


def test_store_that_ignores_ranges_is_read_past_them(stub_s3, open_any, reply):
    """A store that sends all of the object all the same serves ranges too."""
    body = random.Random(3).randbytes(3 * MIB)
    stub_s3.default = reply(200, {"ETag": '"e"'}, body)

    assert read(open_any(stub_s3.storage()), "o", etag="e", offset=MIB + 1, size=MIB) == body[MIB + 1 : 2 * MIB + 1]


# Counting


def test_streamed_put_is_counted_request_by_request(storage, bucket, open_any):
    """Whoever counts requests hears of each that a streamed put took, by its name."""
    heard = []
    store = open_any(storage, on_request=lambda *told: heard.append(told[:2]))

    store.put_parts("big", iter(parts_of(5 * MIB, 5 * MIB, 1)), part_size=5 * MIB, metadata={})

    assert sorted(heard) == sorted(
        [("create_multipart_upload", "200"), *[("upload_part", "200")] * 3, ("complete_multipart_upload", "200")]
    )
