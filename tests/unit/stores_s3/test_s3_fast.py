"""What is obstore's own about the fast store: what it hands over, what it would do of itself, what it is kept from."""

import contextlib
import gc
import os
import subprocess
import threading

import pytest

from replicator.errors import ObjectMissing, Unavailable
from replicator.stores.s3 import fast_client as s3_fast_client
from replicator.stores.s3.fast_rest import is_plain
from replicator.stores.s3.network import Limits

MD5 = b"0" * 16
MIB = 2**20


@pytest.fixture
def open_fast(open_store):
    return lambda storage, **settings: open_store(storage, "obstore", **settings)


def put(store, key="k", body=b"x"):
    return store.put(key, body, md5=MD5, metadata={})


@pytest.mark.parametrize("key", ["a", "a b", "a/b", "..a", "a..", "...", "\u00e9", "a?b", "a%2Fb", "a\\b", "a\x85b"])
def test_plain_key_is_obstores(key):
    """Keys that obstore sends as they stand."""
    assert is_plain(key)


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", ".", "..", "a/./b", "a/../b", "a\tb", "a\nb", "a\x7fb", "a\x00"]
)
def test_key_that_obstore_would_change_is_not(key):
    """Keys that it refuses, or takes for others."""
    assert not is_plain(key)


def test_strange_key_goes_by_s3fs_as_it_stands(stub_s3, open_fast, reply):
    """The engine follows from the key, which stays what it is."""
    stub_s3.default = reply(headers={"ETag": '"e"'})
    store = open_fast(stub_s3.storage())

    for key in ("plain", "dir/", "a//b"):
        put(store, key)

    assert [request.target for request in stub_s3.requests] == ["/b/plain", "/b/dir/", "/b/a//b"]
    assert ["content-md5" in request.headers for request in stub_s3.requests] == [False, True, True]


@pytest.mark.slow
def test_marker_is_listed_as_it_is(witness, storage, open_fast):
    """`dir/` is not `dir`: a listing names the objects that there are."""
    for key in ("dir/", "dir/x", "a//b", "/lead"):
        witness.client.put_object(Bucket=witness.bucket, Key=key)

    keys = [entry.key for page in open_fast(storage).list("") for entry in page]

    assert keys == ["/lead", "a//b", "dir/", "dir/x"]


def test_connections_are_kept(stub_s3, open_fast, reply):
    """Requests in a row share their connection, failed ones too, but for one that was not back in time."""
    stub_s3.default = lambda request: reply(404 if request.method == "HEAD" else 200, {"ETag": '"e"'})
    store = open_fast(stub_s3.storage())

    for _ in range(20):
        put(store)
        with pytest.raises(ObjectMissing):
            store.head("k")

    assert stub_s3.connections <= 4


def test_listing_reuses_its_connection_and_leaves_none(stub_s3, open_fast, s3_page, reply):
    """One connection a listing, a new one where the store has closed it; none afterwards, also when left early."""
    stub_s3.replies.extend([s3_page(["a"], token="1"), s3_page(["b"], token="2"), s3_page(["c"])])
    store = open_fast(stub_s3.storage())

    assert len(list(store.list(""))) == 3
    assert stub_s3.connections == 1
    stub_s3.wait_until_idle()

    page = s3_page(["a"], token="1")
    stub_s3.replies.extend([reply(page.status, page.headers | {"Connection": "close"}, page.body), s3_page(["b"])])
    assert len(list(store.list(""))) == 2
    assert stub_s3.connections == 3

    stub_s3.replies.append(s3_page(["a"], token="1"))
    pages = store.list("")
    next(pages)
    pages.close()
    stub_s3.wait_until_idle()


def test_store_that_closed_the_connection_meanwhile(stub_s3, open_fast, s3_page):
    """Whoever takes long over a page does not lose the next one to a connection that has gone away."""
    page = s3_page(["a"], token="1")
    stub_s3.replies.extend([type(page)(page.status, page.headers, page.body, cut_at=len(page.body)), s3_page(["b"])])

    pages = open_fast(stub_s3.storage()).list("")
    next(pages)
    stub_s3.wait_until_idle()

    assert [entry.key for entry in next(pages)] == ["b"]


def test_region_of_another_is_told_where_obstore_sees_success(stub_s3, open_fast, s3_error):
    """A redirect without a Location has no ETag for obstore; a listing then says what it was."""
    stub_s3.default = s3_error(301, "PermanentRedirect")

    for call in (lambda store: store.head("k"), put, lambda store: store.get("k", etag="e")):
        with pytest.raises(Exception, match="BUCKET_REGION"):
            call(open_fast(stub_s3.storage()))


@pytest.mark.fault("B19")
def test_redirect_to_the_same_host_carries_no_signature(stub_s3, start_stub, open_fast, reply):
    """Another port of the endpoint's own host is within reach of a redirect, of reading ones alone and unsigned."""
    second = start_stub()
    second.default = reply(403)
    stub_s3.default = reply(307, {"Location": f"{second.endpoint}/b/k"})

    with pytest.raises(Exception, match="credentials"):
        open_fast(stub_s3.storage()).head("k")

    assert all("authorization" not in request.headers for request in second.requests)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost."])
@pytest.mark.fault("B19", "F13")
def test_endpoint_is_the_one_host_within_reach(stub_s3, open_fast, reply, host):
    """However the endpoint's name is written, it is not taken for another host's."""
    stub_s3.default = reply(headers={"ETag": '"e"'})
    store = open_fast(stub_s3.storage(endpoint=f"http://{host}:{stub_s3.port}"))

    # Not every resolver knows the name with the dot.
    with contextlib.suppress(Unavailable) if host.endswith(".") else contextlib.nullcontext():
        assert put(store) == "e"


@pytest.mark.fault("F13")
def test_environment_is_whole_again(stub_s3, open_fast, monkeypatch):
    """What is hidden from obstore while its clients are made is there before and after, for everybody else."""
    monkeypatch.setenv("AWS_CHECKSUM_ALGORITHM", "sha256")

    open_fast(stub_s3.storage())

    assert os.environ["AWS_CHECKSUM_ALGORITHM"] == "sha256"
    child = subprocess.run(["printenv", "AWS_CHECKSUM_ALGORITHM"], capture_output=True, text=True, check=True)
    assert child.stdout == "sha256\n"


@pytest.mark.fault("F13")
def test_hidden_settings_change_no_request(stub_s3, open_fast, reply, monkeypatch):
    """Encryption, checksums, requester payment: none of the process's wishes is obstore's."""
    for name, value in {
        "AWS_CHECKSUM_ALGORITHM": "sha256",
        "AWS_SERVER_SIDE_ENCRYPTION": "aws:kms",
        "AWS_SSE_KMS_KEY_ID": "somebody",
        "AWS_REQUEST_PAYER": "true",
        "AWS_UNSIGNED_PAYLOAD": "true",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_COPY_IF_NOT_EXISTS": "nonsense",
    }.items():
        monkeypatch.setenv(name, value)
    stub_s3.default = reply(headers={"ETag": '"e"'})

    put(open_fast(stub_s3.storage()))

    (request,) = stub_s3.requests
    assert set(request.headers) == {
        *("accept", "authorization", "content-length", "host", "user-agent"),
        *("x-amz-content-sha256", "x-amz-date"),
    }
    assert len(request.headers["x-amz-content-sha256"]) == 64


@pytest.mark.slow
def test_body_is_given_the_time_that_it_needs(stub_s3, open_fast, reply):
    """A body that takes longer than the read timeout, but less than it may at the least rate, is sent."""
    stub_s3.pause_s = 0.05
    stub_s3.default = reply(headers={"ETag": '"e"'})
    store = open_fast(stub_s3.storage(), read_timeout_s=1, min_rate_bytes_s=MIB, part_size_bytes=32 * MIB)

    assert put(store, "k", bytes(32 * MIB)) == "e"


@pytest.mark.parametrize(("rate", "small"), [(4096, 61440), (100, 1500), (10**6, 262144), (0, 262144)])
def test_small_is_what_half_the_silence_sends(stub_s3, rate, small):
    """A body counts as small when it can be sent at the least rate in half of the time that any silence has."""
    limits = Limits(
        connections=1, connect_timeout_s=1, read_timeout_s=30, min_rate_bytes_s=rate, part_size_bytes=5 * MIB
    )

    clients = s3_fast_client.clients(stub_s3.storage(), limits)

    assert clients.small_bytes == small


@pytest.mark.fault("B4", "B25")
def test_time_for_sending_fits_the_body(stub_s3):
    """A server that takes no bytes is waited for according to the body, and not to the largest that there may be."""
    limits = Limits(
        connections=1, connect_timeout_s=1, read_timeout_s=30, min_rate_bytes_s=4096, part_size_bytes=8 * MIB
    )
    clients = s3_fast_client.clients(stub_s3.storage(), limits)

    sizes = [1, 61_440, 61_441, 491_520, 491_521, 8 * MIB, 9 * MIB]
    waits = [(clients.sending(size).client_options or {})["read_timeout"] for size in sizes]

    assert waits == ["30s", "30s", "2m 30s", "2m 30s", "16m 30s", "34m 38s", "34m 38s"]


def test_proxied_store_goes_by_s3fs(stub_s3, open_fast, reply, monkeypatch):
    """Behind a proxy a redirect could not be held back, so obstore is not used, and says that it is slow."""
    monkeypatch.setenv("HTTP_PROXY", stub_s3.endpoint)
    stub_s3.default = reply(headers={"ETag": '"e"'})
    store = open_fast(stub_s3.storage(endpoint="http://s3.example.invalid"))

    put(store)

    assert not store.streams
    assert "content-md5" in stub_s3.requests[0].headers


def test_streamed_put_reports_its_source_even_when_aborting_fails(stub_s3, open_fast, reply):
    """When the parts' source fails, that is what is told, whatever became of the rest."""

    def answer(request):
        if "uploads" in request.target:
            body = b"<R><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId></R>"
            return reply(200, {}, body)
        return reply(500)

    def fail():
        raise KeyError("mine")

    def parts():
        yield from iter(fail, b"")

    stub_s3.default = answer

    with pytest.raises(KeyError, match="mine"):
        open_fast(stub_s3.storage()).put_parts("k", parts(), part_size=5 * MIB, metadata={})


def test_closed_store_is_unavailable(stub_s3, open_fast):
    """After `close`, nothing is sent, and connections are gone."""
    store = open_fast(stub_s3.storage())
    with pytest.raises(Unavailable):
        put(store)

    store.close()
    gc.collect()  # Python 3.13 leaves a failed request in a cycle of contextlib's
    stub_s3.wait_until_idle()
    seen = len(stub_s3.requests)

    for call in (store.probe, lambda: put(store), lambda: store.delete("k")):
        with pytest.raises(Unavailable, match="closed"):
            call()
    assert len(stub_s3.requests) == seen
    assert "s3fs" not in [thread.name for thread in threading.enumerate()]
