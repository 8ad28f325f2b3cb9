"""Fields of Kubernetes objects, read without trust: what has another type than expected counts as absent. Pure.

Whoever may write an object may write anything into it where its schema lets him, and other schemas than ours are
installed too. Never: an exception because of an object's content.
Source: Kubernetes' object metadata; RFC 3339 times; names as RFC 1123 subdomains.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Object = Mapping[str, Any]

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)*")
_MAX_NAME = 253


def at(found: Object | None, *path: str) -> Any:
    """What stands at a path of keys; None where a step is missing or no mapping."""
    here: Any = found
    for key in path:
        if not isinstance(here, Mapping):
            return None
        here = here.get(key)
    return here


def text(found: Object | None, *path: str) -> str:
    """The string at a path, else ''."""
    here = at(found, *path)
    return here if isinstance(here, str) else ""


def number(found: Object | None, *path: str) -> int:
    """The whole number at a path, else 0; never below 0."""
    here = at(found, *path)
    return max(0, here) if isinstance(here, int) and not isinstance(here, bool) else 0


def mapping(found: Object | None, *path: str) -> Object:
    """The mapping at a path, else an empty one."""
    here = at(found, *path)
    return here if isinstance(here, Mapping) else {}


def mappings(found: Object | None, *path: str) -> tuple[Object, ...]:
    """The mappings in the list at a path."""
    here = at(found, *path)
    return tuple(one for one in here if isinstance(one, Mapping)) if _is_list(here) else ()


def texts(found: Object | None, *path: str) -> tuple[str, ...]:
    """The strings in the list at a path."""
    here = at(found, *path)
    return tuple(one for one in here if isinstance(one, str)) if _is_list(here) else ()


def name_of(found: Object | None) -> str:
    return text(found, "metadata", "name")


def uid_of(found: Object | None) -> str:
    return text(found, "metadata", "uid")


def is_leaving(found: Object | None) -> bool:
    """Whether the object is deleted, and only its finalizers still hold it."""
    return bool(text(found, "metadata", "deletionTimestamp"))


def is_name(word: str) -> bool:
    """Whether an object can have this name: nothing else may become a part of a request's path."""
    return len(word) <= _MAX_NAME and _NAME.fullmatch(word) is not None


def moment(word: str) -> datetime | None:
    """A time with its zone; None for anything else."""
    try:
        found = datetime.fromisoformat(word)
    except ValueError:
        return None
    return found if found.tzinfo else None


def stamp(when: datetime) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_list(here: Any) -> bool:
    return isinstance(here, Sequence) and not isinstance(here, str | bytes)
