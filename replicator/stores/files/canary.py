"""A file of our own in an export, whose change is an event that has to come back.

Owns: `.replicator/canary` and the one file of a mapped directory in it. Never: waiting, or what silence means.
Only its times are set: that is an event for every watcher, and an inode's write for the disk, no data.
"""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from replicator.errors import Refused
from replicator.model import OWN_DIR
from replicator.stores.files.beneath import open_directory

_DIR = (OWN_DIR, "canary")
_FLAGS = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class CanaryFile:
    """The canary of the directory `subdir` of an export `root`. The export may be read-only: then there is none."""

    def __init__(self, root: str, subdir: str) -> None:
        self._root = root
        self._name = f"{zlib.crc32(os.fsencode(subdir)):08x}"
        self.directory = "/".join((root, *_DIR))
        """Absolute, for those who watch by path."""
        self.path = f"{self.directory}/{self._name}"

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """A descriptor of the file, made when it is missing; None when it cannot be had."""
        fd = self._open()
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)

    def stir(self) -> bool:
        """Make its event; False when it cannot be."""
        with self.opened() as fd:
            if fd is None:
                return False
            try:
                os.utime(fd)
            except OSError:
                return False
            return True

    def _open(self) -> int | None:
        try:
            directory = open_directory(self._root, _DIR, make_mode=0o700)
        except (OSError, Refused):
            return None
        try:
            return os.open(self._name, _FLAGS, 0o600, dir_fd=directory)
        except OSError:
            return None
        finally:
            os.close(directory)

    def remove(self) -> None:
        """Leave nothing behind but the directory."""
        with suppress(OSError, Refused):
            directory = open_directory(self._root, _DIR)
            try:
                os.unlink(self._name, dir_fd=directory)
            finally:
                os.close(directory)
