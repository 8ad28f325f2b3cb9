"""Whether names hold plain files, for many names in a row: an ingress poll asks this of every file.

Owns: one open directory, that of the name asked last, so that its neighbours cost one call each. Never: versions,
reasons, permissions: who gets a no looks properly (`stores.files.export.Export.stat`).
"""

import os
import stat

from replicator.errors import KeyUnsafe, Refused
from replicator.model import OWN_DIR
from replicator.stores.files.beneath import open_directory, split


class Presence:
    """Answers for the directory `subdir` of an export `root`. Close it soon: it keeps to what it found."""

    def __init__(self, root: str, subdir: str = "") -> None:
        self._root = root
        self._base = split(subdir) if subdir else []
        self._device: int | None = None
        self._parent: str | None = None
        self._fd = -1

    def has(self, relpath: str) -> bool:
        """Whether a plain file of our file system is there, reached through no link. In any doubt no."""
        parent, _, name = relpath.rpartition("/")
        if parent != self._parent:
            self._enter(parent)
        if self._fd < 0:
            return False
        try:
            found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except (OSError, ValueError):  # a name with a NUL, or that no file system can spell
            return False
        return stat.S_ISREG(found.st_mode) and found.st_dev == self._device

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._parent, self._fd = None, -1

    def _enter(self, parent: str) -> None:
        self.close()
        self._parent = parent
        try:
            parts = [*self._base, *(split(parent) if parent else ())]
            if parts[:1] == [OWN_DIR]:
                return
            if self._device is None:
                self._device = self._device_of(open_directory(self._root, self._base))
            self._fd = open_directory(self._root, parts)
        except (OSError, KeyUnsafe, Refused):
            return

    def _device_of(self, fd: int) -> int:
        try:
            return os.fstat(fd).st_dev
        finally:
            os.close(fd)
