"""What an endpoint tells everybody, without credentials: its name, its certificate, its clock.

Owns: one look at a time, each with a connection of its own. Never: a signed request, or an answer's status or body.
Source: RFC 9110, 6.6.1 (Date); RFC 5280, 4.1.2.5 (notAfter).
"""

import http.client
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from replicator.errors import TransferError
from replicator.model import Storage
from replicator.stores.s3.network import USER_AGENT, Limits, is_proxied, trust
from replicator.stores.s3.table import detail_of, failure, kind_of

__all__ = ["Contact", "addresses", "clock_ahead_s", "connect", "is_proxied"]


@dataclass(frozen=True, slots=True)
class Contact:
    """A connection that came about. `certificate_left_s`: until its certificate ends; None without TLS."""

    seconds: float
    certificate_left_s: float | None


def addresses(storage: Storage) -> list[str]:
    """What the endpoint's name stands for. Raises Unavailable. How long it takes is the resolver's business."""
    url = urlsplit(storage.endpoint)
    try:
        found = socket.getaddrinfo(url.hostname, url.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise _failure(storage, "resolve", exc) from exc
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def connect(storage: Storage, limits: Limits) -> Contact:
    """Connect, over TLS with the trust that requests have. Raises Unavailable."""
    begun = time.perf_counter()
    try:
        with closing(_connection(storage, limits)) as connection:
            connection.connect()
            seconds = time.perf_counter() - begun
            certificate = connection.sock.getpeercert() if isinstance(connection.sock, ssl.SSLSocket) else None
    except (OSError, http.client.HTTPException) as exc:
        raise _failure(storage, "connect", exc) from exc
    ends = certificate.get("notAfter") if certificate else None
    return Contact(seconds, ssl.cert_time_to_seconds(str(ends)) - time.time() if ends else None)


def clock_ahead_s(storage: Storage, limits: Limits) -> float | None:
    """Seconds by which this device's clock is ahead of the endpoint's, to a second; None where it tells no time."""
    try:
        with closing(_connection(storage, limits)) as connection:
            connection.connect()
            connection.sock.settimeout(limits.read_timeout_s)
            begun = time.time()
            connection.request("HEAD", "/", headers={"user-agent": USER_AGENT})
            date = connection.getresponse().headers["date"]
            between = (begun + time.time()) / 2
    except (OSError, http.client.HTTPException) as exc:
        raise _failure(storage, "head", exc) from exc
    try:
        # The header has whole seconds: half a one passed since, on average.
        return between - parsedate_to_datetime(date).timestamp() - 0.5 if date else None
    except ValueError:
        return None


def _connection(storage: Storage, limits: Limits) -> http.client.HTTPConnection:
    url = urlsplit(storage.endpoint)
    if url.scheme == "https":
        return http.client.HTTPSConnection(url.netloc, timeout=limits.connect_timeout_s, context=trust(storage.ca_pem))
    return http.client.HTTPConnection(url.netloc, timeout=limits.connect_timeout_s)


def _failure(storage: Storage, operation: str, exc: Exception) -> TransferError:
    word = kind_of([exc])
    return failure(word, operation=operation, bucket=storage.endpoint, key=None, detail=detail_of([exc]))
