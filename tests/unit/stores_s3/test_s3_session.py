"""One request is one attempt at one host that we trust, whatever the process's environment says."""

import asyncio
import gc
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import botocore.handlers
import pytest
from pydantic import SecretStr

from replicator.errors import AccessDenied, Throttled, TransferError, Unavailable
from replicator.stores.s3 import network as s3_network
from replicator.stores.s3 import session as s3_session
from replicator.stores.s3.listing import read_listing
from replicator.stores.s3.table import AnswerUnusable

pytestmark = pytest.mark.slow

MD5 = hashlib.md5(b"body", usedforsecurity=False).digest()


def put(store):
    return store.put("k", b"body", md5=MD5, metadata={})


def failure(call) -> TransferError:
    with pytest.raises(TransferError) as caught:
        call()
    return caught.value


def test_failed_request_is_sent_once(stub_s3, open_any, reply):
    """No library below us repeats a request that the store failed: retries have one owner."""
    store = open_any(stub_s3.storage())

    for count, status in enumerate((408, 429, 500, 502, 503, 504), start=1):
        stub_s3.default = reply(status)
        failure(lambda: put(store))
        assert len(stub_s3.requests) == count, status


def test_slow_down_is_sent_once(stub_s3, open_any, engine, s3_error):
    """Nor one that was throttled."""
    stub_s3.default = s3_error(503, "SlowDown", headers={"Retry-After": "7"})

    error = failure(lambda: put(open_any(stub_s3.storage())))

    assert isinstance(error, Throttled)
    assert error.retry_after_s == (7 if engine == "s3fs" else None)  # obstore does not tell
    assert len(stub_s3.requests) == 1


def test_reset_request_is_sent_once(stub_s3, open_any, reply):
    """Nor one whose connection broke, be it new or kept from the request before."""
    store = open_any(stub_s3.storage())
    stub_s3.default = reply(is_reset=True)

    failure(lambda: put(store))
    assert len(stub_s3.requests) == 1

    stub_s3.replies.append(reply(headers={"ETag": '"e"'}))
    put(store)
    failure(lambda: put(store))

    assert len(stub_s3.requests) == 3


def test_cut_answer_is_sent_once(stub_s3, open_any, s3_page):
    """Nor one whose answer ended early."""
    page = s3_page(["a", "b"])
    stub_s3.default = type(page)(page.status, page.headers, page.body, cut_at=50)

    assert isinstance(failure(lambda: open_any(stub_s3.storage()).probe()), Unavailable)
    assert len(stub_s3.requests) == 1


def test_answer_after_the_read_timeout_is_a_timeout(stub_s3, open_any, reply):
    """A silent store costs the read timeout, once."""
    heard = []
    stub_s3.default = reply(delay_s=30)
    store = open_any(stub_s3.storage(), read_timeout_s=0.2, on_request=lambda *told: heard.append(told))

    assert isinstance(failure(lambda: store.head("k")), Unavailable)

    assert [told[:2] for told in heard] == [("head_object", "timeout")]
    assert 0.2 <= heard[0][2] < 2
    assert len(stub_s3.requests) == 1


def test_connections_are_kept(stub_s3, open_store, reply):
    """Requests in a row share one connection, error answers and empty ones too."""
    store = open_store(stub_s3.storage())
    stub_s3.replies.extend([reply(headers={"ETag": '"e"'}), reply(204), reply(404)])

    put(store)
    store.delete("k")
    failure(lambda: store.head("k"))
    stub_s3.default = reply(headers={"ETag": '"e"'})
    put(store)

    assert stub_s3.connections == 1


def test_connections_are_bounded(stub_s3, open_store, reply):
    """However many requests are under way, no more than `connections` are open."""
    stub_s3.default = reply(headers={"ETag": '"e"'}, delay_s=0.02)
    store = open_store(stub_s3.storage(), connections=3)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(put, [store] * 12))

    assert stub_s3.connections == 3


def test_close_leaves_no_connection(stub_s3, open_any, reply):
    """After `close` nothing is open, and closing what was never used is fine."""
    stub_s3.default = reply(headers={"ETag": '"e"'})
    store = open_any(stub_s3.storage())
    put(store)

    store.close()
    open_any(stub_s3.storage()).close()

    stub_s3.wait_until_idle()
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "s3fs"]


@pytest.mark.fault("B19")
def test_redirect_reaches_no_second_host(start_stub, open_store, reply):
    """A redirect is an error: neither signature nor token nor body reach the host it points to."""
    first, second = start_stub(), start_stub()
    store = open_store(first.storage(session_token=SecretStr("TOKEN")))

    for status in (301, 302, 303, 307, 308):
        first.default = reply(status, {"Location": f"{second.endpoint}/b/k"})
        calls: list[Callable[[], object]] = [
            lambda: put(store),
            lambda: store.get("k", etag="e"),
            store.probe,
            lambda: store.head("k"),
            lambda: store.delete("k"),
        ]
        for call in calls:
            error = failure(call)
            assert isinstance(error, AccessDenied)
            assert "region" in str(error)

    assert second.connections == 0
    assert [request.headers["x-amz-security-token"] for request in first.requests] == ["TOKEN"] * 25


@pytest.mark.fault("B16")
@pytest.mark.parametrize(
    ("status", "code", "headers"),
    [
        (301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-1"}),
        (400, "AuthorizationHeaderMalformed", {}),
        (400, "IllegalLocationConstraintException", {"x-amz-bucket-region": "eu-west-1"}),
    ],
)
@pytest.mark.fault("B19")
def test_other_region_is_told_not_chased(stub_s3, open_any, s3_error, status, code, headers):
    """Where a bucket lies is configuration: nothing is asked again, signed for another region."""
    stub_s3.default = s3_error(status, code, headers=headers, more="<Region>eu-west-1</Region>")

    error = failure(lambda: put(open_any(stub_s3.storage())))

    assert isinstance(error, AccessDenied)
    assert "BUCKET_REGION" in str(error)
    assert [request.method for request in stub_s3.requests if request.method == "PUT"] == ["PUT"]
    assert all("/us-east-1/s3/" in request.headers["authorization"] for request in stub_s3.requests)


@pytest.mark.fault("B21")
def test_upload_is_one_plain_body(stub_s3, open_store, reply):
    """A body goes out at once, with its length and MD5: no 100-continue, no chunks, no trailers, our own name."""
    stub_s3.default = reply(headers={"ETag": '"e"'})
    store = open_store(stub_s3.storage())

    put(store)
    store.put_part("k", "id", 1, b"body", md5=MD5)

    for request in stub_s3.requests:
        assert request.body == b"body"
        assert request.headers["content-length"] == "4"
        assert request.headers["content-md5"] == "hBotaJrYa9FhFEdFPCLG/A=="
        assert request.headers["user-agent"].startswith("replicator/")
        assert not {"expect", "transfer-encoding", "x-amz-trailer", "content-encoding"} & set(request.headers)
        assert not [name for name in request.headers if name.startswith(("x-amz-checksum", "x-amz-sdk-checksum"))]
    assert stub_s3.requests[0].target == "/b/k"


@pytest.mark.fault("F13")
def test_environment_of_the_process_changes_nothing(stub_s3, start_stub, open_any, reply, monkeypatch, tmp_path):
    """Profiles, AWS files, other endpoints, retry and FIPS settings of the process do not reach our requests."""
    other = start_stub()
    stub_s3.default = reply(503)
    config = tmp_path / "config"
    config.write_text(
        f"[default]\nendpoint_url = {other.endpoint}\nregion = xx-1\ns3 =\n  addressing_style = virtual\n"
        "  payload_signing_enabled = false\nmax_attempts = 9\n"
    )
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = WRONG\naws_secret_access_key = WRONG\n")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(config.read_text())
    words = {
        "HOME": str(tmp_path),
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_PROFILE": "nobody",
        "AWS_ENDPOINT_URL": other.endpoint,
        "AWS_ENDPOINT_URL_S3": other.endpoint,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": other.endpoint,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": other.endpoint,
        "AWS_ACCESS_KEY_ID": "WRONG",
        "AWS_SECRET_ACCESS_KEY": "WRONG",
        "AWS_SESSION_TOKEN": "WRONG",
        "AWS_REGION": "xx-1",
        "AWS_DEFAULT_REGION": "xx-1",
        "AWS_MAX_ATTEMPTS": "9",
        "AWS_RETRY_MODE": "adaptive",
        "AWS_DEFAULTS_MODE": "auto",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
        "AWS_CSM_ENABLED": "true",
        "AWS_SDK_UA_APP_ID": "somebody",
    }
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_session, "_session", s3_session._session.__wrapped__)

    failure(lambda: put(open_any(stub_s3.storage())))

    (request,) = stub_s3.requests
    assert "Credential=AKID/" in request.headers["authorization"]
    assert "/us-east-1/s3/aws4_request" in request.headers["authorization"]
    assert "x-amz-security-token" not in request.headers
    assert "somebody" not in request.headers["user-agent"]
    assert request.target == "/b/k"
    assert other.connections == 0


@pytest.mark.fault("F13")
def test_proxy_of_the_environment_is_used(stub_s3, open_any, reply, monkeypatch):
    """Gateways reach the store through a proxy: HTTP_PROXY is followed, NO_PROXY exempts."""
    monkeypatch.setenv("HTTP_PROXY", stub_s3.endpoint)
    stub_s3.default = reply(headers={"ETag": '"e"'})

    put(open_any(stub_s3.storage(endpoint="http://s3.example.invalid:9000")))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    put(open_any(stub_s3.storage()))

    assert [request.target for request in stub_s3.requests] == ["http://s3.example.invalid:9000/b/k", "/b/k"]


@pytest.mark.fault("F12")
def test_huge_answer_is_refused(stub_s3, open_any, s3_page, s3_error):
    """A listing or an error without end is cut off, not taken into memory."""
    filler = "x" * (s3_network.ANSWER_LIMIT_BYTES + 1)
    stub_s3.replies.extend([s3_page([filler]), s3_error(500, "InternalError", message=filler)])
    store = open_any(stub_s3.storage())

    assert "longer than" in str(failure(store.probe))
    assert isinstance(failure(lambda: store.list_uploads("")), Unavailable)


@pytest.mark.fault("F12")
def test_endless_answer_is_left_early():
    """What is too long is not read to its end, which may never come."""

    class Endless:
        is_closed = False
        read = 0

        @property
        def content(self):
            return self

        async def iter_any(self):
            while self.read < 100 * 2**20:
                self.read += 2**20
                yield bytes(2**20)

        def close(self):
            self.is_closed = True

    response = Endless()
    with pytest.raises(AnswerUnusable):
        asyncio.run(s3_session._read_answer(cast("Any", response)))

    assert response.is_closed
    assert response.read <= s3_network.ANSWER_LIMIT_BYTES + 2**20


def test_knobs_are_in_force():
    """With these versions of the libraries, every knob that reaches inside does what it is there for."""
    session = s3_session._session.__wrapped__()
    handlers = session.get_component("event_emitter")._emitter._handlers
    parser = session.get_component("response_parser_factory").create_parser("rest-xml")

    assert parser._timestamp_parser is s3_session._parse_time
    assert botocore.handlers.add_expect_header not in handlers.prefix_search("before-call.s3.PutObject")
    assert s3_session._stay_in_region in handlers.prefix_search("before-call.s3.PutObject")
    assert read_listing in handlers.prefix_search("before-parse.s3.ListObjectsV2")


def test_lost_knobs_cost_speed_only(stub_s3, open_store, s3_page, reply, monkeypatch):
    """When the libraries move on, knobs that are gone are skipped, and requests and listings go on."""

    def gone(session):
        raise AttributeError("no such thing any more")

    for knob in ("_send_at_once", "_read_times_fast", "_read_listings_fast"):
        monkeypatch.setattr(s3_session, knob, gone)
    monkeypatch.setattr(s3_session, "_session", s3_session._session.__wrapped__)
    stub_s3.replies.extend([s3_page(["a%20b"], token="1"), s3_page(["c"]), reply(headers={"ETag": '"e"'})])
    store = open_store(stub_s3.storage())

    entries = [entry for page in store.list("") for entry in page]

    assert [entry.key for entry in entries] == ["a b", "c"]
    assert entries[0].mtime_ns == 1767323045 * 10**9
    assert put(store) == "e"


@pytest.mark.parametrize(
    "text", ["2026-01-02T03:04:05.000Z", "2026-01-02T03:04:05", "Fri, 02 Jan 2026 03:04:05 GMT", "1767323045"]
)
def test_times_are_read_in_every_form(text):
    """LastModified is ISO 8601 in a listing and RFC 1123 in a header; a missing zone means UTC."""
    moment = s3_session._parse_time(text)

    assert moment.tzinfo
    assert moment.timestamp() == 1767323045
