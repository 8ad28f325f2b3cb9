"""Whether a store checks what it is sent: asked once, without a trace, and never believed on less than a refusal."""

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [pytest.mark.usefixtures("without_pauses"), pytest.mark.slow]

BEGUN = b"<InitiateMultipartUploadResult><UploadId>u+/&amp;1</UploadId></InitiateMultipartUploadResult>"


def digests_in(request) -> dict[str, bool]:
    """Whether the checksums that a request carries are those of its body, by their names."""
    md5 = base64.b64encode(hashlib.md5(request.body, usedforsecurity=False).digest()).decode()
    sha256 = hashlib.sha256(request.body).hexdigest()
    of_body = {"content-md5": md5, "x-amz-content-sha256": sha256}
    return {name: request.headers[name] == text for name, text in of_body.items() if name in request.headers}


@pytest.fixture
def vault(stub_s3, reply, s3_error):
    """A store with opaque ETags that refuses bodies whose checksum, of the kinds that it looks at, is another's."""

    def open_one(*looked_at):
        def answer(request):
            digests = digests_in(request)
            if not all(digests.get(name, True) for name in looked_at):
                code = "BadDigest" if not digests.get("content-md5", True) else "XAmzContentSHA256Mismatch"
                return s3_error(400, code)
            if request.method == "POST":
                return reply(200, {}, BEGUN)
            return reply(204) if request.method == "DELETE" else reply(200, {"ETag": '"opaque"'})

        stub_s3.default = answer
        return stub_s3

    return open_one


@pytest.fixture
def store(stub_s3, open_any):
    return open_any(stub_s3.storage())


def test_store_that_checks_is_told_from_one_that_does_not(vault, store):
    """A part with the checksum of other bytes is refused by a store that looks."""
    vault("content-md5", "x-amz-content-sha256")

    assert store.is_checking_uploads("a b/k")


def test_store_that_takes_anything_is_no_proof(vault, store):
    """Who accepts a part with the checksum of other bytes has checked nothing."""
    vault()

    assert not store.is_checking_uploads("k")


def test_only_the_checksum_that_is_sent_counts(vault, store, engine):
    """A store may look at one kind and not at the other: what proves an upload is what that upload carries."""
    vault("content-md5")

    assert store.is_checking_uploads("k") == (engine == "s3fs")


def test_question_leaves_nothing_behind(vault, store):
    """No object is written: it is a part of an upload that is thrown away, whichever way the answer goes."""
    stub = vault("content-md5", "x-amz-content-sha256")

    store.is_checking_uploads("a/k")

    begin, part, *_, end = stub.requests
    assert [one.method for one in stub.requests] == ["POST", "PUT", "PUT", "DELETE"]
    assert {one.target.partition("?")[0] for one in stub.requests} == {"/b/a/k"}
    assert "uploads" in begin.target
    assert all("uploadId=u%2B%2F%261" in one.target for one in stub.requests[1:])
    assert "partNumber" not in end.target
    assert part.body
    assert part.headers["x-amz-content-sha256"] != hashlib.sha256(b"").hexdigest()


def test_uploads_carry_what_was_proven(vault, store, engine):
    """The checksum that the question was about is in every upload, and is that of its body."""
    stub = vault("content-md5", "x-amz-content-sha256")
    md5 = hashlib.md5(b"body", usedforsecurity=False).digest()

    assert store.put("k", b"body", md5=md5, metadata={}) == "opaque"
    assert store.put_part("k", "u", 1, b"body", md5=md5) == "opaque"

    name = "content-md5" if engine == "s3fs" else "x-amz-content-sha256"
    assert digests_in(stub.requests[0])[name]
    assert digests_in(stub.requests[1])["content-md5"]


def test_store_is_asked_once(vault, store):
    """However many uploads end at a time, and whatever the answer."""
    stub = vault("content-md5", "x-amz-content-sha256")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(store.is_checking_uploads, ["k"] * 16))

    assert answers == [True] * 16
    assert len(stub.requests) == 4


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (403, "AccessDenied"), (400, "InvalidArgument"), (405, "MethodNotAllowed")],
)
@pytest.mark.parametrize("step", ["POST", "PUT"])
def test_refusal_for_any_other_reason_is_remembered_as_none(vault, store, s3_error, step, status, code):
    """Only a refusal for the checksum proves anything; a store that refuses the question is not asked again."""
    stub = vault("content-md5", "x-amz-content-sha256")
    willing = stub.default
    stub.default = lambda request: s3_error(status, code) if request.method == step else willing(request)

    assert not store.is_checking_uploads("k")
    count = len(stub.requests)

    stub.default = willing
    assert not store.is_checking_uploads("k")
    assert len(stub.requests) == count


@pytest.mark.parametrize("code", ["BadDigest", "InvalidPart"])
def test_store_that_refuses_any_part_proves_nothing(vault, store, s3_error, code):
    """Only what is taken with its own checksum was refused for the other."""
    stub = vault("content-md5", "x-amz-content-sha256")
    willing = stub.default
    stub.default = lambda request: s3_error(400, code) if request.method == "PUT" else willing(request)

    assert not store.is_checking_uploads("k")
    count = len(stub.requests)

    assert not store.is_checking_uploads("k")
    assert len(stub.requests) == count


@pytest.mark.parametrize("sick", [(503, "SlowDown"), (500, "InternalError"), (404, "NoSuchUpload"), "page"])
@pytest.mark.parametrize("step", ["POST", "PUT"])
def test_store_that_cannot_answer_now_is_asked_again(vault, store, s3_error, reply, step, sick):
    """An outage, or a page from somebody in between, says nothing of the store: the next upload asks again."""
    stub = vault("content-md5", "x-amz-content-sha256")
    willing = stub.default
    answer = reply(200, {}, b"<html/>") if sick == "page" else s3_error(*sick)
    stub.default = lambda request: answer if request.method == step else willing(request)

    assert not store.is_checking_uploads("k")

    stub.default = willing
    assert store.is_checking_uploads("k")


def test_upload_that_cannot_be_thrown_away_spoils_no_answer(vault, store, s3_error):
    """What the store said stands, though its clean-up failed."""
    stub = vault("content-md5", "x-amz-content-sha256")
    willing = stub.default
    stub.default = lambda request: s3_error(500, "InternalError") if request.method == "DELETE" else willing(request)

    assert store.is_checking_uploads("k")


def test_closed_store_proves_nothing(vault, store):
    """Nothing is raised after an upload that has succeeded."""
    vault("content-md5", "x-amz-content-sha256")
    store.close()

    assert not store.is_checking_uploads("k")


def test_both_engines_answer_where_both_are_in_use(vault, stub_s3, open_store):
    """A key that went by s3fs is proven by what s3fs sends, beside what obstore sends."""
    vault("x-amz-content-sha256")
    store = open_store(stub_s3.storage(), "obstore")
    assert store.is_checking_uploads("k")

    store.put("a//b", b"body", md5=hashlib.md5(b"body", usedforsecurity=False).digest(), metadata={})

    assert not store.is_checking_uploads("a//b")


def test_proxied_store_is_asked_by_s3fs(vault, stub_s3, open_store, monkeypatch):
    """Where obstore sends nothing, its checksum is not asked about, and no plain connection passes the proxy by."""
    stub = vault("content-md5")
    monkeypatch.setenv("HTTP_PROXY", stub.endpoint)
    store = open_store(stub.storage(endpoint="http://s3.example.invalid"), "obstore")
    store.put("k", b"body", md5=hashlib.md5(b"body", usedforsecurity=False).digest(), metadata={})

    assert store.is_checking_uploads("k")


def test_question_is_counted_request_by_request(vault, stub_s3, open_any):
    """What is asked of the store is in its metrics like anything else."""
    vault("content-md5", "x-amz-content-sha256")
    heard = []
    store = open_any(stub_s3.storage(), on_request=lambda operation, code, _: heard.append((operation, code)))

    store.is_checking_uploads("k")

    assert [operation for operation, _ in heard] == [
        "create_multipart_upload",
        "upload_part",
        "upload_part",
        "abort_multipart_upload",
    ]
    assert heard[1][1] in {"BadDigest", "XAmzContentSHA256Mismatch"}
    assert heard[2][1] == "200"
