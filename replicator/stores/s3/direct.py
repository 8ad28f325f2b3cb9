"""Small requests over a plain HTTP connection of the standard library: little to import, every answer seen as it is.

Owns: the connection, one signed attempt a request, what an answer that is no good means. Never: redirects, proxies (who
needs one takes s3fs), objects' bodies, a connection that outlives its caller's work.
Connecting is bounded by `connect_timeout_s`, each silence by `read_timeout_s`, an answer's drip by `min_rate_bytes_s`.
"""

import functools
import http.client
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

from replicator.errors import TransferError
from replicator.model import Storage
from replicator.stores.s3.network import ANSWER_LIMIT_BYTES, USER_AGENT, Limits, declares_entities, trust
from replicator.stores.s3.signature import NOTHING, encoded, signed
from replicator.stores.s3.table import (
    AnswerUnusable,
    OnRequest,
    code_in,
    detail_of,
    failure,
    kind_of,
    wait_of,
    word_of,
)

if TYPE_CHECKING:
    from email.message import Message

T = TypeVar("T")

_BLOCK_BYTES = 2**16

_GRACE_S = 60
"""What an answer may take besides its bytes' share at the least rate."""

_FOREIGN = (OSError, http.client.HTTPException, LookupError, TypeError, ValueError)
"""What a connection and the reading of an answer may raise."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `operation` is S3's name of it; `key` None asks the bucket."""

    operation: str
    method: str = "GET"
    key: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    body_sha256: str = NOTHING
    headers: Mapping[str, str] = field(default_factory=dict)
    """More of them, names in lower case; all are signed."""
    age_s: float = 0.0
    """By how much the signature pretends to be older than it is."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came. `code` is S3's word for an error, '' where it has none."""

    status: int
    headers: "Message"
    body: bytes
    code: str


class Direct:
    """Opens links to one bucket; safe from any thread."""

    def __init__(self, storage: Storage, limits: Limits, on_request: OnRequest) -> None:
        self._storage = storage
        self._limits = limits
        self._on_request = on_request
        # Once: reading the system's authorities takes longer than a listing.
        self._trust = functools.cache(functools.partial(trust, storage.ca_pem))

    def link(self) -> "Link":
        """A connection for one piece of work, opened by its first request. Close it."""
        return Link(self._storage, self._limits, self._trust, self._on_request)


class Link:
    """One connection, opened again where the store has closed it. For one thread."""

    def __init__(
        self, storage: Storage, limits: Limits, trusted: Callable[[], ssl.SSLContext], on_request: OnRequest
    ) -> None:
        self._storage = storage
        self._limits = limits
        self._trusted = trusted
        self._on_request = on_request
        self._http: http.client.HTTPConnection | None = None

    def ask(self, asked: Asked, read: "Callable[[Message, bytes], T]") -> T:
        """What `read` makes of a good answer's headers and body, never None. Raises what the table says of others."""
        begun, wait_s, result = time.perf_counter(), None, None
        try:
            response, body = self._exchange(asked)
            is_good = response.status in (200, 204)
            result = read(response.headers, body) if is_good else None
            word = word_of(status=response.status, code="" if is_good else code_in(body.decode(errors="replace")))
            wait_s = wait_of(response.headers.get("retry-after", ""))
        except _FOREIGN as exc:
            self._on_request(asked.operation, kind_of([exc]), time.perf_counter() - begun)
            raise self.error(asked, exc) from exc
        self._on_request(asked.operation, word, time.perf_counter() - begun)
        if result is None:
            bucket = self._storage.bucket
            raise failure(word, operation=asked.operation, bucket=bucket, key=asked.key, wait_s=wait_s)
        return result

    def reply(self, asked: Asked) -> Reply:
        """The answer, good or not, for who wants to see how a store answers. Raises TransferError where none came."""
        begun = time.perf_counter()
        try:
            response, body = self._exchange(asked)
        except _FOREIGN as exc:
            self._on_request(asked.operation, kind_of([exc]), time.perf_counter() - begun)
            raise self.error(asked, exc) from exc
        code = code_in(body.decode(errors="replace"))
        self._on_request(asked.operation, word_of(status=response.status, code=code), time.perf_counter() - begun)
        return Reply(response.status, response.headers, body, code)

    def error(self, asked: Asked, exc: Exception) -> TransferError:
        """Our error for what came of a request."""
        return failure(
            kind_of([exc]),
            operation=asked.operation,
            bucket=self._storage.bucket,
            key=asked.key,
            detail=detail_of([exc]),
        )

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def _exchange(self, asked: Asked) -> tuple[http.client.HTTPResponse, bytes]:
        """One signed request, and its whole answer."""
        connection = self._open()
        path = "/" + quote(self._storage.bucket, safe="") + ("" if asked.key is None else f"/{quote(asked.key)}")
        query = encoded(asked.query)
        headers = signed(
            self._storage,
            asked.method,
            path=path,
            query=query,
            now=datetime.now(UTC) - timedelta(seconds=asked.age_s),
            body_sha256=asked.body_sha256,
            more=asked.headers,
        )
        connection.request(asked.method, f"{path}?{query}", asked.body, headers | {"user-agent": USER_AGENT})
        response = connection.getresponse()
        body = self._whole(response)
        if response.length:  # read1() does not mind an answer that ends early
            raise http.client.IncompleteRead(body, response.length)
        if response.status < 300 and declares_entities(body):
            raise AnswerUnusable("the answer declares entities, as no store does")
        return response, body

    def _whole(self, response: http.client.HTTPResponse) -> bytes:
        """The answer's body, if it is not too long and does not come slower than the least rate."""
        body, began_s = bytearray(), time.monotonic()
        rate = self._limits.min_rate_bytes_s
        while block := response.read1(_BLOCK_BYTES):
            body += block
            if len(body) > ANSWER_LIMIT_BYTES:
                raise AnswerUnusable(f"the answer is longer than {ANSWER_LIMIT_BYTES} bytes")
            if rate and time.monotonic() - began_s > _GRACE_S + len(body) / rate:
                raise TimeoutError
        response.close()  # read1() leaves it open, and then nothing can follow on the connection
        return bytes(body)

    def _open(self) -> http.client.HTTPConnection:
        if self._http is not None and self._http.sock is not None and not _is_readable(self._http.sock):
            return self._http
        self.close()
        url = urlsplit(self._storage.endpoint)
        timeout = self._limits.connect_timeout_s
        if url.scheme == "https":
            self._http = http.client.HTTPSConnection(url.netloc, timeout=timeout, context=self._trusted())
        else:
            self._http = http.client.HTTPConnection(url.netloc, timeout=timeout)
        self._http.connect()
        self._http.sock.settimeout(self._limits.read_timeout_s)
        return self._http


def _is_readable(sock: socket.socket) -> bool:
    """Whether the store has closed an idle connection: nothing else can have arrived on it."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
