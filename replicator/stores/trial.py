"""What this user may do in a directory, found out by doing it with a file that never gets a name.

Owns: one look at a directory as it is. Makes nothing that lasts, no directory either: one made by an administrator's
look would lock out the user that the service runs as. Never: what an answer means.
Source: open(2), O_TMPFILE; fcntl(2), "Leases".
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replicator.errors import Refused
from replicator.stores.files.beneath import open_directory, open_for_listing
from replicator.stores.files.openfile import has_writer

_NAMELESS = os.O_TMPFILE | os.O_RDWR
_NO_NAMELESS = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
"""What file systems answer that have no files without names: NFS, FAT, older overlays."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One directory. `unreadable` and `unwritable` say why not, and are '' when it can be done."""

    device: int
    """st_dev."""
    free_bytes: int
    """Bytes that this user may still write."""
    unreadable: str
    unwritable: str
    tells_writers: bool | None
    """Whether the kernel tells here who writes a file of our own; None where that could not be tried."""


def try_directory(path: str, inner: Sequence[str] = ()) -> Trial:
    """Look at `path`; writing is tried in the deepest directory of `inner` beneath it that is there.

    Raises Refused when there is no such directory, or it is out of reach or a link. Call `ignore_lease_signals` first.
    """
    try:
        fd = open_directory(path, ())
    except OSError as exc:
        is_denied = exc.errno in (errno.EACCES, errno.EPERM)
        cause = "it is no directory, or a link" if exc.errno == errno.ENOTDIR else os.strerror(exc.errno or 0)
        fix = "Let this user enter it, and all above it" if is_denied else "Make or mount it, or correct its name"
        raise Refused(f"cannot be entered: {cause}. {fix}") from exc
    try:
        room = os.statvfs(fd)
        unwritable, tells_writers = _written(path, inner)
        return Trial(os.fstat(fd).st_dev, room.f_bavail * room.f_frsize, _read(fd), unwritable, tells_writers)
    finally:
        os.close(fd)


def nearest(path: str) -> str:
    """`path`, or the directory above it that is there, in which it would be made."""
    whole = Path(os.path.realpath(path))
    return next(str(one) for one in (whole, *whole.parents) if os.path.isdir(one))


def is_writable_if_there(path: str) -> bool:
    """Whether a file may be read and written; one that is missing may."""
    return not os.path.lexists(path) or os.access(path, os.R_OK | os.W_OK)


def _read(fd: int) -> str:
    try:
        os.close(open_for_listing(fd))
    except OSError as exc:
        return os.strerror(exc.errno or 0)
    return ""


def _written(path: str, inner: Sequence[str]) -> tuple[str, bool | None]:
    """Why nothing can be written, '' when it can; and whether the kernel tells that we write."""
    for depth in range(len(inner), -1, -1):
        try:
            fd = open_directory(path, inner[:depth])
        except FileNotFoundError:
            continue
        except OSError as exc:
            return f"{'/'.join(inner[:depth])}: {os.strerror(exc.errno or 0)}", None
        except Refused as exc:
            return str(exc), None
        try:
            return _written_in(fd)
        finally:
            os.close(fd)
    return os.strerror(errno.ENOENT), None


def _written_in(fd: int) -> tuple[str, bool | None]:
    try:
        nameless = os.open(".", _NAMELESS, 0o600, dir_fd=fd)
    except OSError as exc:
        if exc.errno in _NO_NAMELESS:
            is_allowed = os.access(".", os.W_OK | os.X_OK, dir_fd=fd)
            return "" if is_allowed else os.strerror(errno.EACCES), None
        return os.strerror(exc.errno or 0), None
    try:
        return "", has_writer(nameless) is True
    finally:
        os.close(nameless)
