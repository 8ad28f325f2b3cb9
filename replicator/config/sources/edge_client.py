"""One device's requests to the Edge API: HTTPS with the device's own certificate, kept alive between polls.

Owns: the connection, the certificate files (read again when they change), caps on the size and the time of an answer.
Never: redirects, proxies, retries but the one that a closed idle connection needs, what an answer means.
Source: yggdrasil's HTTP transport: <url>/<channel>/<device>/in, and /out for what the device has to say.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from replicator import __version__
from replicator.config.documents import stamps
from replicator.errors import ConfigError

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Far above the message of a device with hundreds of workloads."""

_SILENCE_S, _WHOLE_S = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the Edge API said."""

    status: int
    etag: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """Files of the device's certificate and key, and of the authority that it trusts: without one, the system's."""

    certificate: Path
    key: Path
    authority: Path | None

    @property
    def files(self) -> list[Path]:
        return [self.certificate, self.key, *([self.authority] if self.authority else [])]

    def context(self) -> ssl.SSLContext:
        """Raises ConfigError when a file is missing or is not what it should be."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # refuses many private authorities since Python 3.13
        where = self.authority
        try:
            if self.authority:
                context.load_verify_locations(self.authority)
            where = self.certificate
            context.load_cert_chain(self.certificate, self.key)
        except OSError as exc:  # the TLS library's faults among them
            fix = "Check that certificate, key and authority are PEM files that belong together"
            raise ConfigError(where=str(where), problem=f"cannot be used: {exc.strerror or exc}", fix=fix) from None
        return context


class EdgeClient:
    """Requests of one device. Not for two threads at a time."""

    def __init__(self, url: str, device: str, identity: Identity) -> None:
        """`url` up to and without the channel, https only."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = f"{parts.path.rstrip('/')}/%s/{quote(device, safe='')}/%s"
        self._identity = identity
        self._connection: http.client.HTTPSConnection | None = None
        self._mark: Hashable = None
        self.where = f"{parts.scheme}://{parts.netloc}"

    def ask(self, channel: str, etag: str = "") -> Answer:
        """What the channel ("data", "control") has for the device; 304 when it is still what `etag` names.

        Raises OSError or HTTPException when nobody answers as HTTP does, ConfigError for the identity's files.
        """
        return self._send("GET", self._path % (channel, "in"), {"If-None-Match": etag} if etag else {})

    def tell(self, body: bytes) -> Answer:
        """Hand over what the device has to say, as JSON. Raises as `ask`; whoever hears it twice has to bear it."""
        return self._send("POST", self._path % ("data", "out"), {"Content-Type": "application/json"}, body)

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _send(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
        is_reused = self._connect()
        try:
            return self._exchange(method, path, headers, body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.close()
            if not is_reused:
                raise
            self._connect()
            return self._exchange(method, path, headers, body)

    def _connect(self) -> bool:
        """Have a connection with the identity as it is on disk; whether it is an old one."""
        mark = stamps(self._identity.files)
        if self._connection and mark == self._mark:
            return self._connection.sock is not None
        self.close()
        context, self._mark = self._identity.context(), mark
        self._connection = http.client.HTTPSConnection(self._host, self._port, timeout=_SILENCE_S, context=context)
        return False

    def _exchange(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Answer:
        assert self._connection  # noqa: S101 - `_send` has connected
        headers = {"User-Agent": f"replicator/{__version__}", "Accept": "application/json"} | headers
        try:
            with _until(self._connection, _WHOLE_S):
                self._connection.request(method, path, body, headers)
                reply = self._connection.getresponse()
                answer = reply.read(MAX_ANSWER_BYTES + 1)
        except BaseException:
            self.close()
            raise
        if len(answer) > MAX_ANSWER_BYTES:
            self.close()
            raise http.client.HTTPException(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        if reply.length:
            self.close()
            raise http.client.HTTPException("the answer was cut")
        return Answer(reply.status, reply.getheader("ETag", ""), answer)


@contextlib.contextmanager
def _until(connection: http.client.HTTPSConnection, seconds: float) -> Iterator[None]:
    """Cut the connection after so long, however slowly it still talks."""

    def cut() -> None:
        if connection.sock:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
