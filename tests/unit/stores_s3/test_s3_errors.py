"""Every failure of a store becomes one of our errors, with the next step and without a secret."""

import logging
import signal
import socket
import threading
from collections.abc import Callable

import pytest

from replicator import errors
from replicator.errors import (
    AccessDenied,
    BucketMissing,
    CredentialsRefused,
    IntegrityFailed,
    KeyUnsafe,
    ObjectMissing,
    Refused,
    RemoteChanged,
    Throttled,
    TransferError,
    Unanswered,
    Unavailable,
)
from replicator.stores.s3 import errors as s3_errors
from replicator.stores.s3 import fast_errors as s3_fast_errors
from replicator.stores.s3 import table as s3_table

pytestmark = [pytest.mark.usefixtures("without_pauses"), pytest.mark.slow]

MD5 = b"0" * 16


def failure(call) -> TransferError:
    with pytest.raises(TransferError) as caught:
        call()
    return caught.value


CODES = [
    (400, "AuthorizationHeaderMalformed", AccessDenied),
    (400, "BadDigest", IntegrityFailed),
    (400, "EntityTooLarge", Refused),
    (400, "EntityTooSmall", Refused),
    (400, "ExpiredToken", CredentialsRefused),
    (400, "IncompleteBody", Unavailable),
    (400, "InvalidArgument", Refused),
    (400, "InvalidPart", IntegrityFailed),
    (400, "KeyTooLongError", KeyUnsafe),
    (400, "RequestTimeout", Unavailable),
    (400, "SomethingNew", Refused),
    (400, "XAmzContentSHA256Mismatch", IntegrityFailed),
    (403, "AccessDenied", AccessDenied),
    (403, "InvalidAccessKeyId", CredentialsRefused),
    (403, "QuotaExceeded", Refused),
    (403, "RequestTimeTooSkewed", CredentialsRefused),
    (403, "SignatureDoesNotMatch", AccessDenied),
    (403, "SomethingNew", AccessDenied),
    (404, "NoSuchBucket", BucketMissing),
    (404, "NoSuchUpload", ObjectMissing),
    (409, "OperationAborted", Unavailable),
    (412, "PreconditionFailed", RemoteChanged),
    (429, "SomethingNew", Throttled),
    (500, "InternalError", Unavailable),
    (501, "NotImplemented", Refused),
    (503, "ServiceUnavailable", Unavailable),
    (503, "SlowDown", Throttled),
    (599, "SomethingNew", Unavailable),
]


@pytest.mark.fault("B6", "B7", "B16")
@pytest.mark.parametrize("message", ["a message", None])
def test_code_decides(stub_s3, open_any, s3_error, message):
    """The S3 code, else the status, picks the error, with or without a message from the store."""
    heard = []
    store = open_any(stub_s3.storage(), on_request=lambda *told: heard.append(told[:2]))

    for status, code, expected in CODES:
        stub_s3.default = s3_error(status, code, message=message)
        error = failure(lambda: store.put("k", b"", md5=MD5, metadata={}))

        word = str(status) if code == "SomethingNew" else code
        assert type(error) is expected, code
        assert str(error).startswith("put_object b/k: ")
        assert f"({word}); " in str(error)
        assert "a message" not in str(error)
        assert heard[-1] == ("put_object", word)


def test_status_alone_decides_without_a_body(stub_s3, open_any, reply):
    """Answers to HEAD have no code in them; the status is enough."""
    store = open_any(stub_s3.storage())
    expected: dict[int, type[TransferError]] = {
        301: AccessDenied,
        400: Refused,
        401: AccessDenied,
        403: AccessDenied,
        404: ObjectMissing,
        412: RemoteChanged,
        429: Throttled,
        500: Unavailable,
        503: Unavailable,
    }

    for status, error in expected.items():
        stub_s3.default = reply(status, {"Location": "http://store.example.invalid/"} if status == 301 else {})
        assert type(failure(lambda: store.head("k"))) is error, status


def test_missing_object_and_missing_bucket_are_told_apart(stub_s3, open_any, reply, s3_error):
    """A 404 means the object where one was asked for, the bucket where none was, and either where one is written."""
    store = open_any(stub_s3.storage())
    stub_s3.default = reply(404, {"Content-Type": "text/html"}, b"<html><body>Not Found</body></html>")

    assert type(failure(lambda: store.head("k"))) is ObjectMissing
    assert type(failure(store.probe)) is BucketMissing
    assert type(failure(lambda: store.put("k", b"", md5=MD5, metadata={}))) is Unavailable
    assert type(failure(lambda: store.create_upload("k", metadata={}))) is Unavailable
    stub_s3.default = s3_error(404, "NoSuchBucket")
    assert type(failure(lambda: store.get("k", etag="e"))) is BucketMissing
    assert type(failure(lambda: store.delete("k"))) is BucketMissing
    assert type(failure(lambda: store.put("k", b"", md5=MD5, metadata={}))) is BucketMissing
    stub_s3.default = s3_error(404, "NoSuchKey")
    assert type(failure(lambda: store.get("k", etag="e"))) is ObjectMissing


@pytest.mark.fault("B8")
def test_error_inside_a_200_is_an_error(stub_s3, open_store, reply):
    """Completing an upload may answer 200, wait with blanks, and fail after all."""
    body = b'<?xml version="1.0"?>   \n  <Error><Code>InternalError</Code><Message>x</Message></Error>'
    stub_s3.default = reply(200, {"Content-Type": "application/xml"}, body)

    assert type(failure(lambda: open_store(stub_s3.storage()).complete_upload("k", "u", ["e"]))) is Unavailable


@pytest.mark.fault("B7")
def test_answer_of_something_else_is_no_success(stub_s3, open_any, reply):
    """A 200 from a captive portal or a proxy is neither a stored object nor an empty bucket."""
    store = open_any(stub_s3.storage())

    for body in (b"", b"<html><head><title>Log in</title></head></html>", b"<html><br>", b"\xff\xfe", b"{}", b"<a/>"):
        stub_s3.default = reply(200, {"Content-Type": "text/html"}, body)
        calls: dict[str, Callable[[], object]] = {
            "probe": store.probe,
            "list": lambda: next(store.list("")),
            "list_uploads": lambda: store.list_uploads(""),
            "put": lambda: store.put("k", b"", md5=MD5, metadata={}),
            "put_parts": lambda: store.put_parts("k", iter([b"x"]), part_size=5 * 2**20, metadata={}),
            "head": lambda: store.head("k"),
            "get": lambda: store.get("k", etag="e"),
            "create_upload": lambda: store.create_upload("k", metadata={}),
            "put_part": lambda: store.put_part("k", "u", 1, b"", md5=MD5),
            "complete_upload": lambda: store.complete_upload("k", "u", ["e"]),
        }
        for name, call in calls.items():
            assert type(failure(call)) is Unavailable, (body, name)


@pytest.mark.fault("B6")
def test_throttled_knows_how_long(stub_s3, open_any, s3_error):
    """Retry-After in seconds is passed on; a date is not, for the device's clock may be off."""
    store = open_any(stub_s3.storage())

    for text, expected in (("12", 12), ("Fri, 02 Jan 2026 03:04:05 GMT", None), ("-1", None), ("", None)):
        stub_s3.default = s3_error(503, "SlowDown", headers={"Retry-After": text})
        error = failure(store.probe)
        assert type(error) is Throttled
        assert error.retry_after_s == expected


@pytest.mark.fault("B6")
def test_503_with_a_wait_is_throttled(stub_s3, open_any, reply):
    """A 503 that says when to come back is a request for less, whatever its code."""
    stub_s3.default = reply(503, {"Retry-After": "3"})

    error = failure(lambda: open_any(stub_s3.storage()).probe())

    assert type(error) is Throttled
    assert error.retry_after_s == 3


@pytest.mark.fault("B1")
def test_refused_connection_is_unavailable(stub_s3, open_any):
    """Nobody listens: Unanswered, with where to look."""
    heard = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        store = open_any(stub_s3.storage(endpoint=endpoint), on_request=lambda *told: heard.append(told[:2]))

        error = failure(store.probe)

    assert type(error) is Unanswered
    assert "endpoint" in str(error)
    assert heard == [("list_objects_v2", "connection")]


@pytest.mark.fault("B1")
def test_unknown_name_is_unavailable(stub_s3, open_any):
    """A name that does not resolve: Unanswered, told apart from a refused connection."""
    store = open_any(stub_s3.storage(endpoint="http://store.example.invalid"))

    error = failure(store.probe)

    assert type(error) is Unanswered
    assert "(dns)" in str(error)


def test_dead_proxy_is_unavailable(stub_s3, open_any, monkeypatch):
    """A proxy that is not there is named as such, without its password."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://user:hunter2@127.0.0.1:{taken.getsockname()[1]}")

        error = failure(lambda: open_any(stub_s3.storage(endpoint="http://store.example.invalid")).probe())

    assert type(error) is Unanswered
    assert "(proxy)" in str(error)
    assert "hunter2" not in str(error)


def test_bad_bucket_name_is_refused(stub_s3, open_any):
    """A bucket's name that cannot be one never becomes a request."""
    error = failure(lambda: open_any(stub_s3.storage(bucket="no/such bucket")).probe())

    assert type(error) is Refused
    assert stub_s3.requests == []


def test_name_that_is_no_utf8_is_unsafe(stub_s3, open_any):
    """A file name that is not UTF-8 has no key; the message shows it escaped."""
    error = failure(lambda: open_any(stub_s3.storage()).put("a\udcff", b"", md5=MD5, metadata={}))

    assert type(error) is KeyUnsafe
    assert "a\\udcff" in str(error)
    assert stub_s3.requests == []


def test_empty_key_never_addresses_the_bucket(stub_s3, open_any):
    """Without a key, DELETE would remove the bucket: no such request is made."""
    store = open_any(stub_s3.storage())

    assert type(failure(lambda: store.delete(""))) is KeyUnsafe
    assert type(failure(lambda: store.put("", b"", md5=MD5, metadata={}))) is KeyUnsafe
    assert type(failure(lambda: store.put_parts("", iter([b""]), part_size=1, metadata={}))) is KeyUnsafe
    assert type(failure(lambda: store.head(""))) is KeyUnsafe
    assert type(failure(lambda: store.get("", etag="e"))) is KeyUnsafe

    assert stub_s3.requests == []


def test_interrupted_call_leaves_nothing_running(stub_s3, open_store, reply):
    """Who is interrupted while waiting (Ctrl-C) goes on at once; the request is given up, and the store goes on."""
    stub_s3.replies.append(reply(delay_s=1))
    stub_s3.default = reply(204)
    store = open_store(stub_s3.storage())
    interrupt = threading.Timer(0.2, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])

    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        store.delete("k")

    interrupt.join()
    stub_s3.wait_until_idle()
    store.delete("k")


@pytest.mark.fault("F10")
def test_control_characters_of_a_key_are_escaped(stub_s3, open_any, reply):
    """A key cannot write lines of its own into a log or onto a terminal."""
    stub_s3.default = reply(404)

    error = failure(lambda: open_any(stub_s3.storage()).head("a\nb\x1b[31m\u202e"))

    assert "b/a\\nb\\x1b[31m\\u202e: " in str(error)


@pytest.mark.fault("F9")
def test_no_secret_in_messages_or_logs(stub_s3, open_any, s3_error, caplog):
    """Neither secret nor signature is in an error, its cause's text or our own log lines."""
    stub_s3.default = s3_error(
        403, "SignatureDoesNotMatch", message="SECRET AWS4-HMAC", more="<StringToSign>x</StringToSign>"
    )
    with caplog.at_level(logging.INFO):
        error = failure(lambda: open_any(stub_s3.storage()).probe())

    assert "SECRET" not in str(error)
    assert "AWS4-HMAC" not in str(error)
    assert "Signature=" not in caplog.text


def test_table_is_whole():
    """Every row raises an error of the tree, every word for an exception has its row, every step says something."""
    words = {word for word, _ in s3_table.WORDS} | {word for word, _ in s3_fast_errors._KINDS} - {"range"}

    assert words <= set(s3_table.TABLE)
    assert set(s3_errors._MORE) <= {word for word, _ in s3_table.WORDS}
    for verdict in s3_table.TABLE.values():
        assert issubclass(verdict.error, errors.TransferError)
        assert verdict.what
        assert verdict.step


def test_unforeseen_exception_is_unavailable():
    """Whatever a parser stumbles over is an unusable answer, not a crash."""
    for exc in (KeyError("IsTruncated"), TypeError("NoneType"), ValueError("?"), AttributeError("?")):
        assert type(s3_errors.translate(exc, operation="o", bucket="b", key="k")) is Unavailable
