"""Requests to the Kubernetes API server, one attempt each.

Owns: connections, deadlines and caps on every answer, and what a bad answer means as an error of ours.
Never: retries, redirects, proxies, what an object says. Foreign exceptions end here.
Source: Kubernetes API concepts (paging, watch, bookmarks, server-side apply); RFC 7386 for merge patches.
"""

import contextlib
import json
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp

from replicator import __version__
from replicator.cluster.access import Access
from replicator.cluster.kinds import Kind, Object
from replicator.errors import ClusterError, ConfigError, Conflict, Forbidden, Gone, Invalid, Unreachable

PAGE_LIMIT = 500
"""Objects a page of a list; the usual number of Kubernetes' own clients."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Of one page: 500 objects of 128 KiB."""
MAX_EVENT_BYTES = 8 * 1024 * 1024
"""Of one event: etcd holds objects of 1.5 MiB, JSON and escapes make more of it."""
ANSWER_S = 30.0
"""A whole answer, but for watches."""
WATCH_S = 300
"""Until the server ends a watch by itself; up to a fifth more, so that not all end together."""

_CONNECT_S = 10.0
_ANSWER = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=_CONNECT_S)
_MERGE_PATCH, _APPLY_PATCH = "application/merge-patch+json", "application/apply-patch+yaml"
_FAULTS: Mapping[int, type[ClusterError]] = {
    401: Forbidden,
    403: Forbidden,
    408: Unreachable,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Unreachable,
}


class Listing(NamedTuple):
    """All objects of a kind, and the version from which a watch goes on."""

    items: list[Object]
    version: str


class Event(NamedTuple):
    """What a watch tells: `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Object


class Cluster:
    """The API server, inside `async with`. Every method raises ClusterError or a subclass."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # No bound on connections: each watch holds one, and a request must never wait behind those.
        connector = aiohttp.TCPConnector(limit=0, socket_factory=_socket)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": f"replicator/{__version__}", "Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object as it is now; None when there is none."""
        try:
            return await self._ask("GET", kind.path(namespace, name))
        except ClusterError as exc:
            if exc.status == 404:
                return None
            raise

    async def list(self, kind: Kind, namespace: str = "", *, name: str = "", labels: str = "") -> Listing:
        """All objects of `namespace` ("" = of every one), or those of one name or with these labels.

        Raises Gone when the pages took so long that the server forgot the first.
        """
        query = _selection(name, labels) | {"limit": str(PAGE_LIMIT)}
        items: list[Object] = []
        while True:
            page = await self._ask("GET", kind.path(namespace), query=query)
            meta = page.get("metadata") or {}
            # In a list, objects of built-in kinds do not say what they are.
            items += ({"apiVersion": kind.api_version, "kind": kind.kind} | item for item in page.get("items") or ())
            if not meta.get("continue"):
                return Listing(items, str(meta.get("resourceVersion", "")))
            query["continue"] = str(meta["continue"])

    async def create(self, kind: Kind, obj: Object) -> Object:
        """Conflict when there is one of that name."""
        return await self._ask("POST", kind.path(obj["metadata"].get("namespace", "")), body=obj)

    async def replace(self, kind: Kind, obj: Object) -> Object:
        """Put this in the place of the version that `metadata.resourceVersion` names; Conflict when it moved."""
        meta = obj["metadata"]
        return await self._ask("PUT", kind.path(meta.get("namespace", ""), meta["name"]), body=obj)

    async def apply(self, kind: Kind, obj: Object, *, manager: str, force: bool = False) -> Object:
        """Server-side apply: what `obj` says is ours from now on, what it no longer says goes.

        Conflict when a field belongs to another field manager, unless `force`d.
        """
        meta = obj["metadata"]
        body = {"apiVersion": kind.api_version, "kind": kind.kind} | obj
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        path = kind.path(meta.get("namespace", ""), meta["name"])
        return await self._ask("PATCH", path, query=query, body=body, content_type=_APPLY_PATCH)

    async def patch(self, kind: Kind, namespace: str, name: str, change: Object, *, subresource: str = "") -> Object:
        """JSON merge patch: None removes a field. With a resourceVersion in it, Conflict when the object moved."""
        path = kind.path(namespace, name, subresource)
        return await self._ask("PATCH", path, body=change, content_type=_MERGE_PATCH)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """It goes, at once or when its finalizers are gone. Missing is fine; Conflict when it has another `uid`."""
        body = {"preconditions": {"uid": uid}} if uid else {}
        try:
            await self._ask("DELETE", kind.path(namespace, name), body=body)
        except ClusterError as exc:
            if exc.status != 404:
                raise

    async def watch(
        self, kind: Kind, namespace: str = "", *, version: str = "", name: str = "", labels: str = ""
    ) -> AsyncGenerator[Event, None]:
        """What happens after `version`, until the server ends it, which it does every few minutes.

        Raises Gone when `version` is too old, Unreachable when the connection broke.
        """
        path = kind.path(namespace)
        seconds = WATCH_S + random.randrange(WATCH_S // 5)  # noqa: S311 -- a spread, no secret
        query = _selection(name, labels) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            **({"resourceVersion": version} if version else {}),
        }
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=seconds + ANSWER_S)
        async with self._send("GET", path, query=query, limits=limits) as answer:
            async for line in _lines(answer.content):
                event = _parsed(line, f"watch {path}")
                obj = event.get("object")
                if not isinstance(obj, dict):
                    raise ClusterError(f"watch {path}: an event without an object")
                if event.get("type") == "ERROR":
                    raise _fault(int(obj.get("code") or 500), obj, f"watch {path}")
                yield Event(str(event.get("type", "")), obj)

    async def _ask(
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
        limits: aiohttp.ClientTimeout = _ANSWER,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer whose body is still to be read; what goes wrong until then, or while it is read, is ours."""
        assert self._session, "only inside `async with`"  # noqa: S101
        what = f"{method} {path}"
        try:
            async with self._session.request(
                method,
                self.access.server + path,
                params=query,
                data=json.dumps(body).encode() if body is not None else None,
                headers=self._headers(content_type),
                ssl=self.access.tls() or True,
                allow_redirects=False,
                timeout=limits,
            ) as answer:
                if answer.status >= 300:
                    raise _fault(answer.status, await _status(answer, what), what)
                yield answer
        except ConfigError as exc:
            raise Forbidden(str(exc)) from exc
        except TimeoutError:
            raise Unreachable(f"{what}: no answer in time") from None
        except (aiohttp.ClientError, OSError) as exc:
            raise Unreachable(f"{what}: {exc or type(exc).__name__}") from exc

    def _headers(self, content_type: str) -> dict[str, str]:
        token = self.access.token().get_secret_value()
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


def _selection(name: str, labels: str) -> dict[str, str]:
    return {
        **({"fieldSelector": f"metadata.name={name}"} if name else {}),
        **({"labelSelector": labels} if labels else {}),
    }


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


def _fault(code: int, status: Object, what: str) -> ClusterError:
    kind = _FAULTS.get(code, Unreachable if code >= 500 else ClusterError)
    message = str(status.get("message") or "no reason given")[:500]
    return kind(f"{what}: {message} ({code})", status=code, reason=str(status.get("reason") or ""))
