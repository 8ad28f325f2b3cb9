"""Put a finished file in place so that every reader, also after a power cut, sees the old version or the new one.

Owns: the atomic rename and the order of syncs around it, conflict copies. Never: deletes anything, decides whether a
replica may be replaced.
Source: rename(2) is atomic within one file system; fsync(2): a new name needs its directory synced as well.
"""

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from replicator.errors import LeftOut, Refused, SourceChanged, TransferError
from replicator.model import Fingerprint
from replicator.stores.files.beneath import (
    NO_LINKS,
    OBSTACLES,
    fingerprint_of,
    look,
    obstacle,
    open_for_listing,
    split,
    sync_directory,
    translating,
)
from replicator.stores.files.temp import TempFile

_CONFLICT_MARK = ".sync-conflict-"
_NAME_MAX_BYTES = 255
_COUNTER_MAX_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file was put: a name in a directory, and what it was right after its rename."""

    directory: int
    name: str
    moved: os.stat_result


class Publication:
    """Several files put in their places: each by a rename of its own, and each directory synced once, at the end.

    Use it as a context manager, within moments: it keeps to the directories that it found.
    """

    def __init__(self, reach: Callable[[str], tuple[int, str]]) -> None:
        """`reach(relpath)` returns a descriptor of the directory, made when it is missing, and the name in it."""
        self._reach = reach
        self._directories: dict[str, int] = {}
        self._places: dict[str, _Place] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for directory in self._directories.values():
            os.close(directory)

    def place(self, temp: TempFile, relpath: str, *, replacing: Fingerprint | None) -> None:
        """Rename a finished `temp` to `relpath`, which must still be `replacing` (None: nothing), else SourceChanged.

        A directory, link or special file in the way is Refused. Between the check and the rename a writer has a
        microsecond to slip in: POSIX offers no rename that compares.
        """
        with translating(relpath, "written"):
            directory, name = self._directory(relpath)
            found = look(directory, name)
            if found is not None:
                _check_regular(found, relpath)
            is_same = found is None if replacing is None else found and replacing.matches(fingerprint_of(found))
            if not is_same:
                raise SourceChanged(f"{relpath!r} changed on the device before it was replaced. It is looked at again")
            self._places[relpath] = _Place(directory, name, temp.move(directory, name))

    def settle(self) -> dict[str, Fingerprint | TransferError]:
        """Make what was placed outlive a power cut: its fingerprints by relpath, or why it may not."""
        failed: dict[int, OSError] = {}
        for directory in self._directories.values():
            try:
                sync_directory(directory)
            except OSError as error:
                failed[directory] = error
        return {relpath: _settled(relpath, place, failed) for relpath, place in self._places.items()}

    def _directory(self, relpath: str) -> tuple[int, str]:
        parent, name = relpath.rpartition("/")[0], split(relpath)[-1]
        if parent not in self._directories:
            self._directories[parent], name = self._reach(relpath)
        return self._directories[parent], name


def _settled(relpath: str, place: _Place, failed: Mapping[int, OSError]) -> Fingerprint | TransferError:
    try:
        with translating(relpath, "written"):
            if place.directory in failed:
                raise failed[place.directory]
            found = look(place.directory, place.name)
    except TransferError as error:
        return error
    moved = place.moved
    if found is None or (found.st_ino, found.st_dev) != (moved.st_ino, moved.st_dev):
        return SourceChanged(f"{relpath!r} was replaced right after it was written. It is looked at again")
    return fingerprint_of(moved)


def set_aside(*, directory: int, name: str, relpath: str, stamp: str, limit: int) -> str:
    """Give the file a second name beside it, the conflict copy, and return that; nothing is overwritten or deleted.

    A hard link, so that no reader finds `name` missing before it is replaced; a rename where links cannot be made.
    """
    found = look(directory, name)
    if found is None:
        raise SourceChanged(f"{relpath!r} vanished before it was set aside. It is looked at again")
    _check_regular(found, relpath)
    stem = _shortened(name, _NAME_MAX_BYTES - len(_CONFLICT_MARK) - len(os.fsencode(stamp)) - _COUNTER_MAX_BYTES)
    copies = _inodes(directory, prefix=stem + _CONFLICT_MARK)
    if found.st_ino in copies:
        return copies[found.st_ino]  # of an attempt whose replacement then failed
    if len(copies) >= limit:
        raise Refused(f"{relpath!r} has {limit} conflict copies already. Merge or remove some of them")
    copy = _second_name(directory, name, f"{stem}{_CONFLICT_MARK}{stamp}")
    sync_directory(directory)
    return copy


def _check_regular(found: os.stat_result, relpath: str) -> None:
    """Raise LeftOut for what a rename must not displace; a hard link is fine, only its name goes."""
    reason = obstacle(found, device=found.st_dev, hard_links="allow")
    if reason:
        raise LeftOut(f"{relpath!r} {OBSTACLES[reason]}", rule=reason)


def _second_name(directory: int, name: str, wanted: str) -> str:
    """Link `name` to `wanted`, or to the next free name after it; a rename where the file system has no links."""
    for attempt in itertools.count(1):
        candidate = wanted if attempt == 1 else f"{wanted}-{attempt}"
        if look(directory, candidate) is not None:
            continue
        try:
            os.link(name, candidate, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            continue
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            os.rename(name, candidate, src_dir_fd=directory, dst_dir_fd=directory)
        return candidate
    raise AssertionError("there is always a next number")


def _shortened(name: str, limit_bytes: int) -> str:
    """`name` cut to `limit_bytes`, never inside a character."""
    while len(os.fsencode(name)) > limit_bytes:
        name = name[:-1]
    return name


def _inodes(directory: int, *, prefix: str) -> dict[int, str]:
    """Inode -> name of the entries whose names begin so."""
    readable = open_for_listing(directory)
    try:
        with os.scandir(readable) as entries:
            return {entry.inode(): entry.name for entry in entries if entry.name.startswith(prefix)}
    finally:
        os.close(readable)
