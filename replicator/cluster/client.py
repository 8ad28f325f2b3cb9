"""What may be asked of the API server: objects and lists of them, writes, and watches.

Owns: which path, verb and form each takes. Never: retries, what an object says.
Source: Kubernetes API concepts (paging, watch, bookmarks, server-side apply); RFC 7386 for merge patches.
"""

import contextlib
import random
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, NamedTuple, Self

from replicator.cluster.access import Access
from replicator.cluster.connection import Connection, fault
from replicator.cluster.kinds import Kind, Object
from replicator.errors import ClusterError, Unreachable

PAGE_LIMIT = 500
"""Objects a page of a list; the usual number of Kubernetes' own clients."""
ANSWER_S = 30.0
"""A whole answer, but for watches; those may be silent for as long after their end."""
WATCH_S = 300
"""Until the server ends a watch by itself; up to a fifth more, so that not all end together."""

_MERGE_PATCH, _APPLY_PATCH = "application/merge-patch+json", "application/apply-patch+yaml"


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

    def __init__(self, access: Access, *, answer_s: float = ANSWER_S) -> None:
        self.access = access
        self._answer_s = answer_s
        self._connection = Connection(access, answer_s=answer_s)

    async def __aenter__(self) -> Self:
        self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object as it is now; None when there is none."""
        try:
            return await self._connection.ask("GET", kind.path(namespace, name))
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
            page = await self._connection.ask("GET", kind.path(namespace), query=query)
            meta = _meta(page, f"list {kind.plural}")
            # In a list, objects of built-in kinds do not say what they are.
            for item in page.get("items") or ():
                _meta(item, f"list {kind.plural}")
                items.append({"apiVersion": kind.api_version, "kind": kind.kind} | item)
            if not meta.get("continue"):
                return Listing(items, str(meta.get("resourceVersion", "")))
            query["continue"] = str(meta["continue"])

    async def create(self, kind: Kind, obj: Object) -> Object:
        """Conflict when there is one of that name."""
        return await self._connection.ask("POST", kind.path(obj["metadata"].get("namespace", "")), body=obj)

    async def replace(self, kind: Kind, obj: Object) -> Object:
        """Put this in the place of the version that `metadata.resourceVersion` names; Conflict when it moved."""
        meta = obj["metadata"]
        return await self._connection.ask("PUT", kind.path(meta.get("namespace", ""), meta["name"]), body=obj)

    async def apply(self, kind: Kind, obj: Object, *, manager: str, force: bool = False) -> Object:
        """Server-side apply: what `obj` says is ours from now on, what it no longer says goes.

        Conflict when a field belongs to another field manager, unless `force`d.
        """
        meta = obj["metadata"]
        body = {"apiVersion": kind.api_version, "kind": kind.kind} | obj
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        path = kind.path(meta.get("namespace", ""), meta["name"])
        return await self._connection.ask("PATCH", path, query=query, body=body, content_type=_APPLY_PATCH)

    async def patch(self, kind: Kind, namespace: str, name: str, change: Object, *, subresource: str = "") -> Object:
        """JSON merge patch: None removes a field. With a resourceVersion in it, Conflict when the object moved."""
        path = kind.path(namespace, name, subresource)
        return await self._connection.ask("PATCH", path, body=change, content_type=_MERGE_PATCH)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """It goes, at once or when its finalizers are gone. Missing is fine; Conflict when it has another `uid`."""
        body = {"preconditions": {"uid": uid}} if uid else {}
        try:
            await self._connection.ask("DELETE", kind.path(namespace, name), body=body)
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
        seconds = WATCH_S + round(random.uniform(0, WATCH_S / 5))  # noqa: S311 -- a spread, no secret
        query = _selection(name, labels) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            **({"resourceVersion": version} if version else {}),
        }
        lines = self._connection.stream(path, query, silence_s=seconds + self._answer_s)
        async with contextlib.aclosing(lines):
            async for event in lines:
                obj = event.get("object")
                if not isinstance(obj, dict):
                    raise Unreachable(f"watch {path}: an event without an object")
                if event.get("type") == "ERROR":
                    raise fault(obj.get("code"), obj, f"watch {path}")
                _meta(obj, f"watch {path}")
                yield Event(str(event.get("type", "")), obj)


def _meta(obj: Any, what: str) -> Object:
    """The object's metadata; Unreachable when it is no object of Kubernetes, as from a gateway in between."""
    meta = obj.get("metadata") if isinstance(obj, dict) else None
    if not isinstance(meta, dict):
        raise Unreachable(f"{what}: something that is no Kubernetes object")
    return meta


def _selection(name: str, labels: str) -> dict[str, str]:
    return {
        **({"fieldSelector": f"metadata.name={name}"} if name else {}),
        **({"labelSelector": labels} if labels else {}),
    }
