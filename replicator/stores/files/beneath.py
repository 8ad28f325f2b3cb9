"""Reach a name beneath a directory without following any link on the way.

Owns: splitting and refusing relpaths, the descent component by component, what counts as a plain file, and the
translation of the kernel's errors. Never: content, decisions, paths that are checked first and opened later.
Source: openat(2) with O_NOFOLLOW | O_DIRECTORY for each component, so a link swapped in meanwhile fails the call.
"""

import errno
import os
import stat
from collections.abc import Sequence
from types import TracebackType

from replicator.errors import DiskFull, KeyUnsafe, LeftOut, Refused, Retryable, SourceChanged, TransferError
from replicator.model import Fingerprint

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_INT64_MAX = 2**63 - 1

NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
"""What link(2) answers where a second name cannot be had, on FAT for example."""

_FIXES = {
    errno.EACCES: "Give this user the permission, or run replicator as the owner of the files",
    errno.EPERM: "Give this user the permission, or run replicator as the owner of the files",
    errno.EROFS: "Mount the export read-write",
    errno.EXDEV: "Mount one file system over the export's root and the mapped directory",
    errno.EIO: "Check the device's storage",
}

OBSTACLES = {
    "symlink": "is a symbolic link, and links are not followed. Put the file itself there",
    "directory": "is a directory. Remove or rename it, or the file",
    "special": "is not a regular file. Move it out of the export",
    "other-device": "lies on another file system mounted inside the export. Map that directory itself",
    "hard-linked": "has more than one hard link. Copy it, or set hard_links to allow",
}
"""Reason word -> what it says to a person about an entry that is not ours to touch."""

_KINDS: tuple[tuple[frozenset[int], type[TransferError], str], ...] = (
    (
        frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG}),
        DiskFull,
        "{name} cannot be {deed}: {cause}. Free space on the device; it is tried again",
    ),
    (
        frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE}),
        SourceChanged,
        "{name} vanished or moved before it was {deed}. It is looked at again",
    ),
    # A non-blocking open where another program holds a lease on the file.
    (frozenset({errno.EAGAIN}), SourceChanged, "{name} is leased by another program. It is looked at again"),
    (
        frozenset({errno.ENAMETOOLONG, errno.EILSEQ}),
        KeyUnsafe,
        "{name} cannot be {deed}: {cause}. Rename it where it comes from",
    ),
    (
        frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM}),
        Retryable,
        "{name} cannot be {deed}: {cause}. Raise that limit or lower transfers; it is tried again",
    ),
)
"""What an errno means for the item; any other is Refused."""

_RULES = {errno.ELOOP: "symlink", errno.ENXIO: "special"}
"""A link or a socket that took the file's place between the look and the open."""


def split(relpath: str) -> list[str]:
    """The components of `relpath`. Raises KeyUnsafe for one that could lead elsewhere or that no file can have."""
    parts = relpath.split("/")
    if "\0" in relpath or any(part in ("", ".", "..") for part in parts):
        raise KeyUnsafe(f"{relpath!r} is not a path inside the directory. Rename it where it comes from")
    try:
        os.fsencode(relpath)
    except UnicodeEncodeError as exc:
        raise KeyUnsafe(f"{relpath!r} cannot be a file name. Rename it where it comes from") from exc
    return parts


def open_directory(top: str, parts: Sequence[str], *, dir_fd: int | None = None, make_mode: int | None = None) -> int:
    """An O_PATH descriptor of the directory `parts` beneath `top`, for the caller to close.

    `top` itself may be reached through links, but must not be one. With `make_mode` missing directories are made
    (less the umask) and synced into their parents; never `top`. Raises OSError untranslated, and LeftOut for a link.
    """
    return descend(os.open(top, _STEP, dir_fd=dir_fd), parts, make_mode=make_mode)


def descend(fd: int, parts: Sequence[str], *, make_mode: int | None = None) -> int:
    """As `open_directory`, from the directory `fd`, which is closed in any case."""
    try:
        for part in parts:
            child = _step(fd, part, make_mode)
            os.close(fd)
            fd = child
    except BaseException:
        os.close(fd)
        raise
    return fd


def _step(fd: int, part: str, make_mode: int | None) -> int:
    try:
        return os.open(part, _STEP, dir_fd=fd)
    except NotADirectoryError as exc:
        # O_NOFOLLOW with O_DIRECTORY answers ENOTDIR for a link as well as for a file.
        mode = os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise LeftOut(f"{part!r} {OBSTACLES['symlink']}", rule="symlink") from exc
        if make_mode is not None and not stat.S_ISDIR(mode):
            raise Refused(f"{part!r} is a file where a directory is needed. Rename one of the two") from exc
        raise
    except FileNotFoundError:
        if make_mode is None:
            raise
    try:
        os.mkdir(part, make_mode, dir_fd=fd)
    except FileExistsError:
        pass
    else:
        sync_directory(fd)
    return os.open(part, _STEP, dir_fd=fd)


def open_for_listing(fd: int) -> int:
    """A readable descriptor of the directory that an O_PATH descriptor stands for."""
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)


def names_in(fd: int) -> list[str]:
    """The entries of the directory that an O_PATH descriptor stands for."""
    readable = open_for_listing(fd)
    try:
        return os.listdir(readable)
    finally:
        os.close(readable)


def sync_directory(fd: int) -> None:
    """Make the entries of the directory `fd` outlive a power cut."""
    readable = open_for_listing(fd)
    try:
        os.fsync(readable)
    finally:
        os.close(readable)


def look(fd: int, name: str) -> os.stat_result | None:
    """What is at `name` in directory `fd`, not following it; None when absent."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def obstacle(found: os.stat_result, *, device: int, hard_links: str) -> str:
    """The reason word why this entry is not ours to touch, '' for a plain file on `device`."""
    if stat.S_ISREG(found.st_mode):
        if found.st_dev != device:
            return "other-device"
        return "hard-linked" if found.st_nlink > 1 and hard_links == "refuse" else ""
    if stat.S_ISLNK(found.st_mode):
        return "symlink"
    return "directory" if stat.S_ISDIR(found.st_mode) else "special"


def fingerprint_of(found: os.stat_result) -> Fingerprint:
    """The version that stat(2) told; times beyond 64 bits of nanoseconds (the year 2262) are clamped."""
    return Fingerprint(
        size=found.st_size,
        mtime_ns=found.st_mtime_ns if abs(found.st_mtime_ns) <= _INT64_MAX else _clamped(found.st_mtime_ns),
        ctime_ns=found.st_ctime_ns if abs(found.st_ctime_ns) <= _INT64_MAX else _clamped(found.st_ctime_ns),
        ino=found.st_ino,
    )


def _clamped(time_ns: int) -> int:
    return min(max(time_ns, -_INT64_MAX), _INT64_MAX)


class translating:  # noqa: N801 - used like the function that it is; a generator costs three times as much
    """Turn an OSError inside `with` into an error of ours that names the file and the next step.

    `name` is a relpath, or a path of our own; `deed` a participle: "read", "written", "looked at".
    """

    __slots__ = ("_deed", "_name")

    def __init__(self, name: str, deed: str) -> None:
        self._name = name
        self._deed = deed

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, OSError):
            raise _translated(exc, self._name, self._deed) from exc


def _translated(exc: OSError, name: str, deed: str) -> TransferError:
    code = exc.errno or 0
    for codes, error, text in _KINDS:
        if code in codes:
            return error(text.format(name=repr(name), deed=deed, cause=os.strerror(code)))
    if rule := _RULES.get(code):
        return LeftOut(f"{name!r} {OBSTACLES[rule]}", rule=rule)
    fix = _FIXES.get(code, "See to the cause; it is tried again at the slow pace")
    return Refused(f"{name!r} cannot be {deed}: {os.strerror(code)}. {fix}")
