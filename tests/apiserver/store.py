"""What an API server holds: objects, their versions, what happened to them, and who watches. One thread at a time.

Objects are replaced and never changed in place, so history, answers and watchers share them; each is encoded once.
"""

import copy
import datetime as dt
import json
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.apiserver.resources import Resource
from tests.apiserver.rules import Object, Owners, Writer, applied, managed_fields, refuse, selects, updated

Name = tuple[str, str]
_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink")


class Entry:
    """One version of an object, and who owns which of its fields."""

    __slots__ = ("_body", "obj", "owners", "version")

    def __init__(self, obj: Object, owners: Owners, version: int) -> None:
        self.obj, self.owners, self.version = obj, owners, version
        self._body = b""

    @property
    def body(self) -> bytes:
        self._body = self._body or json.dumps(self.obj).encode()
        return self._body


@dataclass(frozen=True, slots=True)
class Happened:
    """What became of one object; `before` is None for a new one."""

    version: int
    type: str
    entry: Entry
    before: Entry | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects a list or a watch is about; '' = all."""

    namespace: str = ""
    name: str = ""
    labels: str = ""

    def has(self, obj: Object) -> bool:
        meta = obj["metadata"]
        return (
            (not self.namespace or meta.get("namespace") == self.namespace)
            and (not self.name or meta["name"] == self.name)
            and (not self.labels or selects(self.labels, meta.get("labels") or {}))
        )

    def seen(self, happened: Happened) -> str:
        """What a watcher of this selection is told: the type of an event, or '' for nothing."""
        was = happened.before is not None and self.has(happened.before.obj)
        is_in = happened.type != "DELETED" and self.has(happened.entry.obj)
        if is_in:
            return "MODIFIED" if was else "ADDED"
        return "DELETED" if was else ""


@dataclass
class Shelf:
    """All objects of one resource."""

    resource: Resource
    entries: dict[Name, Entry] = field(default_factory=dict)
    by_namespace: dict[str, dict[Name, Entry]] = field(default_factory=lambda: defaultdict(dict))
    history: deque[Happened] = field(default_factory=deque)
    forgotten: int = 0
    """The newest version that history no longer tells of."""
    watchers: dict[Name, list["Watcher"]] = field(default_factory=lambda: defaultdict(list))
    """By the one object they are about; under ("", "") those about many."""


class Watcher:
    """Somebody who is told what happens to a selection."""

    def __init__(self, shelf: Shelf, selection: Selection, tell: Callable[[bytes], None]) -> None:
        self.shelf, self.selection, self.tell = shelf, selection, tell
        self._key = (selection.namespace, selection.name) if selection.namespace and selection.name else ("", "")
        shelf.watchers[self._key].append(self)

    def leave(self) -> None:
        others = self.shelf.watchers[self._key]
        others.remove(self)
        if not others:
            del self.shelf.watchers[self._key]

    def take(self, happened: Happened) -> None:
        if seen := self.selection.seen(happened):
            self.tell(line(seen, happened.entry.body))


def line(kind: str, body: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), body)


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Every shelf, and the one counter of versions."""

    def __init__(self, resources: Iterable[Resource], *, history: int = 20_000) -> None:
        self.shelves = {(one.group, one.version, one.plural): Shelf(one) for one in resources}
        self.version = 1
        self._history = history
        self._alive: set[str] = set()
        self._owned: dict[str, set[tuple[str, str, str, str, str]]] = defaultdict(set)

    def find(self, shelf: Shelf, namespace: str, name: str) -> Entry:
        entry = shelf.entries.get((namespace, name))
        if entry is None:
            plural = f"{shelf.resource.plural}.{shelf.resource.group}".rstrip(".")
            refuse(404, "NotFound", f'{plural} "{name}" not found')
        return entry

    def select(self, shelf: Shelf, selection: Selection) -> list[Entry]:
        """Every entry of a selection, in the order of their keys."""
        if selection.namespace and selection.name:
            entry = shelf.entries.get((selection.namespace, selection.name))
            return [entry] if entry and selection.has(entry.obj) else []
        pool = shelf.by_namespace.get(selection.namespace, {}) if selection.namespace else shelf.entries
        found = (pool[key] for key in sorted(pool))
        return [one for one in found if selection.has(one.obj)] if selection.name or selection.labels else list(found)

    def create(self, shelf: Shelf, obj: Object, writer: Writer) -> Entry:
        obj = self._prepared(shelf, copy.deepcopy(obj))
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        if key in shelf.entries:
            plural = f"{shelf.resource.plural}.{shelf.resource.group}".rstrip(".")
            refuse(409, "AlreadyExists", f'{plural} "{key[1]}" already exists')
        if shelf.resource.has_status and shelf.resource.is_custom:
            obj.pop("status", None)
        for name in (*_KEPT, "resourceVersion", "managedFields"):
            meta.pop(name, None)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if shelf.resource.is_custom:
            meta["generation"] = 1
        obj = shelf.resource.admitted(obj)
        return self._store(shelf, obj, updated({}, writer, {}, obj), None)

    def update(self, shelf: Shelf, old: Entry, new: Object, writer: Writer, *, owners: Owners | None = None) -> Entry:
        """`new` in place of `old`, as far as the request's part of the object goes. `owners`: of an apply."""
        new = self._within(shelf, old, copy.deepcopy(new), subresource=writer[2])
        meta, before = new["metadata"], old.obj["metadata"]
        if before.get("deletionTimestamp") and set(meta.get("finalizers") or ()) - set(before.get("finalizers") or ()):
            text = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted"
            refuse(422, "Invalid", text)
        new = shelf.resource.admitted(new)
        owners = updated(old.owners, writer, old.obj, new) if owners is None else owners
        if _content(new) == _content(old.obj) and owners == old.owners:
            return old
        if shelf.resource.is_custom and _of_generation(new, shelf) != _of_generation(old.obj, shelf):
            meta = new["metadata"]
            meta["generation"] = before.get("generation", 0) + 1
        if before.get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            return self._remove(shelf, Entry(new, owners, 0), old)
        return self._store(shelf, new, owners, old)

    def apply(self, shelf: Shelf, old: Entry | None, config: Object, writer: Writer, *, force: bool) -> Entry:
        if old is None:
            return self.create(shelf, config, writer)
        if config.get("metadata", {}).get("uid", old.obj["metadata"]["uid"]) != old.obj["metadata"]["uid"]:
            refuse(409, "Conflict", "uid mismatch")
        config = copy.deepcopy(config)
        if shelf.resource.has_status and shelf.resource.is_custom and writer[2] != "status":
            config.pop("status", None)
        new, owners = applied(old.obj, old.owners, writer, config, force=force)
        return self.update(shelf, old, new, writer, owners=owners)

    def delete(self, shelf: Shelf, entry: Entry, *, uid: str = "", version: str = "", orphan: bool = False) -> Entry:
        meta = entry.obj["metadata"]
        if uid and uid != meta["uid"]:
            text = f"the UID in the precondition ({uid}) does not match the UID in record ({meta['uid']})"
            refuse(
                409, "Conflict", f"Precondition failed: {text}. The object might have been deleted and then recreated"
            )
        if version and version != meta["resourceVersion"]:
            refuse(409, "Conflict", "Precondition failed: the resourceVersion moved")
        if orphan:
            self._owned.pop(meta["uid"], None)
        if not meta.get("finalizers"):
            return self._remove(shelf, Entry(copy.deepcopy(entry.obj), entry.owners, 0), entry)
        if meta.get("deletionTimestamp"):
            return entry
        obj = copy.deepcopy(entry.obj)
        obj["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": 0}
        if shelf.resource.is_custom:
            obj["metadata"]["generation"] = meta.get("generation", 0) + 1
        return self._store(shelf, obj, entry.owners, entry)

    def since(self, shelf: Shelf, version: int) -> Iterator[Happened]:
        """What happened after `version`; 410 when that is no longer known."""
        if version < shelf.forgotten:
            refuse(410, "Expired", f"too old resource version: {version} ({self.version})")
        first = len(shelf.history)
        while first and shelf.history[first - 1].version > version:
            first -= 1
        return (shelf.history[index] for index in range(first, len(shelf.history)))

    def compact(self) -> None:
        """Forget what happened so far."""
        self.version += 1
        for shelf in self.shelves.values():
            shelf.history.clear()
            shelf.forgotten = self.version

    def _prepared(self, shelf: Shelf, obj: Object) -> Object:
        resource = shelf.resource
        if obj.setdefault("apiVersion", resource.api_version) != resource.api_version:
            refuse(400, "BadRequest", f"the API version in the data ({obj['apiVersion']}) does not match the expected")
        if obj.setdefault("kind", resource.kind) != resource.kind:
            refuse(400, "BadRequest", f"the kind in the data ({obj['kind']}) does not match the expected")
        meta = obj.setdefault("metadata", {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        if not meta.get("name"):
            refuse(422, "Invalid", "metadata.name: Required value: name or generateName is required")
        if resource.plural == "secrets":
            for name, value in (obj.pop("stringData", None) or {}).items():
                import base64

                obj.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()
            obj.setdefault("type", "Opaque")
        return obj

    def _within(self, shelf: Shelf, old: Entry, new: Object, *, subresource: str) -> Object:
        """`new` without what this request may not change; 409 and 422 for what it must not name."""
        meta, before = new.setdefault("metadata", {}), old.obj["metadata"]
        if meta.get("uid", before["uid"]) != before["uid"]:
            refuse(409, "Conflict", "Precondition failed: UID in precondition does not match the UID in object meta")
        if meta.get("resourceVersion", before["resourceVersion"]) != before["resourceVersion"]:
            text = "the object has been modified; please apply your changes to the latest version and try again"
            refuse(409, "Conflict", f'Operation cannot be fulfilled on "{before["name"]}": {text}')
        if shelf.resource.has_status and subresource == "status":
            status = new.get("status")
            new = {name: value for name, value in old.obj.items() if name != "status"}
            new["metadata"] = dict(before)
            return new | ({"status": status} if status is not None else {})
        if shelf.resource.has_status and shelf.resource.is_custom:
            new.pop("status", None)
            new |= {"status": old.obj["status"]} if "status" in old.obj else {}
        for name in (*_KEPT, "resourceVersion", "name", "namespace"):
            meta.pop(name, None)
            meta |= {name: before[name]} if name in before else {}
        return self._prepared(shelf, new)

    def _store(self, shelf: Shelf, obj: Object, owners: Owners, before: Entry | None) -> Entry:
        self.version += 1
        meta = obj["metadata"] = dict(obj["metadata"])
        meta["resourceVersion"] = str(self.version)
        if owners:
            meta["managedFields"] = managed_fields(owners, shelf.resource.api_version, now())
        entry = Entry(obj, owners, self.version)
        key = (meta.get("namespace", ""), meta["name"])
        shelf.entries[key] = shelf.by_namespace[key[0]][key] = entry
        self._alive.add(meta["uid"])
        self._tell(shelf, Happened(self.version, "MODIFIED" if before else "ADDED", entry, before))
        self._note_owners(shelf, entry, key)
        return entry

    def _remove(self, shelf: Shelf, entry: Entry, before: Entry) -> Entry:
        self.version += 1
        meta = entry.obj["metadata"]
        meta["resourceVersion"] = str(self.version)
        key = (meta.get("namespace", ""), meta["name"])
        del shelf.entries[key], shelf.by_namespace[key[0]][key]
        self._alive.discard(meta["uid"])
        entry = Entry(entry.obj, entry.owners, self.version)
        self._tell(shelf, Happened(self.version, "DELETED", entry, before))
        for group, version, plural, namespace, name in sorted(self._owned.pop(meta["uid"], ())):
            self._collect(self.shelves[group, version, plural], (namespace, name))
        return entry

    def _tell(self, shelf: Shelf, happened: Happened) -> None:
        shelf.history.append(happened)
        if len(shelf.history) > self._history:
            shelf.forgotten = shelf.history.popleft().version
        meta = happened.entry.obj["metadata"]
        for key in {("", ""), (meta.get("namespace", ""), meta["name"])}:
            for watcher in tuple(shelf.watchers.get(key, ())):
                watcher.take(happened)

    def _note_owners(self, shelf: Shelf, entry: Entry, key: Name) -> None:
        """Remember for whose sake the object is there; without any of them it goes, as the garbage collector does."""
        uids = {one["uid"] for one in entry.obj["metadata"].get("ownerReferences") or ()}
        resource = shelf.resource
        for uid in uids:
            self._owned[uid].add((resource.group, resource.version, resource.plural, *key))
        if uids and not uids & self._alive:
            self._collect(shelf, key)

    def _collect(self, shelf: Shelf, key: Name) -> None:
        entry = shelf.entries.get(key)
        owners = entry.obj["metadata"].get("ownerReferences") or () if entry else ()
        if entry and owners and not any(one["uid"] in self._alive for one in owners):
            self.delete(shelf, entry)


def _content(obj: Object) -> Object:
    meta = {name: value for name, value in obj["metadata"].items() if name not in {"resourceVersion", "managedFields"}}
    return obj | {"metadata": meta}


def _of_generation(obj: Object, shelf: Shelf) -> Any:
    """What makes a new generation when it changes: all but metadata, and but the status where it is apart."""
    left_out = {"metadata", "status"} if shelf.resource.has_status else {"metadata"}
    return {name: value for name, value in obj.items() if name not in left_out}
