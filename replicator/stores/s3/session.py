"""How requests leave the device: one s3fs file system, one attempt, one host, our own trust.

Owns: signing and HTTP settings, the ban on redirects, the cap on answers held in memory.
Never: the process's AWS settings (profiles, configuration files, metadata services, other endpoints, CA bundles).
Knobs that reach into library internals cost speed when the library moves on, never requests.
"""

import contextlib
import functools
import socket
import ssl
from datetime import UTC, datetime
from typing import Any

import aiohttp
import botocore.handlers
import botocore.utils
import s3fs
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession

from replicator.model import Storage
from replicator.stores.s3.listing import read_listing
from replicator.stores.s3.network import (
    ANSWER_LIMIT_BYTES,
    DEFAULT_REGION,
    USER_AGENT,
    Limits,
    declares_entities,
    trust,
)
from replicator.stores.s3.table import AnswerUnusable


def file_system(storage: Storage, limits: Limits) -> s3fs.S3FileSystem:
    """A file system of the running loop for `storage`; it connects at the first request."""
    fs = s3fs.S3FileSystem(
        asynchronous=True,
        skip_instance_cache=True,
        use_listings_cache=False,
        session=_session(),
        endpoint_url=storage.endpoint,
        key=storage.access_key_id.get_secret_value(),
        secret=storage.secret_access_key.get_secret_value(),
        token=storage.session_token.get_secret_value() or None,
        # verify=True keeps AWS_CA_BUNDLE and REQUESTS_CA_BUNDLE out; the trust itself is the session's.
        client_kwargs={"region_name": storage.region or DEFAULT_REGION, "verify": True},
        config_kwargs={
            "http_session_cls": type("Session", (DirectSession,), {"ca_pem": storage.ca_pem}),
            "s3": {"addressing_style": "path"},
            "signature_version": "s3v4",
            # Checksum trailers make Ceph RGW refuse, and others store the framing as content.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "parameter_validation": False,
            "user_agent": USER_AGENT,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": limits.connections,
            "connect_timeout": limits.connect_timeout_s,
            "read_timeout": limits.read_timeout_s,
            "connector_args": {"socket_factory": functools.partial(_impatient_socket, limits.read_timeout_s)},
        },
    )
    fs.retries = 1
    return fs


def _impatient_socket(silence_s: float, address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that also gives up when the other side takes nothing: read timeouts do not see a stalled upload.

    Source: tcp(7), TCP_USER_TIMEOUT: sent data without acknowledgement, or data that a zero window holds back.
    """
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silence_s * 1000))
    return made


class DirectSession(AIOHTTPSession):  # type: ignore[misc]  # the library ships no types
    """One request is one attempt at one host; `ca_pem` is trusted beside the system's authorities."""

    ca_pem = ""

    def _build_verify_context(self) -> ssl.SSLContext:
        """Runs in a thread, for it reads the system's certificates; serves the endpoint and an HTTPS proxy."""
        return trust(self.ca_pem)

    async def _get_session(self, proxy_url: str | None) -> "_OneHop":
        session = await super()._get_session(proxy_url)
        # aiohttp repeats a PUT or GET once when the connection breaks; the caller owns retries.
        session._retry_connection = False  # noqa: SLF001
        return _OneHop(session)

    async def send(self, request: Any) -> Any:
        """Send, and hold at most ANSWER_LIMIT_BYTES of what is not an object's body."""
        is_body_wanted, request.stream_output = request.stream_output, True
        response = await super().send(request)
        if not is_body_wanted or response.status_code >= 300:
            content = await _read_answer(response.raw)
            if declares_entities(content):
                if response.status_code < 300:
                    raise AnswerUnusable("the answer declares entities, as no store does")
                content = b""  # a proxy's page, or worse: the status says enough, and nobody parses it
            response._content = content  # noqa: SLF001
        return response


class _OneHop:
    """An aiohttp session that never follows a redirect: the next host would get the session token."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, method: str, **options: Any) -> aiohttp.ClientResponse:
        return await self._session.request(method, allow_redirects=False, **options)


async def _read_answer(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    try:
        async for block in response.content.iter_any():
            body += block
            if len(body) > ANSWER_LIMIT_BYTES:
                break
    finally:
        response.close()  # only cuts what was not read to its end: a whole answer has given its connection back
    if len(body) > ANSWER_LIMIT_BYTES:
        raise AnswerUnusable(f"the answer is longer than {ANSWER_LIMIT_BYTES} bytes")
    return bytes(body)


@functools.cache
def _session() -> AioSession:
    """A session that knows the libraries' defaults and nothing of the process, its user or any credentials.

    One for all stores: making it, and the description of S3 that it reads, costs 0.15 s of CPU.
    """
    own = {
        name: (None, None, default, convert) for name, (_, _, default, convert) in AioSession.SESSION_VARIABLES.items()
    }
    for source in ("config_file", "credentials_file"):
        own[source] = (None, None, None, None)
    session = AioSession(session_vars=own)
    session.register("before-call.s3", _stay_in_region)
    for knob in (_send_at_once, _read_times_fast, _read_listings_fast):
        with contextlib.suppress(AttributeError, LookupError, TypeError):
            knob(session)
    return session


def _stay_in_region(params: dict[str, Any], **_: object) -> None:
    """Tell the region redirector that its one redirect was spent: it would repeat requests, signed for elsewhere."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _send_at_once(session: AioSession) -> None:
    """Drop `Expect: 100-continue`, which costs each upload a round trip."""
    session.unregister("before-call.s3", botocore.handlers.add_expect_header)


def _read_listings_fast(session: AioSession) -> None:
    """Ahead of the hook that parses every answer once more, in search of an error in it."""
    session.get_component("event_emitter").register_first("before-parse.s3.ListObjectsV2", read_listing)


def _read_times_fast(session: AioSession) -> None:
    """The libraries guess at the format of each time, which takes most of a listing; it is nearly always ISO 8601."""
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_time)


def _parse_time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = botocore.utils.parse_timestamp(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
