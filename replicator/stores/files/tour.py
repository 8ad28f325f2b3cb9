"""Go through directories by descriptor, names only: for those who want to be told of changes from now on.

Owns: which directories belong to a mapped one (no link, no other file system, not our own), and the order in which
each is met: first `arrive` with its descriptor, then its names. Never: content, or what a file is like (`walk` tells).
One bad directory never stops the rest: what vanished, or may not be read, is passed over.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from replicator.errors import Refused
from replicator.model import OWN_DIR
from replicator.stores.files.beneath import open_directory, split
from replicator.stores.files.walk import RELPATH_MAX_BYTES

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK

Arrive = Callable[[str, int, float], object]
"""Takes a directory's relpath, an open descriptor of it, and its mtime in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Level:
    """A directory, and the relpaths of the regular files in it."""

    relpath: str
    files: tuple[str, ...]


def tour(root: str, subdir: str, relpath: str, *, arrive: Arrive) -> Iterator[Level]:
    """`relpath` ('' for all) and every directory beneath it, parents first; relpaths count from `subdir` of `root`.

    A name is listed, or was added after `arrive` had been called for its directory.
    """
    with closing(_Ground(root, subdir)) as ground:
        pending = [relpath]
        while pending:
            here = pending.pop()
            try:
                fd = ground.open(here)
            except (OSError, Refused):
                continue
            try:
                found = os.fstat(fd)
                if found.st_dev != ground.device:
                    continue
                arrive(here, fd, found.st_mtime)
                directories, files = _names(fd, here, own_dir=OWN_DIR if not subdir and not here else None)
            except OSError:
                continue
            finally:
                os.close(fd)
            yield Level(here, files)
            pending += directories


def visit(root: str, subdir: str, relpaths: Iterable[str], *, arrive: Arrive) -> None:
    """Call `arrive` for each of these directories that is there, in their order."""
    with closing(_Ground(root, subdir)) as ground:
        for relpath in relpaths:
            try:
                fd = ground.open(relpath)
            except (OSError, Refused):
                continue
            try:
                found = os.fstat(fd)
                if found.st_dev == ground.device:
                    arrive(relpath, fd, found.st_mtime)
            except OSError:
                continue
            finally:
                os.close(fd)


def _names(fd: int, relpath: str, *, own_dir: str | None) -> tuple[list[str], tuple[str, ...]]:
    directories: list[str] = []
    files: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            path = f"{relpath}/{entry.name}" if relpath else entry.name
            if entry.is_file(follow_symlinks=False):
                files.append(path)
            elif entry.name != own_dir and entry.is_dir(follow_symlinks=False) and _is_short(path):
                directories.append(path)
    return directories, tuple(files)


def _is_short(relpath: str) -> bool:
    return len(os.fsencode(relpath)) <= RELPATH_MAX_BYTES


class _Ground:
    """The mapped directory, and the parent that was entered last: siblings follow each other. Raises as open(2)."""

    def __init__(self, root: str, subdir: str) -> None:
        self._top = open_directory(root, split(subdir) if subdir else [])
        self._parent, self._parent_fd = "", os.dup(self._top)
        self.device = os.fstat(self._top).st_dev

    def open(self, relpath: str) -> int:
        """A readable descriptor of a directory."""
        if not relpath:
            return os.open(".", _FLAGS, dir_fd=self._top)
        parent, _, name = relpath.rpartition("/")
        if parent != self._parent:
            fd = open_directory(".", parent.split("/") if parent else [], dir_fd=self._top)
            os.close(self._parent_fd)
            self._parent, self._parent_fd = parent, fd
        return os.open(name, _FLAGS, dir_fd=self._parent_fd)

    def close(self) -> None:
        os.close(self._parent_fd)
        os.close(self._top)
