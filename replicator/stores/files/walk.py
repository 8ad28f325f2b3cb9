"""List every directory beneath an open one, with the plain files in it and what was left out.

Owns: the order, the bounds and the reason words of a walk. Never: content, links, other file systems.
Few descriptors are held however deep the tree is; one bad entry or directory never stops the rest.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from replicator.errors import Refused
from replicator.model import OWN_DIR, LocalFile
from replicator.stores.files.beneath import fingerprint_of, obstacle, open_directory, open_for_listing

RELPATH_MAX_BYTES = 4096
"""PATH_MAX of Linux, four times the longest S3 key: directories beyond it are named, not entered."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that was seen and left out: symlink, special, hard-linked, unreadable, other-device or name."""

    relpath: str
    reason: str


@dataclass(frozen=True, slots=True)
class Directory:
    """The plain files directly in one directory, in byte order of their names."""

    relpath: str
    files: tuple[LocalFile, ...]
    skipped: tuple[Skipped, ...]

    @property
    def is_complete(self) -> bool:
        """False when the directory itself is among the skipped: then an absent name proves nothing."""
        return all(skipped.relpath != self.relpath for skipped in self.skipped)


def walk(top_fd: int, *, hard_links: str, is_root: bool) -> Iterator[Directory]:
    """Every directory beneath `top_fd` (the caller's to close): parents before children, siblings in byte order.

    `is_root` says that `top_fd` is the top of an export, where our own directory is left out.
    """
    rules = _Rules(device=os.fstat(top_fd).st_dev, hard_links=hard_links, own_dir=OWN_DIR if is_root else None)
    pending = [""]
    with closing(_Position(top_fd)) as position:
        while pending:
            relpath = pending.pop()
            items: list[LocalFile | Skipped | str] = []
            try:
                with position.listing(relpath) as entries:
                    items.extend(item for entry in entries if (item := rules.judge(relpath, entry)) is not None)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except Refused:
                items.append(Skipped(relpath, "symlink"))
            except OSError:
                items.append(Skipped(relpath, "unreadable"))
            files = sorted((item for item in items if isinstance(item, LocalFile)), key=_file_order)
            yield Directory(relpath, tuple(files), tuple(item for item in items if isinstance(item, Skipped)))
            pending += sorted((item for item in items if isinstance(item, str)), key=os.fsencode, reverse=True)


def _file_order(file: LocalFile) -> bytes:
    return os.fsencode(file.relpath)


class _Position:
    """The directory listed last. It is most often the parent of the next, which spares the descent from the top."""

    def __init__(self, top_fd: int) -> None:
        self._top_fd = top_fd
        self._relpath = ""
        self._fd = os.dup(top_fd)

    @contextmanager
    def listing(self, relpath: str) -> Iterator[Iterator["os.DirEntry[str]"]]:
        parent, _, name = relpath.rpartition("/")
        if name and parent == self._relpath:
            fd = open_directory(".", [name], dir_fd=self._fd)
        else:
            fd = open_directory(".", relpath.split("/") if relpath else [], dir_fd=self._top_fd)
        os.close(self._fd)
        self._relpath, self._fd = relpath, fd
        readable = open_for_listing(fd)
        try:
            with os.scandir(readable) as entries:
                yield entries
        finally:
            os.close(readable)

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class _Rules:
    device: int
    hard_links: str
    own_dir: str | None

    def judge(self, parent: str, entry: "os.DirEntry[str]") -> LocalFile | Skipped | str | None:
        """What an entry is: a file, something left out, the relpath of a directory to enter, or None to pass over."""
        if not parent and entry.name == self.own_dir:
            return None
        relpath = f"{parent}/{entry.name}" if parent else entry.name
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError:
            return Skipped(relpath, "unreadable")
        if not stat.S_ISDIR(found.st_mode):
            reason = obstacle(found, device=self.device, hard_links=self.hard_links)
            return Skipped(relpath, reason) if reason else LocalFile(relpath, fingerprint_of(found))
        if found.st_dev != self.device:
            return Skipped(relpath, "other-device")
        return Skipped(relpath, "name") if len(os.fsencode(relpath)) > RELPATH_MAX_BYTES else relpath
