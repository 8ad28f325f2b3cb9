"""A Kubernetes API server for tests: real HTTP on loopback, everything in memory, on a thread of its own.

    with ApiServer() as server:
        server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"}})
        access = server.access()                            # or server.kubeconfig(path)
        server.get("configmaps", "ns", "a"); server.edit("configmaps", "ns", "a", {"data": {"k": "v"}})
        server.answer(403, plural="edgedevices", method="PATCH")   # the next such request is refused
        server.compact(); server.close_watches(); server.stop(); server.start()

Every method may be called from any thread. What it does as the real one is held by tests/unit/cluster: the same tests
run against both. It has no CEL rules, no RBAC (see `answer`), no namespaces to make first and no priority and fairness.
"""

import asyncio
import json
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from aiohttp import web

from replicator.cluster.access import Access
from tests.apiserver.http import Api
from tests.apiserver.resources import CRDS, known
from tests.apiserver.rules import Object, merged
from tests.apiserver.store import Selection, Shelf, Store, line

_T = TypeVar("_T")
_TEST = ("tests", "Update", "")


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asked; `verb` is get, list, watch, create, update, patch, apply or delete."""

    verb: str
    plural: str
    namespace: str
    name: str
    subresource: str
    method: str
    path: str
    query: dict[str, str]
    token: str
    body: Any = None


@dataclass
class Answer:
    """What the server says instead of doing it, to requests that fit."""

    status: int
    times: float = 1
    plural: str = ""
    verb: str = ""
    method: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str | None = None
    query: str = ""
    """A parameter that has to be there."""
    body: bytes | None = None
    delay_s: float = 0
    """Before it answers; with status 0 it then does what was asked."""
    reason: str = ""
    message: str = "as the test wants it"

    def fits(self, request: Request) -> bool:
        wanted = (
            (getattr(self, one), getattr(request, one)) for one in ("plural", "verb", "method", "namespace", "name")
        )
        return (
            self.times > 0
            and all(not mine or mine == theirs for mine, theirs in wanted)
            and self.subresource in {None, request.subresource}
            and (not self.query or self.query in request.query)
        )


class ApiServer:
    """Starts at once; a context manager that closes it. `tokens`: those it takes; empty = anybody's."""

    def __init__(
        self,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        tokens: tuple[str, ...] = (),
        crds: Path | None = CRDS,
        bookmark_s: float = 60,
        history: int = 20_000,
    ) -> None:
        self.tokens = set(tokens)
        self.bookmark_s = bookmark_s
        self.requests: deque[Request] = deque(maxlen=100_000)
        self.answers: list[Answer] = []
        self.store = Store(known(crds).values(), history=history)
        self.port = port
        self._tls = tls
        self._api = Api(self)
        self._runner: web.AppRunner | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="apiserver", daemon=True)
        self._thread.start()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def access(self, **more: Any) -> Access:
        return Access(server=self.url, **more)

    def kubeconfig(self, path: Path, *, token: str = "", namespace: str = "default", authority: str = "") -> Path:
        """Write a kubeconfig that leads here."""
        cluster = {"server": self.url}
        if authority:
            ca = path.with_suffix(".ca.pem")
            ca.write_text(authority)
            cluster["certificate-authority"] = str(ca)
        words = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        }
        path.write_text(json.dumps(words))
        return path

    # Life

    def start(self) -> None:
        """Listen again, on the same port."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def stop(self) -> None:
        """Close the port and cut every connection; what is stored stays."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        application = web.Application(client_max_size=4 * 2**20)
        application.router.add_route("*", "/{path:.*}", self._api.answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self.port, ssl_context=self._tls, backlog=4096, reuse_address=True
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner:
            assert runner.server
            for connection in list(runner.server.connections):
                if connection.transport:
                    connection.transport.abort()
            await runner.cleanup()

    def _do(self, deed: Callable[[], _T]) -> _T:
        """Have it done on the server's thread."""
        if threading.current_thread() is self._thread:
            return deed()

        async def done() -> _T:
            return deed()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(30)

    def shelf(self, plural: str) -> Shelf:
        return next(one for key, one in self.store.shelves.items() if key[2] == plural)

    def _shelf_of(self, obj: Object) -> Shelf:
        shelves = self.store.shelves.values()
        return next(s for s in shelves if (s.resource.api_version, s.resource.kind) == (obj["apiVersion"], obj["kind"]))

    # What is stored

    def put(self, obj: Object) -> Object:
        """Create it, or put it in the place of what is there, its status included; the object as stored."""

        def deed() -> Object:
            shelf = self._shelf_of(obj)
            meta = obj["metadata"]
            old = shelf.entries.get((meta.get("namespace", ""), meta["name"]))
            entry = self.store.update(shelf, old, obj, _TEST) if old else self.store.create(shelf, obj, _TEST)
            if "status" in obj and shelf.resource.has_status:
                with_status = entry.obj | {"status": obj["status"]}
                entry = self.store.update(shelf, entry, with_status, ("tests", "Update", "status"))
            return entry.obj

        return self._do(deed)

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        entry = self._do(lambda: self.shelf(plural).entries.get((namespace, name)))
        return json.loads(entry.body) if entry else None

    def list(self, plural: str, namespace: str = "") -> "list[Object]":
        return self._do(lambda: [e.obj for e in self.store.select(self.shelf(plural), Selection(namespace))])

    def edit(self, plural: str, namespace: str, name: str, change: Object, *, subresource: str = "") -> Object:
        """Merge-patch it; a `status` in `change` is written too."""

        def deed() -> Object:
            shelf = self.shelf(plural)
            entry = self.store.find(shelf, namespace, name)
            parts = {subresource} if subresource else {"", *(["status"] if "status" in change else [])}
            for part in sorted(parts):
                entry = self.store.update(shelf, entry, merged(entry.obj, change), ("tests", "Update", part))
            return entry.obj

        return self._do(deed)

    def delete(self, plural: str, namespace: str, name: str) -> None:
        def deed() -> None:
            shelf = self.shelf(plural)
            self.store.delete(shelf, self.store.find(shelf, namespace, name))

        self._do(deed)

    # Faults

    def answer(self, status: int, **words: Any) -> Answer:
        """Say this to the next requests that fit (see Answer) instead of doing what they ask; `times=inf` for all."""
        answer = Answer(status, **words)
        self._do(lambda: self.answers.append(answer))
        return answer

    def empty_lists(self, plural: str, times: float = 1) -> Answer:
        """Lists of this kind are empty, at the version of now."""
        return self.answer(200, plural=plural, verb="list", times=times, body=b"")

    def compact(self) -> None:
        """Forget what happened: a watch from before gets 410."""
        self._do(self.store.compact)

    def close_watches(self, plural: str = "") -> None:
        """End them as the server does by itself every few minutes."""
        self._do(lambda: self._api.end_watches(plural))

    def emit(self, plural: str, kind: str, obj: Object) -> None:
        """Tell watchers something that did not happen: a repeated, a late or a broken event."""
        self._do(lambda: self._api.tell(plural, line(kind, json.dumps(obj).encode())))

    def bookmark(self, plural: str = "") -> None:
        """Send every watcher a bookmark now."""
        self._do(lambda: self._api.bookmark(plural))

    def count(self, verb: str, plural: str = "") -> int:
        """How many such requests came."""
        return self._do(lambda: sum(r.verb == verb and plural in {"", r.plural} for r in self.requests))

    def watching(self, plural: str = "") -> int:
        """How many watches there are now."""
        shelves = [self.shelf(plural)] if plural else list(self.store.shelves.values())
        return self._do(lambda: sum(len(some) for shelf in shelves for some in shelf.watchers.values()))
