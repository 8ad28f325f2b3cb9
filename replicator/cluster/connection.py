"""The connection to the API server: one attempt a request, everything bounded.

Owns: sockets, credentials on a request, deadlines and caps, and what a bad answer means as an error of ours.
Never: retries, redirects, proxies, cookies, which path or verb. Foreign exceptions end here.
"""

import contextlib
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import aiohttp

from replicator import __version__
from replicator.cluster.access import Access
from replicator.cluster.kinds import Object
from replicator.errors import ClusterError, ConfigError, Conflict, Forbidden, Gone, Invalid, Unreachable

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Of one page: 500 objects of 128 KiB."""
MAX_EVENT_BYTES = 8 * 1024 * 1024
"""Of one event: etcd holds objects of 1.5 MiB, JSON and escapes make more of it."""

_CONNECT_S = 10.0
_FAULTS: Mapping[int, type[ClusterError]] = {
    401: Forbidden,
    403: Forbidden,
    408: Unreachable,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Unreachable,
}


class Connection:
    """Requests to one API server, inside `open` and `close`. Every method raises ClusterError or a subclass."""

    def __init__(self, access: Access, *, answer_s: float) -> None:
        self._access = access
        self._limits = aiohttp.ClientTimeout(total=answer_s, sock_connect=_CONNECT_S)
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        # No bound on connections: each watch holds one, and a request must never wait behind those.
        connector = aiohttp.TCPConnector(limit=0, socket_factory=_socket)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": f"replicator/{__version__}", "Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def stream(self, path: str, query: Mapping[str, str], *, silence_s: float) -> AsyncGenerator[Object, None]:
        """One JSON object a line, until the server ends it; it may be silent for so long."""
        what = f"watch {path}"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=silence_s)
        async with self._send("GET", path, query=query, limits=limits) as answer:
            async for line in _lines(answer.content):
                yield _parsed(line, what)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "",
    ) -> Object:
        async with self._send(method, path, query=query, body=body, content_type=content_type) as answer:
            return _parsed(await _bounded(answer.content, f"{method} {path}"), f"{method} {path}")

    @contextlib.asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "",
        limits: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer whose body is still to be read; what goes wrong until then, or while it is read, is ours."""
        assert self._session, "open it first"  # noqa: S101
        what = f"{method} {path}"
        try:
            async with self._session.request(
                method,
                self._access.server + path,
                params=query,
                data=json.dumps(body).encode() if body is not None else None,
                headers=self._headers(content_type),
                ssl=self._access.tls() or True,
                allow_redirects=False,
                timeout=limits or self._limits,
            ) as answer:
                if answer.status >= 300:
                    raise fault(answer.status, await _status(answer, what), what)
                yield answer
        except ConfigError as exc:
            raise Forbidden(str(exc)) from exc
        except TimeoutError:
            raise Unreachable(f"{what}: no answer in time") from None
        except (aiohttp.ClientError, OSError) as exc:
            raise Unreachable(f"{what}: {exc or type(exc).__name__}") from exc

    def _headers(self, content_type: str) -> dict[str, str]:
        token = self._access.token().get_secret_value()
        return {
            "Content-Type": content_type or "application/json",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """One whose kernel finds out within a minute that the other side has vanished: a watch may be silent for long."""
    family, kind, protocol, *_ = address
    one = socket.socket(family, kind, protocol)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return one


async def _bounded(content: aiohttp.StreamReader, what: str) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ClusterError(f"{what}: an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines that are not blank. A last one without its end was cut, and is dropped: the next watch brings it again."""
    rest = bytearray()
    async for chunk in content.iter_any():
        *lines, last = chunk.split(b"\n")
        for line in lines:
            rest += line
            if rest.strip():
                yield bytes(rest)
            rest.clear()
        rest += last
        if len(rest) > MAX_EVENT_BYTES:
            raise ClusterError(f"a watch sent an event of more than {MAX_EVENT_BYTES} bytes")


def _parsed(body: bytes, what: str) -> Object:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Unreachable(f"{what}: the answer is not a JSON object; is this a Kubernetes API server?")
    return value


async def _status(answer: aiohttp.ClientResponse, what: str) -> Object:
    """The Status object of a bad answer; empty when it is none, as from a gateway in between."""
    with contextlib.suppress(ClusterError):
        return _parsed(await _bounded(answer.content, what), what)
    return {}


def fault(code: Any, status: Object, what: str) -> ClusterError:
    code = code if isinstance(code, int) else 500
    kind = _FAULTS.get(code, Unreachable if code >= 500 else ClusterError)
    message = str(status.get("message") or "no reason given")[:500]
    return kind(f"{what}: {message} ({code})", status=code, reason=str(status.get("reason") or ""))
