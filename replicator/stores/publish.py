"""Put a finished file in place so that every reader, also after a power cut, sees the old version or the new one.

Owns: temporary files, the atomic rename and the order of syncs around it, conflict copies. Never: deletes anything
but our own temporary files, decides whether a replica may be replaced.
Source: rename(2) is atomic within one file system; fsync(2): a new name needs its directory synced as well.
"""

import errno
import fcntl
import itertools
import os
import re
import secrets
import stat
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from replicator.errors import LeftOut, Refused, SourceChanged
from replicator.model import OWN_DIR, Fingerprint
from replicator.stores.beneath import (
    OBSTACLES,
    fingerprint_of,
    look,
    obstacle,
    open_directory,
    open_for_listing,
    sync_directory,
    translating,
)

TEMP_DIR = (OWN_DIR, "tmp")
"""Where temporary files lie beneath an export's root: on the file system they are renamed in."""

_TEMP_NAME = re.compile(r"[0-9a-f]{32}\.tmp")
_PRIVATE_DIR = 0o700
_PRIVATE_FILE = 0o600
_PUBLISHED_FILE = 0o644
_INT64_MAX = 2**63 - 1
_CONFLICT_MARK = ".sync-conflict-"
_NAME_MAX_BYTES = 255
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
"""What link(2) answers where a second name cannot be had, on FAT for example."""
_COUNTER_MAX_BYTES = 4


class TempFile:
    """A private file beside the export's data. As a context manager it removes itself unless it was published.

    A lock on it, which dies with the process, tells it from the leftovers of a dead one.
    """

    def __init__(self, root: str) -> None:
        self._where = "/".join((root, *TEMP_DIR))
        self._name = f"{secrets.token_hex(16)}.tmp"
        self._is_published = False
        with translating(self._where, "written"), ExitStack() as opened:
            self._directory = open_directory(root, TEMP_DIR, make_mode=_PRIVATE_DIR)
            opened.callback(os.close, self._directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._fd = os.open(self._name, flags, _PUBLISHED_FILE, dir_fd=self._directory)
            opened.callback(os.close, self._fd)
            # The kernel has just applied the umask, which no thread can read without changing it.
            self._published_mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
            os.fchmod(self._fd, _PRIVATE_FILE)
            with suppress(OSError):  # A file system without locks: leftovers stay until somebody removes them.
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_published:
            with suppress(OSError):  # Cleared at the next start, and no reason to hide the error in flight.
                os.unlink(self._name, dir_fd=self._directory)
        self._opened.close()

    def write(self, block: bytes | memoryview) -> None:
        """Append. Raises DiskFull or Refused; the file is then only good for being thrown away."""
        view = memoryview(block)
        with translating(self._where, "written"):
            while view:
                view = view[os.write(self._fd, view) :]

    def finish(self, mtime_ns: int) -> Fingerprint:
        """Make the content durable and give it the origin's time, clamped to 1970..2262.

        The fingerprint has ctime_ns 0: the rename to come moves it. A failed sync is never tried again on the
        same file, because the kernel may by then have dropped the pages it could not write.
        """
        mtime_ns = min(max(mtime_ns, 0), _INT64_MAX)
        with translating(self._where, "written"):
            os.fchmod(self._fd, self._published_mode)
            os.utime(self._fd, ns=(mtime_ns, mtime_ns))
            os.fsync(self._fd)
            return replace(fingerprint_of(os.fstat(self._fd)), ctime_ns=0)

    def move(self, directory: int, name: str) -> os.stat_result:
        """Rename to `name` in `directory`. Returns the file's own state after it."""
        os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=directory)
        self._is_published = True
        return os.fstat(self._fd)


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


def clear_temps(root: str) -> int:
    """Remove what processes that are no more left in the temporary directory. Returns how many files."""
    try:
        directory = open_directory(root, TEMP_DIR)
    except FileNotFoundError:
        return 0
    try:
        readable = open_for_listing(directory)
        try:
            names = [name for name in os.listdir(readable) if _TEMP_NAME.fullmatch(name)]
        finally:
            os.close(readable)
        return sum(_is_cleared(directory, name) for name in names)
    finally:
        os.close(directory)


def _is_cleared(directory: int, name: str) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    except OSError:  # Held by a living process, or not removable: the next start looks again.
        return False
    else:
        return True
    finally:
        os.close(fd)
