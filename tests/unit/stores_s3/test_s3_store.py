"""The dialog of each method: what is asked, which answers are trusted."""

import contextlib

import pytest

from replicator.errors import BucketMissing, IntegrityFailed, RemoteChanged, TransferError, Unanswered, Unavailable
from replicator.stores.s3.answers import Body, primed

pytestmark = [pytest.mark.usefixtures("without_pauses"), pytest.mark.slow]

MD5 = b"0" * 16


@pytest.fixture
def store(stub_s3, open_any):
    return open_any(stub_s3.storage())


def failure(call) -> TransferError:
    with pytest.raises(TransferError) as caught:
        call()
    return caught.value


def keys(store, prefix="") -> list[str]:
    return [entry.key for page in store.list(prefix) for entry in page]


def read(store, **which) -> bytes:
    return b"".join(store.get("k", **which).blocks)


# Listing


def test_list_asks_for_encoded_keys_and_follows_tokens(stub_s3, store, s3_page):
    """Pages of 1,000, keys percent-encoded, each page by the token of the one before."""
    stub_s3.replies.extend([s3_page(["p/a"], token="t+1/"), s3_page(["p/b"])])

    assert keys(store, "p/") == ["p/a", "p/b"]

    first, second = (request.target for request in stub_s3.requests)
    assert first.startswith("/b?")
    assert {"list-type=2", "prefix=p%2F", "max-keys=1000", "encoding-type=url"} <= set(
        first.partition("?")[2].split("&")
    )
    assert "continuation-token" not in first
    assert "continuation-token=t%2B1%2F" in second


def test_list_decodes_what_was_encoded(stub_s3, store, s3_page):
    """Percent-encoding is undone once, and only where the store says that it encoded."""
    encoded = ["%01", "%0A", "a%20b", "a%25b", "a%2520b", "a%2Bb", "a+b", "%C3%A9", "%FF"]
    plain = ["\x01", "\n", "a b", "a%b", "a%20b", "a+b", "a b", "\u00e9", "\udcff"]
    order = sorted(range(len(plain)), key=lambda i: plain[i].encode("utf-8", "surrogateescape"))
    order.remove(plain.index("a b"))

    stub_s3.default = s3_page([encoded[i] for i in order])
    assert keys(store) == [plain[i] for i in order]

    stub_s3.default = s3_page(["a%20b", "a+b"], encoding="")
    assert keys(store) == ["a%20b", "a+b"]


def test_list_passes_over_an_empty_page(stub_s3, store, s3_page):
    """A page without keys that says how to go on is no end."""
    stub_s3.replies.extend([s3_page([], token="1"), s3_page(["a"])])

    assert keys(store) == ["a"]


@pytest.mark.fault("B14")
@pytest.mark.parametrize(
    "case",
    [
        "unsorted",
        "twice",
        "across",
        "prefix",
        "before-prefix",
        "no-token",
        "same-token",
        "circle",
        "not-truncated-said",
    ],
)
def test_list_that_cannot_be_trusted_is_an_error(stub_s3, store, s3_page, reply, case):
    """Order, prefix and end of a listing are checked: what is wrong is Unavailable, never a shorter listing."""
    pages = {
        "unsorted": [s3_page(["p/b", "p/a"])],
        "twice": [s3_page(["p/a", "p/a"])],
        "across": [s3_page(["p/b"], token="1"), s3_page(["p/a"])],
        "prefix": [s3_page(["p/a", "q"])],
        "before-prefix": [s3_page(["o", "p/a"])],
        "no-token": [s3_page(["p/a"], is_truncated=True)],
        "same-token": [s3_page(["p/a"], token="1"), s3_page(["p/b"], token="1"), s3_page(["p/c"])],
        "circle": [s3_page([], token="1"), s3_page([], token="2"), s3_page([], token="1"), s3_page([])],
        "not-truncated-said": [reply(body=b"<ListBucketResult><Name>b</Name></ListBucketResult>")],
    }[case]
    stub_s3.replies.extend(pages)

    error = failure(lambda: keys(store, "p/"))

    assert type(error) is Unavailable
    assert "listing" in str(error)


@pytest.mark.fault("B14")
def test_list_cut_anywhere_is_an_error(stub_s3, store, s3_page):
    """XML that ends early is no listing, even when the length agrees."""
    page = s3_page(["a", "b", "c"])

    for cut_at in range(0, len(page.body), 23):
        stub_s3.default = type(page)(page.status, page.headers, page.body[:cut_at])
        assert type(failure(lambda: keys(store))) is Unavailable, page.body[:cut_at]


@pytest.mark.fault("F12")
def test_list_of_a_bomb_is_an_error(stub_s3, store, reply):
    """Entities that blow up are stopped by the parser, and that is Unavailable."""
    lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    body = (
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lolololol">{lol}]><ListBucketResult>&l11;</ListBucketResult>'
    )
    stub_s3.default = reply(body=body.encode())

    assert type(failure(lambda: keys(store))) is Unavailable


def uploads_page(reply, pairs, *, markers=None, is_truncated=None):
    entries = "".join(f"<Upload><Key>{key}</Key><UploadId>{upload}</UploadId></Upload>" for key, upload in pairs)
    more = "".join(f"<{name}>{value}</{name}>" for name, value in (markers or {}).items())
    cut = bool(markers) if is_truncated is None else is_truncated
    body = (
        f"<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>{str(cut).lower()}</IsTruncated>"
        f"{more}{entries}</ListMultipartUploadsResult>"
    )
    return reply(200, {"Content-Type": "application/xml"}, body.encode())


def test_uploads_are_followed_by_decoded_markers(stub_s3, store, reply):
    """Both markers lead on, the key's decoded first; keys are decoded too."""
    markers = {"NextKeyMarker": "p/a%20b", "NextUploadIdMarker": "1"}
    stub_s3.replies.extend(
        [uploads_page(reply, [("p/a%20b", "1")], markers=markers), uploads_page(reply, [("p/a%20b", "2")])]
    )

    assert store.list_uploads("p/") == (("p/a b", "1"), ("p/a b", "2"))

    query = stub_s3.requests[1].target.partition("?")[2].split("&")
    assert {"key-marker=p%2Fa%20b", "upload-id-marker=1", "prefix=p%2F"} <= set(query)


@pytest.mark.parametrize("case", ["prefix", "no-marker", "circle"])
def test_uploads_that_cannot_be_trusted_are_an_error(stub_s3, store, reply, case):
    """Uploads are listed to be aborted: one outside the prefix, or a listing in circles, is an error."""
    marked = {"NextKeyMarker": "p/a", "NextUploadIdMarker": "1"}
    stub_s3.default = {
        "prefix": uploads_page(reply, [("p2/a", "1")]),
        "no-marker": uploads_page(reply, [("p/a", "1")], is_truncated=True),
        "circle": uploads_page(reply, [("p/a", "1")], markers=marked),
    }[case]

    assert type(failure(lambda: store.list_uploads("p/"))) is Unavailable


# Reading


def test_get_asks_for_one_version_and_the_rest_of_it(stub_s3, store, reply):
    """If-Match carries the quoted ETag, Range the offset; without an offset there is no range."""
    stub_s3.replies.append(reply(200, {"ETag": '"e"'}, b"0123456789"))
    stub_s3.replies.append(reply(206, {"ETag": '"e"', "Content-Range": "bytes 4-9/10"}, b"456789"))

    assert read(store, etag="e") == b"0123456789"
    assert read(store, etag="e", offset=4) == b"456789"

    assert [request.headers["if-match"] for request in stub_s3.requests] == ['"e"', '"e"']
    assert [request.headers.get("range") for request in stub_s3.requests] == [None, "bytes=4-"]


def test_get_of_a_store_that_ignores_ranges(stub_s3, store, reply):
    """A store that sends all of it all the same is read past the offset, over any number of blocks."""
    body = bytes(range(256)) * 8192
    stub_s3.default = reply(200, {"ETag": '"e"'}, body)

    for offset in (1, 700_000, len(body) - 1):
        assert read(store, etag="e", offset=offset) == body[offset:]


@pytest.mark.fault("B12", "B21")
def test_get_of_a_store_that_ignores_if_match(stub_s3, store, reply):
    """The ETag that comes back is compared: not a byte of another version is delivered."""
    stub_s3.default = reply(200, {"ETag": '"other"'}, b"0123456789")

    assert type(failure(lambda: store.get("k", etag="e"))) is RemoteChanged


@pytest.mark.parametrize("status", [412, 416])
def test_get_of_a_version_that_is_gone(stub_s3, store, reply, status):
    """A failed condition, or a range behind the end, means another version."""
    stub_s3.default = reply(status)

    assert type(failure(lambda: read(store, etag="e", offset=5))) is RemoteChanged


def test_get_of_another_range_is_refused(stub_s3, store, reply):
    """A partial answer must be exactly from the offset (or before) to the very end."""
    for headers, body in (
        ({"Content-Range": "bytes 5-9/10"}, b"56789"),
        ({"Content-Range": "bytes 4-8/10"}, b"45678"),
        ({"Content-Range": "bytes 4-9/10"}, b"45678"),
        ({"Content-Range": "bytes 4-9/*"}, b"456789"),
        ({"Content-Range": "bytes four-9/10"}, b"456789"),
        ({"Content-Length": "x"}, b"456789"),
    ):
        stub_s3.default = reply(206, {"ETag": '"e"'} | headers, body)
        assert isinstance(failure(lambda: read(store, etag="e", offset=4)), Unavailable), headers


@pytest.mark.fault("B3")
def test_get_of_a_body_that_ends_early(stub_s3, store, reply):
    """A cut body is an error at the end of what came, and what came is delivered first, to be resumed from."""
    body = bytes(range(250)) * 4000

    for cut_at in (0, 1, 300_000, len(body) - 1):
        stub_s3.default = reply(200, {"ETag": '"e"'}, body, cut_at=cut_at)
        got = bytearray()

        def run(got=got):
            for block in store.get("k", etag="e").blocks:
                got.extend(block)

        assert type(failure(run)) is Unanswered
        assert body.startswith(bytes(got))


def test_get_counts_what_arrives(stub_s3, open_store):
    """The length is checked by us too, not only where the HTTP library does it."""

    store = open_store(stub_s3.storage())

    class Short:
        def __init__(self):
            self.blocks = [b"1234", b""]

        async def read(self, _):
            return self.blocks.pop(0)

        def close(self):
            pass

    blocks = primed(store._blocks("k", Body(Short(), "e", {}, skip=0, take=5)))

    assert next(blocks) == b"1234"
    assert type(failure(lambda: next(blocks))) is Unavailable


def test_get_of_a_silent_body_times_out(stub_s3, open_any, reply):
    """A body that stops coming costs the read timeout."""
    stub_s3.default = reply(200, {"ETag": '"e"', "Content-Length": "1000"}, b"short")
    store = open_any(stub_s3.storage(), read_timeout_s=0.2)

    error = failure(lambda: read(store, etag="e"))

    assert type(error) is Unanswered
    assert "(timeout)" in str(error)


def test_get_left_early_closes_its_connection(stub_s3, store, reply):
    """Whoever stops reading gives the connection up, so that the rest is not sent for nobody."""
    stub_s3.default = reply(200, {"ETag": '"e"'}, bytes(50_000_000))

    with contextlib.closing(store.get("k", etag="e").blocks) as blocks:
        next(blocks)

    stub_s3.wait_until_idle()


def test_get_never_read_closes_its_connection(stub_s3, store, reply):
    """So does whoever closes a download without having read any of it."""
    stub_s3.default = reply(200, {"ETag": '"e"'}, bytes(50_000_000))

    store.get("k", etag="e").blocks.close()

    stub_s3.wait_until_idle()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ETag": '"other"', "Content-Range": "bytes 4-50000003/50000004"}, RemoteChanged),
        ({"Content-Range": "bytes 4-50000003/50000004"}, Unavailable),
        ({"ETag": '"e"', "Content-Range": "bytes 9-10/11"}, Unavailable),
    ],
)
def test_get_of_what_was_not_asked_for_closes_its_connection(stub_s3, store, reply, headers, expected):
    """So does a refused answer, also while its error is kept."""
    stub_s3.default = reply(206, headers, bytes(50_000_000))

    error = failure(lambda: read(store, etag="e", offset=4))

    assert type(error) is expected

    stub_s3.wait_until_idle()


# Writing


def test_put_sends_metadata_in_lower_case(stub_s3, store, reply):
    """Metadata travels as x-amz-meta- headers, names in lower case."""
    stub_s3.default = reply(headers={"ETag": '"e"'})

    assert store.put("k", b"", md5=MD5, metadata={"Mtime": "1.5"}) == "e"

    assert "x-amz-meta-mtime: 1.5" in stub_s3.requests[0].head


@pytest.mark.fault("B10")
@pytest.mark.parametrize("headers", [{}, {"ETag": '""'}])
def test_put_without_an_etag_is_no_success(stub_s3, store, reply, headers):
    """A 200 that names no version was not a store's."""
    stub_s3.default = reply(headers=headers)

    assert type(failure(lambda: store.put("k", b"", md5=MD5, metadata={}))) is Unavailable


def test_damaged_upload_is_told(stub_s3, store, s3_error):
    """The store's own check of the MD5 is what IntegrityFailed is about."""
    stub_s3.default = s3_error(400, "BadDigest")

    assert type(failure(lambda: store.put_part("k", "u", 1, b"x", md5=MD5))) is IntegrityFailed


def test_head_ignores_what_it_does_not_need(stub_s3, store, reply):
    """Encryption and other headers of the store change nothing about the object."""
    stub_s3.default = reply(
        headers={
            "ETag": '"e"',
            "Content-Length": "7",
            "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT",
            "x-amz-server-side-encryption": "aws:kms",
            "X-Amz-Meta-MTime": "1.5",
        }
    )

    found = store.head("k")

    assert (found.key, found.size, found.etag, found.mtime_ns) == ("k", 7, "e", 1767323045 * 10**9)
    assert found.metadata == {"mtime": "1.5"}


def test_complete_sends_parts_in_order(stub_s3, store, reply):
    """Parts are numbered from 1 in the order of their ETags, which are quoted."""
    body = b"<CompleteMultipartUploadResult><ETag>&quot;abc-2&quot;</ETag></CompleteMultipartUploadResult>"
    stub_s3.default = reply(200, {"Content-Type": "application/xml"}, body)

    assert store.complete_upload("k", "u", ["x", "y"]) == "abc-2"

    sent = stub_s3.requests[0].body.decode()
    assert sent.index("<PartNumber>1</PartNumber>") < sent.index("<PartNumber>2</PartNumber>")
    assert sent.index('"x"') < sent.index('"y"')


@pytest.mark.parametrize(("status", "code"), [(404, "NoSuchUpload"), (404, "NoSuchKey"), (204, None)])
def test_removing_what_is_gone_is_fine(stub_s3, store, s3_error, reply, status, code):
    """Delete and abort are done when there is nothing left."""
    stub_s3.default = s3_error(status, code) if code else reply(status)

    store.abort_upload("k", "u")
    store.delete("k")


def test_removing_from_no_bucket_is_not_fine(stub_s3, store, s3_error):
    """A bucket that is gone is never taken for an object that is."""
    stub_s3.default = s3_error(404, "NoSuchBucket")

    assert type(failure(lambda: store.abort_upload("k", "u"))) is BucketMissing
    assert type(failure(lambda: store.delete("k"))) is BucketMissing


def test_every_request_is_told(stub_s3, open_any, reply, s3_page):
    """`on_request` hears the operation in snake case, the status, and seconds."""
    heard = []
    store = open_any(stub_s3.storage(), on_request=lambda *told: heard.append(told))
    stub_s3.replies.extend([s3_page(["a"], token="1"), s3_page(["b"]), reply(204)])
    stub_s3.replies.append(reply(206, {"ETag": '"e"', "Content-Range": "bytes 1-1/2"}, b"x"))

    keys(store)
    store.delete("k")
    read(store, etag="e", offset=1)
    stub_s3.default = reply(200, {"ETag": '"e"'})
    store.put("k", b"", md5=MD5, metadata={})

    assert [told[:2] for told in heard] == [
        ("list_objects_v2", "200"),
        ("list_objects_v2", "200"),
        ("delete_object", "204"),
        ("get_object", "206"),
        ("put_object", "200"),
    ]
    assert all(0 <= told[2] < 5 for told in heard)
