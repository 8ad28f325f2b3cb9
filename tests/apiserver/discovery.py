"""Which paths there are, and the documents that tell clients of them."""

from collections.abc import Mapping
from typing import NamedTuple

from tests.apiserver.resources import Resource
from tests.apiserver.rules import Object, Refusal, refuse
from tests.apiserver.store import Shelf

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
Shelves = Mapping[tuple[str, str, str], Shelf]


class Where(NamedTuple):
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def resolve(path: str, shelves: Shelves) -> tuple[Shelf | None, Where]:
    """The shelf that a path is about, and which part of it; None for a path of discovery."""
    parts = path.strip("/").split("/")
    match parts:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return None, Where()
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    shelf = shelves.get((group, version, rest[0]))
    subresource = rest[2] if len(rest) > 2 else ""
    if shelf is None or subresource not in ({"", "status"} if shelf.resource.has_status else {""}):
        refuse(404, "NotFound", "the server could not find the requested resource")
    return shelf, Where(namespace, rest[1] if len(rest) > 1 else "", subresource)


def document(path: str, shelves: Shelves) -> Object:
    resources = [shelf.resource for shelf in shelves.values()]
    match path.strip("/").split("/"):
        case ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0-test", "platform": "test"}
        case ["healthz" | "readyz" | "livez"]:
            return {"status": "ok"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(resources)}
        case ["api", version]:
            return _list("", version, resources)
        case ["apis", group, version]:
            return _list(group, version, resources)
        case _:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")


def _groups(resources: list[Resource]) -> list[Object]:
    versions: dict[str, list[Object]] = {}
    for one in resources:
        entry = {"groupVersion": one.api_version, "version": one.version}
        if one.group and entry not in versions.setdefault(one.group, []):
            versions[one.group].append(entry)
    return [{"name": group, "versions": some, "preferredVersion": some[0]} for group, some in versions.items()]


def _list(group: str, version: str, resources: list[Resource]) -> Object:
    listed: list[Object] = []
    for one in resources:
        if (one.group, one.version) == (group, version):
            entry = {"name": one.plural, "kind": one.kind, "namespaced": one.is_namespaced, "verbs": _VERBS}
            listed.append(entry | {"singularName": one.kind.lower(), "shortNames": list(one.short_names)})
            if one.has_status:
                part = {"name": f"{one.plural}/status", "kind": one.kind, "namespaced": one.is_namespaced}
                listed.append(part | {"singularName": "", "verbs": ["get", "patch", "update"]})
    if not listed:
        refuse(404, "NotFound", "the server could not find the requested resource")
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": listed,
    }
