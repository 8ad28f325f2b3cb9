"""Words in files: read with a bound, parsed without trust.

Owns: the size limit (checked before a byte is read), YAML without aliases, duplicate keys or deep nesting, key-per-file
directories as Kubernetes mounts them, and the stamps that tell whether any of them changed.
Never: meaning. Every fault is one ConfigError that quotes no content, because the content may be a Secret.
"""

import contextlib
import os
import stat
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from replicator.errors import ConfigError

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml: ten times slower, the same answers
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

MAX_FILE_BYTES = 1024 * 1024
"""Kubernetes stores no object above 1.5 MiB; parsing takes a hundred times the memory."""

_MAX_DEPTH = 64
"""A Pod nests about 15 levels; the loader recurses once a level."""

_LOADER_FAULTS = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What PyYAML's constructors leak for scalars such as `!!timestamp x`, `!!int ''` or a month 13."""


def read_text(path: Path, *, at_most: int = MAX_FILE_BYTES) -> str:
    """The UTF-8 text of a regular file of at most so many bytes, without a byte order mark."""
    try:
        content = _read_bounded(path, at_most)
    except OSError as exc:
        raise _unreadable(path, f"cannot be read: {exc.strerror}") from None
    except ValueError:
        raise _unreadable(path, "cannot be read: not a legal file name") from None
    if len(content) > at_most:
        raise _too_large(path, at_most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(where=str(path), problem="is not UTF-8 text", fix="Save the file as UTF-8") from None


def _read_bounded(path: Path, at_most: int) -> bytes:
    # Without O_NONBLOCK a FIFO in this place would hold the process for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, "is not a regular file")
        if status.st_size > at_most:
            raise _too_large(path, at_most)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(at_most + 1)
    finally:
        os.close(descriptor)


def _unreadable(path: Path, problem: str) -> ConfigError:
    return ConfigError(where=str(path), problem=problem, fix="Check the path, the mount and the permissions")


def _too_large(path: Path, at_most: int) -> ConfigError:
    fix = "Split it, or check that this is the file you meant"
    return ConfigError(where=str(path), problem=f"is larger than {at_most} bytes", fix=fix)


def parse_yaml(text: str, *, where: str) -> list[Any]:
    """Every document of `text`; an empty one is None."""
    try:
        _refuse_bombs(text, where)
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        place = f"{where}: line {mark.line + 1}" if mark else where
        problem = getattr(exc, "problem", None) or getattr(exc, "reason", None) or "cannot be parsed"
        raise ConfigError(where=place, problem=f"not valid YAML, {problem}", fix="Correct the file") from None
    except _LOADER_FAULTS:
        problem = "holds a number, date or tagged value that cannot be read"
        raise ConfigError(where=where, problem=problem, fix="Put the value into quotes") from None


def _refuse_bombs(text: str, where: str) -> None:
    """Look at the parser's events before anything is built: a few lines of aliases can stand for gigabytes."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            problem = f"holds the YAML alias *{event.anchor}, and aliases are not accepted"
            raise ConfigError(where=where, problem=problem, fix="Write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ConfigError(where=where, problem=f"is nested deeper than {_MAX_DEPTH} levels", fix="Correct the file")


class _Loader(_SafeLoader):
    """The safe loader, which by itself lets the last of two equal keys win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def visible_names(directory: Path) -> list[str] | None:
    """The entries of `directory` without those that begin with '.', as Kubernetes' own `..data` does.

    None when there is no such directory.
    """
    try:
        return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise _unreadable(directory, f"cannot be listed: {exc.strerror}") from None


def stamps(paths: Iterable[Path]) -> Hashable:
    """A value that differs once any of these files or directories, or an entry of one, may have changed."""
    found = []
    for path in paths:
        found.append(_stamp(path))
        with contextlib.suppress(OSError, ValueError):
            found += [_stamp(entry) for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    return tuple(found)


def _stamp(path: Path) -> tuple[str | int, ...]:
    try:
        # Follows links, so the swap of a mounted ConfigMap's `..data` shows as other inodes.
        status = path.stat()
    except (OSError, ValueError):
        return (str(path),)
    return (str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
