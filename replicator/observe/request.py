"""One request as it is read, one answer as it is written.

Of http.server only the parser is taken, with its bound of 100 headers: its loop over requests waits for each byte anew,
logs every request, and would keep a thread for an idle connection. Never: a page, a token, a second request.
Source: RFC 9110 and 9112; OWASP's list of HTTP security headers.
"""

import contextlib
import io
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_HEAD_BYTES = 32 * 2**10
_HEAD_TIMEOUT_S = 5.0
_SEND_TIMEOUT_S = 30.0
_STREAM_TIMEOUT_S = 15.0
"""For what a stream has to say at a time, and for a reader's machine to confirm that it came."""
_STREAM_PAUSE_S = 1.0
_LINGER_TIMEOUT_S = 1.0
_LINGER_BYTES = 2 * 2**20
"""What an answered client may still send: closing at once would reset the connection and lose the answer."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "replicator",
    "X-Content-Type-Options": "nosniff",
}
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back; `headers` beside those that every answer has."""

    status: int
    body: bytes = b""
    content_type: str = _PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer without an end: `pieces` are asked for once a second until the reader leaves; b'' says nothing."""

    pieces: Iterator[bytes]
    content_type: str


class Refused(Exception):
    """A request that gets no more than this answer: a status and a line of text."""

    def __init__(self, status: int, problem: str, **headers: str) -> None:
        super().__init__(problem)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = Answer(status, f"{problem}\n".encode(), headers=named)


class _Incoming(io.RawIOBase):
    """What a connection sends: so many bytes, until so late. Who drips a byte a second gains nothing by it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.allow(_HEAD_BYTES, within_s=_HEAD_TIMEOUT_S)

    def allow(self, size: int, *, within_s: float) -> None:
        """From now on `size` bytes more, all of them within that time."""
        self._left_bytes = size
        self._deadline_s = time.monotonic() + within_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Raises Refused when there is no more time or room, OSError when the client is gone."""
        left_s = self._deadline_s - time.monotonic()
        if not self._left_bytes:
            raise Refused(431, "the request is too large")
        if left_s <= 0:
            raise Refused(408, "the request took too long")
        self._connection.settimeout(left_s)
        try:
            count = self._connection.recv_into(buffer, min(memoryview(buffer).nbytes, self._left_bytes))
        except TimeoutError:
            raise Refused(408, "the request took too long") from None
        self._left_bytes -= count
        return count


class _Head(BaseHTTPRequestHandler):
    """The standard library's parser of a request line and headers, without the server around it."""

    def __init__(self, incoming: "io.BufferedReader[_Incoming]") -> None:
        self.rfile = incoming
        self.raw_requestline = incoming.readline()
        if not self.raw_requestline:
            raise ConnectionError("nothing was asked")
        if not self.parse_request():
            raise Refused(400, "no request")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        raise Refused(code, HTTPStatus(code).phrase)


class Request:
    """One request, its body yet to be read."""

    def __init__(self, connection: socket.socket) -> None:
        """Read the head. Raises Refused, or OSError when the client is gone."""
        self._connection = connection
        self._incoming = _Incoming(connection)
        self._reader = io.BufferedReader(self._incoming)
        head = _Head(self._reader)
        self.method = head.command
        self.headers = head.headers
        """Names in any case; of values that come twice the first."""
        self.path = self.query = ""
        """As they were sent; '' for what is no path."""
        with contextlib.suppress(ValueError):
            _, _, self.path, self.query, _ = urlsplit(head.path)

    def body(self, *, at_most: int, within_s: float) -> bytes:
        """All of the body. Raises Refused for one that is too large, too slow, cut, or of unknown length."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise Refused(411, "the body has no Content-Length")
        length = lengths[0]
        if len(lengths) > 1 or not (length.isascii() and length.isdecimal()):
            raise Refused(400, "the body has no clear Content-Length")
        if len(length) > len(str(at_most)) or int(length) > at_most:
            raise Refused(413, f"the body is larger than {at_most} bytes")
        self._incoming.allow(int(length), within_s=within_s)
        try:
            if self.headers.get("Expect", "").lower() == "100-continue":
                self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = self._reader.read(int(length))
        except OSError:
            raise Refused(400, "the body cannot be read") from None
        if len(body) < int(length):
            raise Refused(400, "the body cannot be read")
        return body


def send(connection: socket.socket, answer: Answer, *, has_body: bool) -> None:
    """Send it, and let the client read it. Raises OSError when that is gone, or reads too slowly."""
    connection.settimeout(_SEND_TIMEOUT_S)
    connection.sendall(_head_of(answer) + (answer.body if has_body else b""))
    connection.shutdown(socket.SHUT_WR)
    rest = _Incoming(connection)
    rest.allow(_LINGER_BYTES, within_s=_LINGER_TIMEOUT_S)
    with contextlib.suppress(Refused):
        while rest.readinto(bytearray(2**14)):
            pass


def send_stream(connection: socket.socket, stream: Stream) -> None:
    """Send what comes, until the reader leaves. Raises OSError when it is gone or reads too slowly."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(_STREAM_TIMEOUT_S * 1000))
    head = _fields({"Content-Type": stream.content_type}, HTTPStatus.OK)
    for piece in stream.pieces:
        if head or piece:
            connection.settimeout(_STREAM_TIMEOUT_S)
            connection.sendall(head + piece)
            head = b""
        if _has_left(connection):
            return


def _has_left(connection: socket.socket) -> bool:
    """Wait a moment for the reader's end. Whoever goes on to speak is no reader either."""
    connection.settimeout(_STREAM_PAUSE_S)
    try:
        connection.recv(1)
    except TimeoutError:
        return False
    return True


def _head_of(answer: Answer) -> bytes:
    fields = dict(answer.headers)
    if answer.status != HTTPStatus.NO_CONTENT:
        fields |= {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
    return _fields(fields, HTTPStatus(answer.status))


def _fields(more: Mapping[str, str], status: HTTPStatus) -> bytes:
    """The status line and headers, `more` beside those that every answer has."""
    fields = {**_HEADERS, "Date": formatdate(usegmt=True), **more}
    lines = [f"HTTP/1.1 {status} {status.phrase}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")
