"""HTTP around the store: paths, verbs, discovery, lists in pages, and watches."""

import asyncio
import base64
import contextlib
import json
from collections import deque
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import web

from tests.apiserver import discovery
from tests.apiserver.rules import Object, Refusal, Writer, json_patched, merged, refuse
from tests.apiserver.store import Entry, Selection, Shelf, Watcher, line

if TYPE_CHECKING:
    from tests.apiserver.server import Answer, ApiServer, Request

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_JSON = "application/json"


class Stream:
    """What one watcher is still to be told."""

    def __init__(self, watcher_of: tuple[Shelf, Selection], *, bookmarks: bool) -> None:
        self.lines: deque[bytes] = deque()
        self.wake = asyncio.Event()
        self.is_over = False
        self.bookmarks = bookmarks
        self.watcher = Watcher(*watcher_of, self.tell)

    def tell(self, one: bytes) -> None:
        self.lines.append(one)
        self.wake.set()

    def end(self) -> None:
        self.is_over = True
        self.wake.set()

    def taken(self) -> bytes:
        self.wake.clear()
        body = b"".join(self.lines)
        self.lines.clear()
        return body


class Api:
    """Answers requests, one after the other on the server's thread."""

    def __init__(self, server: "ApiServer") -> None:
        self._server = server
        self._streams: set[Stream] = set()

    async def answer(self, http: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(http)
        except Refusal as exc:
            return _failure(exc.status, exc.reason, str(exc))

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        from tests.apiserver.server import Request

        store = self._server.store
        shelf, where = discovery.resolve(http.path, store.shelves)
        body = _body(http.content_type, await http.read())
        query = dict(http.query)
        token = http.headers.get("Authorization", "").removeprefix("Bearer ")
        verb = _VERBS.get(http.method) or ("get" if where.name else "watch" if _is_on(query, "watch") else "list")
        if http.content_type == "application/apply-patch+yaml":
            verb = "apply"
        plural = shelf.resource.plural if shelf else ""
        request = Request(verb, plural, *where, http.method, http.path, query, token, body)
        self._server.requests.append(request)
        if self._server.tokens and token not in self._server.tokens:
            refuse(401, "Unauthorized", "Unauthorized")
        if scripted := next((one for one in self._server.answers if one.fits(request)), None):
            scripted.times -= 1
            await asyncio.sleep(scripted.delay_s)
            if scripted.status:
                return self._scripted(scripted, shelf)
        if shelf is None:
            return web.json_response(discovery.document(http.path, store.shelves))
        if verb == "watch":
            return await self._watch(http, shelf, _selection(request))
        if verb == "list":
            return self._list(shelf, request)
        entry = self._done(shelf, request, http)
        return web.Response(body=entry.body, content_type=_JSON, status=201 if verb == "create" else 200)

    def _scripted(self, answer: "Answer", shelf: Shelf | None) -> web.Response:
        if answer.status == 200 and answer.body == b"" and shelf:
            return web.Response(body=self._page(shelf, [], "", ""), content_type=_JSON)
        if answer.body is not None:
            return web.Response(body=answer.body, status=answer.status, content_type=_JSON)
        return _failure(answer.status, answer.reason, answer.message)

    def _done(self, shelf: Shelf, request: "Request", http: web.Request) -> Entry:
        """One object read or written."""
        store = self._server.store
        namespace, name = request.namespace, request.name
        if request.verb == "get":
            return store.find(shelf, namespace, name)
        agent = http.headers.get("User-Agent", "unknown").split("/")[0]
        operation = "Apply" if request.verb == "apply" else "Update"
        writer: Writer = (request.query.get("fieldManager") or agent, operation, request.subresource)
        if request.verb == "create":
            meta = request.body.setdefault("metadata", {})
            if meta.setdefault("namespace", namespace) != namespace and namespace:
                refuse(400, "BadRequest", "the namespace of the provided object does not match the request")
            return store.create(shelf, request.body, writer)
        if request.verb == "apply":
            return self._applied(shelf, request, writer)
        entry = store.find(shelf, namespace, name)
        if request.verb == "delete":
            options = request.body or {}
            wanted = options.get("preconditions") or {}
            policy = options.get("propagationPolicy") or request.query.get("propagationPolicy")
            return store.delete(
                shelf,
                entry,
                uid=wanted.get("uid", ""),
                version=wanted.get("resourceVersion", ""),
                orphan=policy == "Orphan",
            )
        if request.verb == "update":
            _check_put(shelf, entry, request.body)
            return store.update(shelf, entry, request.body, writer)
        patch = {"application/merge-patch+json": merged, "application/json-patch+json": json_patched}
        if http.content_type not in patch:
            refuse(
                415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {http.content_type}"
            )
        new = patch[http.content_type](entry.obj, request.body)
        return store.update(shelf, entry, new, writer)

    def _applied(self, shelf: Shelf, request: "Request", writer: Writer) -> Entry:
        if not request.query.get("fieldManager"):
            refuse(400, "BadRequest", "PatchOptions.meta.k8s.io is invalid: fieldManager: is required for apply patch")
        config: Object = request.body
        meta = config.setdefault("metadata", {})
        meta |= {"name": request.name, **({"namespace": request.namespace} if request.namespace else {})}
        if meta.pop("managedFields", None):
            refuse(400, "BadRequest", "metadata.managedFields must be nil")
        old = shelf.entries.get((request.namespace, request.name))
        return self._server.store.apply(shelf, old, config, writer, force=_is_on(request.query, "force"))

    # Lists

    def _list(self, shelf: Shelf, request: "Request") -> web.Response:
        store = self._server.store
        found = store.select(shelf, _selection(request))
        version, start = str(store.version), 0
        if token := request.query.get("continue"):
            version, *after = json.loads(base64.b64decode(token))
            if int(version) < shelf.forgotten:
                refuse(410, "Expired", "The provided continue parameter is too old to display a consistent list result")
            found = [one for one in found if _key(one) > tuple(after)]
        limit = int(request.query.get("limit") or 0)
        more = ""
        if limit and len(found) > limit:
            found = found[start:limit]
            more = base64.b64encode(json.dumps([version, *_key(found[-1])]).encode()).decode()
        return web.Response(body=self._page(shelf, found, version, more), content_type=_JSON)

    def _page(self, shelf: Shelf, found: list[Entry], version: str, more: str) -> bytes:
        meta = {"resourceVersion": version or str(self._server.store.version), **({"continue": more} if more else {})}
        head = {"apiVersion": shelf.resource.api_version, "kind": f"{shelf.resource.kind}List", "metadata": meta}
        bodies = b",".join(one.body for one in found)
        return json.dumps(head).encode()[:-1] + b',"items":[' + bodies + b"]}"

    # Watches

    async def _watch(self, http: web.Request, shelf: Shelf, selection: Selection) -> web.StreamResponse:
        query = http.query
        stream = Stream((shelf, selection), bookmarks=_is_on(query, "allowWatchBookmarks"))
        self._streams.add(stream)
        try:
            self._begin(shelf, selection, stream, query)
            answer = web.StreamResponse(headers={"Content-Type": _JSON})
            await answer.prepare(http)
            seconds = float(query.get("timeoutSeconds") or 1800)
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(seconds):
                    await self._pour(stream, answer)
            with contextlib.suppress(ConnectionError):
                await answer.write_eof()
            return answer
        finally:
            self._streams.discard(stream)
            stream.watcher.leave()

    def _begin(self, shelf: Shelf, selection: Selection, stream: Stream, query: Any) -> None:
        """What is told first: all there is when no version is named, else what happened since."""
        store, version = self._server.store, query.get("resourceVersion", "")
        if version in {"", "0"}:
            for one in store.select(shelf, selection):
                stream.tell(line("ADDED", one.body))
            if _is_on(query, "sendInitialEvents"):
                stream.tell(_bookmark(shelf, store.version, {"k8s.io/initial-events-end": "true"}))
            return
        if not version.isdecimal():
            refuse(400, "BadRequest", "invalid resource version")
        try:
            for happened in store.since(shelf, int(version)):
                stream.watcher.take(happened)
        except Refusal as exc:  # the real one answers 200, and tells it as an event
            stream.tell(line("ERROR", json.dumps(_told(exc.status, exc.reason, str(exc))).encode()))
            stream.end()

    async def _pour(self, stream: Stream, answer: web.StreamResponse) -> None:
        while True:
            if body := stream.taken():
                await answer.write(body)
            if stream.is_over and not stream.lines:
                return
            try:
                async with asyncio.timeout(self._server.bookmark_s if stream.bookmarks else None):
                    await stream.wake.wait()
            except TimeoutError:
                stream.tell(_bookmark(stream.watcher.shelf, self._server.store.version))

    def end_watches(self, plural: str) -> None:
        for stream in self._of(plural):
            stream.end()

    def tell(self, plural: str, one: bytes) -> None:
        for stream in self._of(plural):
            stream.tell(one)

    def bookmark(self, plural: str) -> None:
        for stream in self._of(plural):
            stream.tell(_bookmark(stream.watcher.shelf, self._server.store.version))

    def _of(self, plural: str) -> list[Stream]:
        return [one for one in self._streams if plural in {"", one.watcher.shelf.resource.plural}]


def _bookmark(shelf: Shelf, version: int, annotations: Object | None = None) -> bytes:
    meta: Object = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = annotations
    obj = {"apiVersion": shelf.resource.api_version, "kind": shelf.resource.kind, "metadata": meta}
    return line("BOOKMARK", json.dumps(obj).encode())


def _key(entry: Entry) -> tuple[str, str]:
    meta = entry.obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _is_on(query: Any, name: str) -> bool:
    return query.get(name, "") in {"true", "1"}


def _selection(request: "Request") -> Selection:
    namespace, name = request.namespace, ""
    for term in filter(None, request.query.get("fieldSelector", "").split(",")):
        field, value = term.replace("==", "=").split("=", 1)
        if field == "metadata.name":
            name = value
        elif field == "metadata.namespace":
            namespace = value
        else:
            refuse(400, "BadRequest", f'field label not supported: "{field}"')
    return Selection(namespace, name, request.query.get("labelSelector", ""))


def _check_put(shelf: Shelf, entry: Entry, body: Object) -> None:
    meta = body.get("metadata") or {}
    if meta.get("name") != entry.obj["metadata"]["name"]:
        refuse(400, "BadRequest", "the name of the object does not match the name on the URL")
    if not meta.get("resourceVersion") and (shelf.resource.is_custom or shelf.resource.plural == "leases"):
        refuse(422, "Invalid", "metadata.resourceVersion: Invalid value: 0: must be specified for an update")


def _body(content_type: str, body: bytes) -> Any:
    if not body:
        return None
    try:
        value = json.loads(body)
    except ValueError:
        value = yaml.safe_load(body) if content_type.endswith("yaml") else None
    if not isinstance(value, dict | list):
        refuse(400, "BadRequest", "the object provided is unrecognized")
    return value


def _told(code: int, reason: str, message: str) -> Object:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return status | {"message": message, "reason": reason, "code": code}


def _failure(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(_told(code, reason, message), status=code)
