"""Listings over a plain HTTP connection of the standard library: little to import, and every answer seen as it is.

Owns: ListObjectsV2 of one bucket. A library that gives only parsed paths cannot be trusted with it: it takes a page
of any other kind for an empty listing, a cut one for the last, and `a/` for `a`.
Never: redirects, proxies (who needs one takes s3fs), a connection that outlives its listing.
Source: S3 API, ListObjectsV2. Connecting is bounded by `connect_timeout_s`, each silence by `read_timeout_s`.
"""

import functools
import http.client
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from replicator.errors import TransferError
from replicator.model import RemoteObject, Storage
from replicator.stores.s3.answers import Page, page_of
from replicator.stores.s3.listing import listing_of
from replicator.stores.s3.network import ANSWER_LIMIT_BYTES, trust, user_agent
from replicator.stores.s3.signature import encoded, signed_get
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

_OPERATION = "list_objects_v2"

_FOREIGN = (OSError, http.client.HTTPException, LookupError, TypeError, ValueError)
"""What a connection and the reading of an answer may raise."""


class Lister:
    """Lists one bucket; safe from any thread."""

    def __init__(
        self,
        storage: Storage,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        on_request: OnRequest,
        page_keys: int,
    ) -> None:
        self._storage = storage
        self._path = "/" + quote(storage.bucket, safe="")
        self._connect_timeout_s, self._read_timeout_s = connect_timeout_s, read_timeout_s
        # Once: reading the system's authorities takes longer than a listing.
        self._trust = functools.cache(functools.partial(trust, storage.ca_pem))
        self._on_request = on_request
        self._page_keys = page_keys

    def probe(self) -> None:
        with closing(self._connection()) as connection:
            self._page(connection, {"max-keys": "1"}, prefix="", after="")

    def list(self, prefix: str) -> Iterator[Sequence[RemoteObject]]:
        last, token = "", ""
        tokens: set[str] = set()
        with closing(self._connection()) as connection:
            while token not in tokens:
                tokens.add(token)
                query = {"encoding-type": "url", "max-keys": str(self._page_keys), "prefix": prefix}
                if token:
                    query["continuation-token"] = token
                page = self._page(connection, query, prefix=prefix, after=last)
                if page.objects:
                    last = page.objects[-1].key
                    yield page.objects
                token = page.token
                if not token:
                    return
        raise self._error(AnswerUnusable("the listing is not trustworthy: it goes in circles"))

    def _page(self, connection: "_Connection", query: Mapping[str, str], *, prefix: str, after: str) -> Page:
        begun, wait_s, page = time.perf_counter(), None, None
        try:
            response, body = connection.ask(self._path, encoded({"list-type": "2", **query}))
            if response.status == 200:
                page = _page_in(body, prefix=prefix, after=after)
            word = word_of(status=response.status, code="" if page else code_in(body.decode(errors="replace")))
            wait_s = wait_of(response.headers.get("retry-after", ""))
        except _FOREIGN as exc:
            self._on_request(_OPERATION, kind_of([exc]), time.perf_counter() - begun)
            raise self._error(exc) from exc
        self._on_request(_OPERATION, word, time.perf_counter() - begun)
        if page is None:
            raise failure(word, operation=_OPERATION, bucket=self._storage.bucket, key=None, wait_s=wait_s)
        return page

    def _connection(self) -> "_Connection":
        return _Connection(
            self._storage,
            self._trust,
            connect_timeout_s=self._connect_timeout_s,
            read_timeout_s=self._read_timeout_s,
        )

    def _error(self, exc: Exception) -> TransferError:
        return failure(
            kind_of([exc]), operation=_OPERATION, bucket=self._storage.bucket, key=None, detail=detail_of([exc])
        )


class _Connection:
    """One connection, opened by the first request and again where the store has closed it."""

    def __init__(
        self,
        storage: Storage,
        trusted: Callable[[], ssl.SSLContext],
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
    ) -> None:
        self._storage = storage
        self._trusted = trusted
        self._connect_timeout_s, self._read_timeout_s = connect_timeout_s, read_timeout_s
        self._http: http.client.HTTPConnection | None = None

    def ask(self, path: str, query: str) -> tuple[http.client.HTTPResponse, bytes]:
        """One signed GET, and its whole answer."""
        http_ = self._open()
        headers = signed_get(self._storage, path=path, query=query, now=datetime.now(UTC))
        http_.request("GET", f"{path}?{query}", headers=headers | {"user-agent": user_agent()})
        response = http_.getresponse()
        body = response.read(ANSWER_LIMIT_BYTES + 1)
        if len(body) > ANSWER_LIMIT_BYTES:
            raise AnswerUnusable(f"the answer is longer than {ANSWER_LIMIT_BYTES} bytes")
        if response.length:  # read() with a limit does not mind an answer that ends early
            raise http.client.IncompleteRead(body, response.length)
        return response, body

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def _open(self) -> http.client.HTTPConnection:
        if self._http is not None and self._http.sock is not None and not _is_readable(self._http.sock):
            return self._http
        self.close()
        url = urlsplit(self._storage.endpoint)
        if url.scheme == "https":
            self._http = http.client.HTTPSConnection(
                url.netloc, timeout=self._connect_timeout_s, context=self._trusted()
            )
        else:
            self._http = http.client.HTTPConnection(url.netloc, timeout=self._connect_timeout_s)
        self._http.connect()
        self._http.sock.settimeout(self._read_timeout_s)
        return self._http


def _is_readable(sock: socket.socket) -> bool:
    """Whether the store has closed an idle connection: nothing else can have arrived on it."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _page_in(body: bytes, *, prefix: str, after: str) -> Page:
    listing = listing_of(body)
    if listing is None:
        raise AnswerUnusable("the answer is no listing")
    return page_of(listing, prefix=prefix, after=after)
