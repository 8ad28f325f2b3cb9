"""Free the device of one version of a file, and of no other.

Owns: the only unlink of a file that is not ours. Never: decides that it may go. The file is first renamed into our own
directory, where no new version can take its place, and then looked at: what is no longer the expected version, or has
a writer, gets its name back. The name it has meanwhile tells what it must be, so that a restart can finish the deed.
Records of the file are dropped before its bytes: no crash leaves one of a file that is nowhere.
Source: rename(2), link(2); a rename moves only ctime.
"""

import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress

from replicator.errors import SourceChanged
from replicator.model import Fingerprint
from replicator.stores.files.beneath import fingerprint_of, look, names_in, open_directory
from replicator.stores.files.openfile import has_writer
from replicator.stores.files.temp import TEMP_DIR

OWN_MODE = 0o700

_NAME = re.compile(r"(\d+)-(-?\d+)-(\d+)\.removed", re.ASCII)


def remove(
    root: str,
    *,
    directory: int,
    name: str,
    relpath: str,
    expected: Fingerprint,
    forget: Callable[[], None],
) -> None:
    """Remove `name` in `directory` when it is the version `expected`; else SourceChanged, and it stays.

    `root` is the export's, on the same file system. `forget` drops the record of the file; what it raises keeps the
    file. Raises OSError untranslated.
    """
    found = look(directory, name)
    if found is None:
        forget()
        return
    if fingerprint_of(found) != expected:
        raise SourceChanged(f"{relpath!r} changed after it was sent, so it is not removed")
    hidden = f"{expected.size}-{expected.mtime_ns}-{expected.ino}.removed"
    room = open_directory(root, TEMP_DIR, make_mode=OWN_MODE)
    try:
        os.rename(name, hidden, src_dir_fd=directory, dst_dir_fd=room)
        try:
            is_whole = _is_whole(room, hidden)
            if is_whole:
                forget()
        except BaseException:
            _give_back(room, hidden, directory, name)
            raise
        if is_whole:
            os.unlink(hidden, dir_fd=room)
            return
        _give_back(room, hidden, directory, name)
    finally:
        os.close(room)
    raise SourceChanged(f"{relpath!r} changed or is being written, so it is not removed")


def finish(root: str, forget: Callable[[Fingerprint], None]) -> int:
    """Remove what a crash left between the renaming and the unlink, if it is what its name says. Returns how many.

    `forget` drops the record of a version, whose ctime nobody knows.
    """
    try:
        room = open_directory(root, TEMP_DIR)
    except FileNotFoundError:
        return 0
    try:
        whole = [name for name in names_in(room) if _NAME.fullmatch(name) and _is_whole(room, name)]
        for name in whole:
            forget(_version_in(name))
            os.unlink(name, dir_fd=room)
        return len(whole)
    finally:
        os.close(room)


def _version_in(hidden: str) -> Fingerprint:
    told = _NAME.fullmatch(hidden)
    size, mtime_ns, ino = map(int, told.groups() if told else ())
    return Fingerprint(size, mtime_ns, 0, ino)


def _is_whole(room: int, hidden: str) -> bool:
    """Whether it is the version that its name tells, and nobody writes it."""
    told = _NAME.fullmatch(hidden)
    fd = os.open(hidden, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=room)
    try:
        found = os.fstat(fd)
        version = (str(found.st_size), str(found.st_mtime_ns), str(found.st_ino))
        return bool(told and stat.S_ISREG(found.st_mode) and version == told.groups() and not has_writer(fd))
    finally:
        os.close(fd)


def _give_back(room: int, hidden: str, directory: int, name: str) -> None:
    """Under its own name, or beside the newer file that has taken it."""
    for candidate in (name, *(f"{name}.kept-{number}" for number in range(1, 1000))):
        with suppress(FileExistsError):
            os.link(hidden, candidate, src_dir_fd=room, dst_dir_fd=directory, follow_symlinks=False)
            os.unlink(hidden, dir_fd=room)
            return
