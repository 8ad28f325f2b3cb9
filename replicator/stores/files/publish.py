"""Put a finished file in place so that every reader, also after a power cut, sees the old version or the new one.

Owns: the atomic rename and the order of syncs around it, conflict copies. Never: deletes anything, decides whether a
replica may be replaced.
Source: rename(2) is atomic within one file system; fsync(2): a new name needs its directory synced as well.
"""

import errno
import itertools
import os

from replicator.errors import LeftOut, Refused, SourceChanged
from replicator.model import Fingerprint
from replicator.stores.files.beneath import (
    OBSTACLES,
    fingerprint_of,
    look,
    obstacle,
    open_for_listing,
    sync_directory,
)
from replicator.stores.files.temp import TempFile

_CONFLICT_MARK = ".sync-conflict-"
_NAME_MAX_BYTES = 255
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
"""What link(2) answers where a second name cannot be had, on FAT for example."""
_COUNTER_MAX_BYTES = 4


def place(temp: TempFile, *, directory: int, name: str, relpath: str, replacing: Fingerprint | None) -> Fingerprint:
    """Rename a finished `temp` over `name`, which must still be `replacing`, and sync the directory.

    Between the check and the rename a writer has a microsecond to slip in: POSIX offers no rename that compares.
    """
    found = look(directory, name)
    if found is not None:
        _check_regular(found, relpath)
    is_same = found is None if replacing is None else found is not None and replacing.matches(fingerprint_of(found))
    if not is_same:
        raise SourceChanged(f"{relpath!r} changed on the device before it was replaced. It is looked at again")
    moved = temp.move(directory, name)
    sync_directory(directory)
    found = look(directory, name)
    if found is None or (found.st_ino, found.st_dev) != (moved.st_ino, moved.st_dev):
        raise SourceChanged(f"{relpath!r} was replaced right after it was written. It is looked at again")
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
            if exc.errno not in _NO_LINKS:
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
