"""The kernel's queue of events on directories: one descriptor, watches on open directories, batches of events.

Owns: the three calls and the form of an event. Never: a path (what is watched is a descriptor that was reached through
no link) or what an event means.
Source: inotify(7). Written here because it is the whole of it, and costs a fifth a record of the thinnest package.
"""

import ctypes
import errno
import os
import struct
import sys
import threading
from functools import cache

MODIFY = 0x0002
ATTRIB = 0x0004
CLOSE_WRITE = 0x0008
MOVED_FROM = 0x0040
MOVED_TO = 0x0080
CREATE = 0x0100
DELETE = 0x0200
DELETE_SELF = 0x0400
MOVE_SELF = 0x0800
UNMOUNT = 0x2000
Q_OVERFLOW = 0x4000
IGNORED = 0x8000
EXCL_UNLINK = 0x0400_0000
ISDIR = 0x4000_0000

Event = tuple[int, int, str]
"""Watch descriptor (-1 for an overflow), mask, and the name in the watched directory, '' for the directory itself."""

_HEADER = struct.Struct("iIII")
_READ_BYTES = 64 * 1024
"""A few thousand events: a few milliseconds of work before the event loop may turn to somebody else."""

_ENCODING = sys.getfilesystemencoding()


class OutOfWatches(Exception):
    """The kernel has no further watch for this user: fs.inotify.max_user_watches, or its user namespace's limit."""


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    return libc


class Inotify:
    """One queue. Safe from any thread; after `close` every call fails with EBADF and touches nothing."""

    def __init__(self) -> None:
        """Raises OSError when there is none to be had: EMFILE means fs.inotify.max_user_instances."""
        self._lock = threading.Lock()
        self._fd: int = _libc().inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _error()

    def fileno(self) -> int:
        """Readable when events wait."""
        return self._fd

    def add(self, fd: int, mask: int) -> int:
        """Watch what `fd` stands for; the number of the watch, which is that of before if it was watched already.

        A mask replaces an earlier one and loses no event that waits. Raises OutOfWatches, and OSError untranslated.
        """
        with self._lock:
            # Followed on purpose: this link of the kernel's leads to the very inode that is open.
            wd: int = _libc().inotify_add_watch(self._fd, b"/proc/self/fd/%d" % fd, mask)
        if wd >= 0:
            return wd
        if ctypes.get_errno() == errno.ENOSPC:
            raise OutOfWatches
        raise _error()

    def remove(self, wd: int) -> None:
        """Give a watch back; none is no error. An IGNORED event confirms it."""
        with self._lock:
            _libc().inotify_rm_watch(self._fd, wd)

    def read(self) -> list[Event]:
        """What waits, in order, up to a few thousand events; nothing when nothing waits."""
        try:
            waiting = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return []
        events = []
        position, end = 0, len(waiting)
        while position < end:
            wd, mask, _, length = _HEADER.unpack_from(waiting, position)
            position += _HEADER.size
            # os.fsdecode would cost more than all the rest of the loop.
            name = waiting[position : position + length].rstrip(b"\0").decode(_ENCODING, "surrogateescape")
            events.append((wd, mask, name))
            position += length
        return events

    def close(self) -> None:
        """Give the queue and all its watches back."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def is_available() -> bool:
    """Whether this system can watch by descriptor; a limit that is reached does not count against it."""
    if sys.platform != "linux":
        return False
    try:
        queue = Inotify()
    except AttributeError:
        return False
    except OSError as exc:
        return exc.errno in (errno.EMFILE, errno.ENFILE)
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        queue.add(fd, DELETE_SELF)
    except OutOfWatches:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
        queue.close()
    return True
