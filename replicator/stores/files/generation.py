"""Generations: sets of files that readers see whole. Each is a directory, and one link tells which one is in force.

    <directory>/.incoming/...          where files land, one by one
    <directory>/.generations/<id>/...  second names of those files, or copies
    <directory>/current                a symbolic link to one generation, replaced by rename

Owns: these names, the order of syncs around the link, and removing a generation that is ours to the last file. Never:
decides which files make a set, or which generations may go.
Source: rename(2) replaces a link atomically; link(2) and unlink(2) move the ctime of every name of a file.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from replicator.errors import Refused, SourceChanged
from replicator.model import CURRENT, GENERATIONS_DIR, INCOMING_DIR, Fingerprint
from replicator.stores.files.beneath import (
    NO_LINKS,
    fingerprint_of,
    look,
    names_in,
    open_directory,
    split,
    sync_directory,
    translating,
)
from replicator.stores.files.temp import TempFile
from replicator.stores.files.walk import Directory, walk

_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}", re.ASCII)
_NEXT = ".next"
"""The link to be, on its way to its name."""
_MODE = 0o755
_LISTING = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class InForce:
    """The generation that `current` leads to, and since when, seconds since the epoch."""

    id: str
    since_ts: float


class Group:
    """The files of one directory of the set, on their way into the generation."""

    def __init__(self, source: int, directory: int) -> None:
        self._source = source
        self._directory = directory

    def holds(self, name: str, version: Fingerprint) -> bool:
        """Whether the generation has this file already. Raises Refused when it has another one of this name."""
        with translating(name, "looked at"):
            found = look(self._directory, name)
        if found is not None and not _is_version(found, version):
            raise Refused(f"{name!r} in a generation that is being built is not replicator's. Move it away")
        return found is not None

    def link(self, name: str, version: Fingerprint) -> bool:
        """Give the file that landed a second name in the generation; False where it can have none.

        Raises SourceChanged when what landed is another version by now.
        """
        with translating(name, "linked"):
            try:
                os.link(name, name, src_dir_fd=self._source, dst_dir_fd=self._directory, follow_symlinks=False)
            except OSError as exc:
                if exc.errno not in NO_LINKS:
                    raise
                return False
            # The link is looked at, not the file: another may have taken its name in between.
            found = look(self._directory, name)
            if found is None or not _is_version(found, version):
                os.unlink(name, dir_fd=self._directory)
                raise SourceChanged(f"{name!r} changed while its generation was built. It is looked at again")
        return True

    def put(self, temp: TempFile, name: str) -> None:
        """Move a finished copy to its place, where nothing is."""
        with translating(name, "written"):
            temp.move(self._directory, name)


class Shelf:
    """The generations of one target. `incoming`: where its files land, beneath the export's `root`.

    Raises, everywhere, what `stores.files.export.Export` raises.
    """

    def __init__(self, root: str, incoming: str) -> None:
        self._root = root
        *self._base, last = split(incoming)
        if last != INCOMING_DIR:
            raise ValueError(f"{incoming!r} is no directory where generations land")

    def in_force(self) -> InForce | None:
        """The generation that readers see; None when there is none. Refused when `current` is not our link."""
        with translating(CURRENT, "looked at"), ExitStack() as opened:
            try:
                base = self._open(opened)
            except FileNotFoundError:
                return None
            found = look(base, CURRENT)
            if found is None:
                return None
            id_ = _link_of(base, CURRENT, found)
            try:
                self._open(opened, GENERATIONS_DIR, id_)
            except FileNotFoundError:
                return None  # somebody removed it; it is built anew
            return InForce(id_, found.st_mtime)

    def ids(self) -> list[str]:
        """The generations that stand there, whole or not, in order."""
        with translating(GENERATIONS_DIR, "listed"), ExitStack() as opened:
            try:
                names = names_in(self._open(opened, GENERATIONS_DIR))
            except FileNotFoundError:
                return []
            return sorted(name for name in names if _ID.fullmatch(name))

    @contextmanager
    def group(self, id_: str, parent: str) -> Iterator[Group]:
        """To fill the directory `parent` ('' is the top) of a generation; it is made, and synced at the end."""
        parts = split(parent) if parent else []
        with translating(parent or id_, "built"), ExitStack() as opened:
            source = self._open(opened, INCOMING_DIR, *parts)
            directory = self._open(opened, GENERATIONS_DIR, id_, *parts, make_mode=_MODE)
            yield Group(source, directory)
            sync_directory(directory)

    def flip(self, id_: str) -> None:
        """Let `current` lead to a generation that is whole and synced. A crash leaves the old link or the new one."""
        with translating(CURRENT, "replaced"), ExitStack() as opened:
            base = self._open(opened)
            shelf = self._open(opened, GENERATIONS_DIR)
            if (left := look(shelf, _NEXT)) is not None:
                _link_of(shelf, _NEXT, left)  # of a crash; what is not ours is Refused
                os.unlink(_NEXT, dir_fd=shelf)
            os.symlink(f"{GENERATIONS_DIR}/{id_}", _NEXT, dir_fd=shelf)
            if (found := look(base, CURRENT)) is not None:
                _link_of(base, CURRENT, found)
            os.rename(_NEXT, CURRENT, src_dir_fd=shelf, dst_dir_fd=base)
            sync_directory(base)
            sync_directory(shelf)

    def remove(self, id_: str, ours: Mapping[str, Fingerprint]) -> None:
        """Remove a generation whose every file is of the version in `ours`, by relpath.

        Raises Refused, with nothing removed, when it holds anything else. What is gone already is fine.
        """
        with translating(id_, "removed"), ExitStack() as opened:
            try:
                shelf = self._open(opened, GENERATIONS_DIR)
                top = os.open(id_, _LISTING, dir_fd=shelf)
            except FileNotFoundError:
                return
            opened.callback(os.close, top)
            found = list(walk(top, hard_links="allow", is_root=False, known={}))
            foreign = _foreign(found, ours)
            if foreign is not None:
                raise Refused(f"{foreign!r} in the old generation {id_} was edited or added there, so all of it stays")
            # Parents come before children, and a large directory in pieces.
            for relpath in reversed(dict.fromkeys(directory.relpath for directory in found)):
                _empty(top, relpath, ours)
            os.rmdir(id_, dir_fd=shelf)
            sync_directory(shelf)

    def _open(self, opened: ExitStack, *parts: str, make_mode: int | None = None) -> int:
        fd = open_directory(self._root, [*self._base, *parts], make_mode=make_mode)
        opened.callback(os.close, fd)
        return fd


def _link_of(directory: int, name: str, found: os.stat_result) -> str:
    """The id that our link leads to. Refused for whatever else is there."""
    told = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(found.st_mode) else ""
    shelf, _, id_ = told.partition("/")
    if shelf != GENERATIONS_DIR or not _ID.fullmatch(id_):
        raise Refused(f"{name!r} is not a link of replicator's. Move it away; the generation is published by itself")
    return id_


def _is_version(found: os.stat_result, version: Fingerprint) -> bool:
    """Whether it is that plain file. ctime does not count: each name that comes or goes moves it."""
    return stat.S_ISREG(found.st_mode) and _is_same(fingerprint_of(found), version)


def _is_same(one: Fingerprint, other: Fingerprint) -> bool:
    return one.matches(replace(other, ctime_ns=0))


def _foreign(found: Sequence[Directory], ours: Mapping[str, Fingerprint]) -> str | None:
    """Something in a generation that is not of the versions in `ours`; None when there is nothing."""
    parents = {relpath[:end] for relpath in ours for end in (0, *_slashes(relpath))}
    for directory in found:
        if directory.relpath not in parents or directory.skipped:
            return directory.skipped[0].relpath if directory.skipped else directory.relpath
        for file in directory.files:
            known = ours.get(file.relpath)
            if known is None or not _is_same(file.fingerprint, known):
                return file.relpath
    return None


def _slashes(relpath: str) -> list[int]:
    return [at for at, char in enumerate(relpath) if char == "/"]


def _empty(top: int, relpath: str, ours: Mapping[str, Fingerprint]) -> None:
    """Remove our files from one directory of a generation, and the directory, but for the top one."""
    with ExitStack() as opened:
        parts = relpath.split("/") if relpath else []
        directory = open_directory(".", parts, dir_fd=top)
        opened.callback(os.close, directory)
        for name in names_in(directory):
            known = ours.get(f"{relpath}/{name}" if relpath else name)
            found = look(directory, name)
            if known is not None and found is not None and _is_version(found, known):
                os.unlink(name, dir_fd=directory)
        if parts:
            above = open_directory(".", parts[:-1], dir_fd=top)
            opened.callback(os.close, above)
            os.rmdir(parts[-1], dir_fd=above)
