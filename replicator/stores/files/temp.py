"""Temporary files on the file system that they are renamed in: written by one holder, removed or gone on with later.

Owns: `.replicator/tmp` of an export, the locks that tell a living holder from a dead one, and what of it is cleared.
Never: the place that a file gets in the end.
Source: flock(2) locks die with their process; fsync(2) reports an error once, and the pages may be gone by then.
"""

import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from replicator.model import OWN_DIR, Fingerprint
from replicator.stores.files.beneath import (
    look,
    names_in,
    obstacle,
    open_directory,
    translating,
)

TEMP_DIR = (OWN_DIR, "tmp")
"""Where temporary files lie beneath an export's root."""

PART_KEPT_S = 3 * 24 * 3600.0
"""Seconds after which nobody is expected to go on with a part any more: an outage over a long weekend."""

_NAME = re.compile(r"[0-9a-f]{32}\.(tmp|part)")
_PART = ".part"
_PRIVATE_DIR = 0o700
_PRIVATE_FILE = 0o600
_PUBLISHED_FILE = 0o644
_INT64_MAX = 2**63 - 1


class TempFile:
    """A private file beside the export's data, written from its beginning to its end; use it as a context manager.

    Unless it was published it removes itself at the end, but for one with a token: that is kept, with what was
    written so far, for the next one of the same token. A power cut may have left anything in it.
    """

    def __init__(self, root: str, *, token: str = "", directory: int | None = None) -> None:
        """Takes over `directory`, a descriptor of the temporary directory; opens it, and makes it, by default."""
        self._root = root
        self._where = "/".join((root, *TEMP_DIR))
        self._is_published = False
        with translating(self._where, "written"), ExitStack() as opened:
            self._directory = open_directory(root, TEMP_DIR, make_mode=_PRIVATE_DIR) if directory is None else directory
            opened.callback(os.close, self._directory)
            self._name, self._fd, self._published_mode = _open(self._directory, token)
            opened.callback(os.close, self._fd)
            self._opened = opened.pop_all()
        self._is_kept = self._name.endswith(_PART)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened, suppress(OSError):  # Cleared at a later start, and no reason to hide the error in flight.
            if self._is_published:
                return
            if self._is_kept and self.size:
                os.fchmod(self._fd, _PRIVATE_FILE)
            else:
                os.unlink(self._name, dir_fd=self._directory)

    def sibling(self) -> "TempFile":
        """One more in the same directory, as `create_temp` makes it, but without looking for the way again."""
        with translating(self._where, "written"):
            return TempFile(self._root, directory=os.dup(self._directory))

    @property
    def size(self) -> int:
        """Bytes that are there: of earlier holders of the token, and written since."""
        return os.fstat(self._fd).st_size

    def blocks(self, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        """What is there, from the beginning."""
        offset = 0
        with translating(self._where, "read"):
            while block := os.pread(self._fd, block_bytes, offset):
                yield block
                offset += len(block)

    def write(self, block: bytes | memoryview) -> None:
        """Append. Raises DiskFull or Refused; the file is then only good for being thrown away, and will be."""
        view = memoryview(block)
        with self._writing():
            while view:
                view = view[os.write(self._fd, view) :]

    def truncate(self, size: int) -> None:
        """Throw away what is there beyond `size` bytes; what is written next follows them."""
        with self._writing():
            os.ftruncate(self._fd, size)

    def discard(self) -> None:
        """Let the file be removed at the end, whatever its token."""
        self._is_kept = False

    def finish(self, mtime_ns: int) -> Fingerprint:
        """`dress` and `sync`."""
        fingerprint = self.dress(mtime_ns)
        self.sync()
        return fingerprint

    def dress(self, mtime_ns: int) -> Fingerprint:
        """Give the file the origin's time, clamped to 1970..2262, and the mode it will be seen with.

        The fingerprint has ctime_ns 0: the rename to come moves it.
        """
        mtime_ns = min(max(mtime_ns, 0), _INT64_MAX)
        with self._writing():
            os.fchmod(self._fd, self._published_mode)
            os.utime(self._fd, ns=(mtime_ns, mtime_ns))
            found = os.fstat(self._fd)
        return Fingerprint(found.st_size, found.st_mtime_ns, 0, found.st_ino)

    def sync(self) -> None:
        """Make the file durable.

        A failed sync is never tried again on the same file, because the kernel may by then have dropped the pages it
        could not write.
        """
        with self._writing():
            os.fsync(self._fd)

    def move(self, directory: int, name: str) -> os.stat_result:
        """Rename to `name` in `directory`. Returns the file's own state after it."""
        os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=directory)
        self._is_published = True
        return os.fstat(self._fd)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with translating(self._where, "written"):
            try:
                yield
            except OSError:
                self.discard()
                raise


def _open(directory: int, token: str) -> tuple[str, int, int]:
    """The name of a file in `directory`, its descriptor, and the mode it is to be published with.

    That of the token where it can be had; one of no token where another holds it, or it is not to be trusted.
    """
    if token:
        part = token + _PART
        if not _NAME.fullmatch(part):
            raise ValueError(f"a token has 32 hexadecimal digits, {token!r} has not")
        mode = _published_mode(directory)
        fd = _resume(directory, part)
        if fd is not None:
            return part, fd, mode
    name = f"{secrets.token_hex(16)}.tmp"
    return name, *_create(directory, name)


def _create(directory: int, name: str) -> tuple[int, int]:
    """A new file, locked and private: its descriptor, and the mode that the umask leaves for it."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with ExitStack() as opened:
        fd = os.open(name, flags, _PUBLISHED_FILE, dir_fd=directory)
        opened.callback(os.close, fd)
        # The kernel has just applied the umask, which no thread can read without changing it.
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        os.fchmod(fd, _PRIVATE_FILE)
        with suppress(OSError):  # A file system without locks: leftovers stay until somebody removes them.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        opened.pop_all()
        return fd, mode


def _published_mode(directory: int) -> int:
    """The mode that the umask leaves for a new file, found out with one."""
    name = f"{secrets.token_hex(16)}.tmp"
    fd, mode = _create(directory, name)
    os.close(fd)
    os.unlink(name, dir_fd=directory)
    return mode


def _resume(directory: int, name: str) -> int | None:
    """A descriptor of `name`, made when it is missing; None when it is held, or others may have had a hand in it."""
    fd = _take(directory, name, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    if fd is None:
        return None
    found = os.fstat(fd)
    is_ours = found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o022
    if is_ours and not obstacle(found, device=os.fstat(directory).st_dev, hard_links="refuse"):
        os.fchmod(fd, _PRIVATE_FILE)  # A crash between `finish` and `move` leaves the published one.
        return fd
    os.close(fd)
    return None


def _take(directory: int, name: str, flags: int) -> int | None:
    """A locked descriptor of the regular file at `name`, which keeps its name while it is locked, or None."""
    with ExitStack() as opened:
        try:
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, _PRIVATE_FILE, dir_fd=directory)
            opened.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        # Between open and lock the holder before us may have published or removed it.
        held, named = os.fstat(fd), look(directory, name)
        if not stat.S_ISREG(held.st_mode) or named is None or not os.path.samestat(held, named):
            return None
        opened.pop_all()
        return fd


def clear_temps(root: str) -> int:
    """Remove what nobody holds in the temporary directory, parts only when they are old. Returns how many files."""
    try:
        directory = open_directory(root, TEMP_DIR)
    except FileNotFoundError:
        return 0
    try:
        return sum(_is_cleared(directory, name) for name in names_in(directory) if _NAME.fullmatch(name))
    finally:
        os.close(directory)


def _is_cleared(directory: int, name: str) -> bool:
    fd = _take(directory, name, os.O_RDONLY)
    if fd is None:
        return False
    try:
        # ctime, because a part that waits for its rename has its origin's mtime already.
        if name.endswith(_PART) and time.time() - os.fstat(fd).st_ctime < PART_KEPT_S:
            return False
        os.unlink(name, dir_fd=directory)
    except OSError:  # Not removable: the next start looks again.
        return False
    else:
        return True
    finally:
        os.close(fd)
