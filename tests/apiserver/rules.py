"""What an API server does to one object: merge patches, server-side apply, ownership of fields, labels. Pure.

Source: Kubernetes API concepts, "Server-Side Apply"; RFC 7386 (merge patch), RFC 6902 (JSON patch).
"""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

Object = dict[str, Any]
Path = tuple[Any, ...]
Writer = tuple[str, str, str]
"""Field manager, operation (Apply or Update), subresource."""
Owners = dict[Writer, frozenset[Path]]


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


def refuse(status: int, reason: str, message: str) -> NoReturn:
    raise Refusal(status, reason, message)


def merged(old: Any, change: Any) -> Any:
    """RFC 7386."""
    if not isinstance(change, dict):
        return change
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def json_patched(old: Object, change: Any) -> Object:
    """RFC 6902; a failed test is 422, as the real one answers."""
    import jsonpatch

    try:
        return jsonpatch.JsonPatch(change).apply(copy.deepcopy(old))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, KeyError, TypeError) as exc:
        refuse(422, "Invalid", f"the server rejected our request due to an error in our request: {exc}")


# Lists that are maps or sets by their kind; every other list is one value.
_LISTS: dict[Path, tuple[str, ...]] = {
    ("metadata", "ownerReferences"): ("uid",),
    ("metadata", "finalizers"): (),
    ("status", "conditions"): ("type",),
}


def _items(path: Path, value: Any) -> dict[Any, Any] | None:
    """The parts of a value that are owned apart, by their step in a path; None when it is owned whole."""
    if isinstance(value, dict):
        return value
    plain = tuple(step for step in path if isinstance(step, str))
    if not isinstance(value, list) or plain not in _LISTS:
        return None
    keys = _LISTS[plain]
    if keys:
        return {("k", *(item.get(key) for key in keys)): item for item in value}
    return {("v", item): item for item in value}


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that can have an owner, but what the server itself writes."""
    parts = _items(path, value)
    if not parts:
        yield path, value
        return
    for step, item in parts.items():
        where = (*path, step)
        if where not in _NOBODYS:
            yield from leaves(item, where)


_NOBODYS = {
    ("apiVersion",),
    ("kind",),
    *(("metadata", name) for name in ("name", "namespace", "uid", "resourceVersion", "generation")),
    *(("metadata", name) for name in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")),
    *(("metadata", name) for name in ("managedFields", "selfLink", "generateName")),
}


def updated(owners: Owners, writer: Writer, old: Object, new: Object) -> Owners:
    """Who owns what after a write that was no apply: what changed is the writer's alone, what went is nobody's."""
    before, after = dict(leaves(old)), dict(leaves(new))
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    result = {
        one: kept for one, paths in owners.items() if (kept := frozenset(p for p in paths if p in after) - changed)
    }
    if changed:
        result[writer] = result.get(writer, frozenset()) | changed
    return result


def applied(old: Object, owners: Owners, writer: Writer, config: Object, *, force: bool) -> tuple[Object, Owners]:
    """The object and its owners after a server-side apply of `config`."""
    before, wanted = dict(leaves(old)), dict(leaves(config))
    clashes = sorted(
        f"conflict with {one[0]!r}: {'.'.join(map(str, path))}"
        for path, value in wanted.items()
        for one, paths in owners.items()
        if one != writer and path in paths and before.get(path) != value
    )
    if clashes and not force:
        refuse(409, "Conflict", f"Apply failed with {len(clashes)} conflict(s): {'; '.join(clashes)}")
    dropped = owners.get(writer, frozenset()) - set(wanted)
    new = copy.deepcopy(old)
    for path in dropped:
        if not any(path in paths for one, paths in owners.items() if one != writer):
            _drop(new, path)
    for path, value in wanted.items():
        _set(new, path, copy.deepcopy(value))
    lost = {path for path, value in wanted.items() if before.get(path) != value}
    result = {one: kept for one, paths in owners.items() if one != writer and (kept := paths - lost)}
    result[writer] = frozenset(wanted)
    return new, result


def _drop(value: Any, path: Path) -> None:
    """Take the field away, and every map above it that is empty then."""
    trail = [value]
    for step in path[:-1]:
        value = _part(value, step)
        if value is None:
            return
        trail.append(value)
    for place, step in reversed(list(zip(trail, path, strict=True))):
        if isinstance(place, dict):
            place.pop(step, None)
        else:
            index = _index(place, step)
            if index is not None:
                del place[index]
        if place:
            return


def _set(value: Any, path: Path, leaf: Any) -> None:
    """Have `leaf` at `path`, with all that has to stand above it; an empty map or list takes nothing away."""
    for depth, step in enumerate(path[:-1]):
        inner = _part(value, step)
        if not isinstance(inner, dict | list):
            inner = _empty(path[: depth + 1], path[depth + 1])
            _put(value, step, inner)
        value = inner
    if leaf not in ({}, []) or not isinstance(_part(value, path[-1]), dict | list):
        _put(value, path[-1], leaf)


def _empty(path: Path, following: Any) -> Any:
    """What has to stand at `path` so that the step `following` fits beneath: an item of a list knows its keys."""
    step = path[-1]
    if isinstance(step, tuple):
        plain = tuple(one for one in path if isinstance(one, str))
        return dict(zip(_LISTS[plain], step[1:], strict=True))
    return [] if isinstance(following, tuple) else {}


def _part(value: Any, step: Any) -> Any:
    if isinstance(value, dict):
        return value.get(step)
    index = _index(value, step)
    return None if index is None else value[index]


def _put(value: Any, step: Any, inner: Any) -> None:
    if isinstance(value, dict):
        value[step] = inner
        return
    index = _index(value, step)
    if step[0] == "v":
        inner = step[1]
    if index is None:
        value.append(inner)
    else:
        value[index] = inner


def _index(items: list[Any], step: Any) -> int | None:
    for index, item in enumerate(items):
        if step[0] == "v":
            if item == step[1]:
                return index
        elif isinstance(item, dict) and any(
            tuple(item.get(key) for key in keys) == step[1:] for keys in _LISTS.values() if len(keys) == len(step) - 1
        ):
            return index
    return None


def managed_fields(owners: Owners, api_version: str, time: str) -> list[Object]:
    """`metadata.managedFields` as the API server writes it, with the times of now."""
    return [
        {
            "manager": manager,
            "operation": operation,
            "apiVersion": api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(paths),
            **({"subresource": subresource} if subresource else {}),
        }
        for (manager, operation, subresource), paths in sorted(owners.items())
    ]


def _tree(paths: frozenset[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths, key=str):
        place = tree
        for step in path:
            name = f"f:{step}" if isinstance(step, str) else f"{step[0]}:{step[1]}"
            place = place.setdefault(name, {})
    return tree


_SET_TERM = re.compile(r"^(?P<name>[^ !=]+) +(?P<how>in|notin) *\((?P<values>[^)]*)\)$")


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether a labelSelector in its text form selects these labels."""
    return all(_term(term.strip(), labels) for term in re.split(r",(?![^(]*\))", selector) if term.strip())


def _term(term: str, labels: Mapping[str, str]) -> bool:
    if found := _SET_TERM.match(term):
        values = {value.strip() for value in found["values"].split(",")}
        return (labels.get(found["name"]) in values) == (found["how"] == "in")
    for sign, is_equal in (("!=", False), ("==", True), ("=", True)):
        if sign in term:
            name, value = term.split(sign, 1)
            return (labels.get(name.strip()) == value.strip()) == is_equal
    if term.startswith("!"):
        return term[1:].strip() not in labels
    return term in labels
