"""The top of an export: its temporary files and its free room, whichever directory in it is mapped.

Owns nothing but the way in. Never: a path of the workload.
"""

import os
from collections.abc import Callable

from replicator.model import Fingerprint
from replicator.stores.files.beneath import open_directory, translating
from replicator.stores.files.remove import finish
from replicator.stores.files.temp import TEMP_DIR, TempFile, clear_temps


class ExportRoot:
    """What all mapped directories of one export have in common."""

    def __init__(self, root: str) -> None:
        self.root = root

    def create_temp(self) -> TempFile:
        """A private file on the export's file system, to be filled, finished and published."""
        return TempFile(self.root)

    def resume_temp(self, token: str) -> TempFile:
        """As `create_temp`, kept until it is published or discarded: it begins with what was written under `token`.

        `token` has 32 hexadecimal digits. While another holds it, or what is there is not ours, the file is a new one
        that is not kept.
        """
        return TempFile(self.root, token=token)

    def clear_temps(self) -> int:
        """Remove temporary files of processes that are no more, and kept ones after days; returns how many."""
        with translating("/".join((self.root, *TEMP_DIR)), "cleared"):
            return clear_temps(self.root)

    def finish_removals(self, forget: Callable[[Fingerprint], None]) -> int:
        """Finish what a crash interrupted between hiding a file that was to be removed and removing it.

        `forget` drops the record of such a version, of whichever target: its ctime_ns is 0.
        """
        with translating("/".join((self.root, *TEMP_DIR)), "cleared"):
            return finish(self.root, forget)

    def free_bytes(self) -> int | None:
        """Bytes that this user may still write in the export; None when the export is missing."""
        try:
            fd = open_directory(self.root, [])
        except OSError:
            return None
        try:
            room = os.statvfs(fd)
        finally:
            os.close(fd)
        return room.f_bavail * room.f_frsize
