"""The door to the files of one export directory. Nothing else touches a path beneath it.

Owns: every operation on export paths, relative to a directory descriptor, through no link at any component, regular
files of one file system only. Never: decisions, retries, the content of `.replicator` but our own temporary files.
All calls block and are safe from any thread; nothing is kept open between them but what they return.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from replicator.errors import KeyUnsafe, LeftOut, Refused, SourceChanged, TransferError
from replicator.model import OWN_DIR, Fingerprint, LocalFile
from replicator.stores.files.beneath import (
    OBSTACLES,
    descend,
    fingerprint_of,
    obstacle,
    open_directory,
    split,
    translating,
)
from replicator.stores.files.openfile import OpenFile, ignore_lease_signals
from replicator.stores.files.publish import Publication, set_aside
from replicator.stores.files.remove import remove
from replicator.stores.files.root import ExportRoot
from replicator.stores.files.temp import TempFile
from replicator.stores.files.walk import Directory, Skipped, walk

__all__ = ["Directory", "Export", "OpenFile", "Publication", "Skipped", "TempFile", "ignore_lease_signals"]

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NOTHING_KNOWN: Mapping[str, int] = MappingProxyType({})


class Export(ExportRoot):
    """The directory `subdir` of an export `root`; relpaths count from there. The export is its file system's.

    Raises, wherever a relpath is given: KeyUnsafe for one that leads elsewhere, LeftOut for what is no plain file by
    our rules, Refused for what else the file system forbids, SourceChanged for what moved meanwhile, DiskFull, and
    Retryable when this process lacks means.
    """

    def __init__(self, root: str, subdir: str = "", *, hard_links: str = "refuse") -> None:
        super().__init__(root)
        self.subdir = subdir
        self._base = split(subdir) if subdir else []
        self._hard_links = hard_links

    def identity(self) -> tuple[int, int] | None:
        """(st_dev, st_ino) of the directory; None when it is missing, no directory, out of reach or behind a link."""
        try:
            fd = open_directory(self.root, self._base)
        except (OSError, Refused):
            return None
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        return found.st_dev, found.st_ino

    def stat(self, relpath: str, *, is_wanted: bool = False) -> LocalFile | None:
        """The plain file at `relpath`, or None; LeftOut for anything else, and Refused if `is_wanted` below a file."""
        with translating(relpath, "looked at"):
            try:
                with self._parent(relpath) as (directory, name, device):
                    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    self._check(relpath, found, device)
                    is_readable = os.access(name, os.R_OK, dir_fd=directory, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError) as exc:
                if is_wanted and isinstance(exc, NotADirectoryError):
                    raise Refused(f"a file is where {relpath!r} needs a directory. Rename one of the two") from exc
                return None
        if not is_readable:
            raise Refused(f"{relpath!r} may not be read. Give this user the permission, or run as the file's owner")
        return LocalFile(relpath, fingerprint_of(found))

    def open(self, relpath: str) -> OpenFile:
        """Open a plain file for reading. Errors as `stat`, and SourceChanged when nothing is there."""
        if (file := self.open_if_there(relpath)) is None:
            raise SourceChanged(f"{relpath!r} vanished before it could be read. It is looked at again")
        return file

    def open_if_there(self, relpath: str) -> OpenFile | None:
        """As `open`; None when nothing is there."""
        with translating(relpath, "read"):
            try:
                directory, name, device = self._enter(relpath)
            except (FileNotFoundError, NotADirectoryError):
                return None
            try:
                # Looked at before it is opened, because opening a device can act on it; and again after.
                self._check(relpath, os.stat(name, dir_fd=directory, follow_symlinks=False), device)
                fd = os.open(name, _READ_FLAGS, dir_fd=directory)
                try:
                    found = os.fstat(fd)
                    self._check(relpath, found, device)
                    return OpenFile(fd, relpath, directory=directory, name=name, found=found)
                except BaseException:
                    os.close(fd)
                    raise
            except FileNotFoundError:
                os.close(directory)
                return None
            except BaseException:
                os.close(directory)
                raise

    def walk(self, known: Mapping[str, int] = _NOTHING_KNOWN) -> Iterator[Directory]:
        """Every directory with its plain files; nothing when the directory itself is missing.

        Where a directory still has its `known` signature (by relpath), its files are counted and not told.

        The walk keeps to the directory it began in, even when another takes its name: compare `identity` before
        and after. Files whose content may not be read are listed; `open` tells.
        """
        try:
            fd = open_directory(self.root, self._base)
        except (OSError, Refused):
            return
        try:
            yield from walk(fd, hard_links=self._hard_links, is_root=not self._base, known=known)
        finally:
            os.close(fd)

    def publish(self, temp: TempFile, relpath: str, *, replacing: Fingerprint | None) -> Fingerprint:
        """Move a finished `temp` to `relpath`, durably; parent directories are made. Returns its fingerprint there.

        After any error `temp` is not in place, but for a failed directory sync. See `Publication`.
        """
        with self.publication() as publication:
            publication.place(temp, relpath, replacing=replacing)
            placed = publication.settle()[relpath]
        if isinstance(placed, TransferError):
            raise placed
        return placed

    def publication(self) -> Publication:
        """For several files at a time."""
        return Publication(lambda relpath: self._enter(relpath, make_mode=0o755)[:2])

    def set_aside(self, relpath: str, *, stamp: str, limit: int = 10) -> str:
        """Rename a locally edited file to `<name>.sync-conflict-<stamp>` beside it; returns the new relpath.

        Long names are shortened, taken ones get a number. Refused when `limit` copies exist: nothing is deleted.
        """
        with translating(relpath, "set aside"), self._parent(relpath) as (directory, name, _):
            copy = set_aside(directory=directory, name=name, relpath=relpath, stamp=stamp, limit=limit)
        return relpath.removesuffix(name) + copy

    def remove(self, relpath: str, *, expected: Fingerprint, forget: Callable[[], None]) -> None:
        """Remove the file, which must still be the version `expected`, closed by every writer; else SourceChanged.

        It is hidden first, so that no newer version can slip in; then `forget` drops its record, and its bytes go.
        """
        with translating(relpath, "removed"), self._parent(relpath) as (directory, name, _):
            remove(self.root, directory=directory, name=name, relpath=relpath, expected=expected, forget=forget)

    @contextmanager
    def _parent(self, relpath: str, *, make_mode: int | None = None) -> Iterator[tuple[int, str, int]]:
        """As `_enter`; the descriptor is closed at the end."""
        directory, name, device = self._enter(relpath, make_mode=make_mode)
        try:
            yield directory, name, device
        finally:
            os.close(directory)

    def _enter(self, relpath: str, *, make_mode: int | None = None) -> tuple[int, str, int]:
        """The directory that holds `relpath` (a descriptor), the name in it, and the device of our directory."""
        *parents, name = split(relpath)
        if (*self._base, *parents, name)[0] == OWN_DIR:
            raise KeyUnsafe(f"{relpath!r} lies in replicator's own directory. Rename it where it comes from")
        base = open_directory(self.root, self._base, make_mode=make_mode)
        device = os.fstat(base).st_dev
        if not parents:
            return base, name, device
        directory = descend(base, parents, make_mode=make_mode)
        if os.fstat(directory).st_dev != device:
            os.close(directory)
            raise LeftOut(f"{relpath!r} {OBSTACLES['other-device']}", rule="other-device")
        return directory, name, device

    def _check(self, relpath: str, found: os.stat_result, device: int) -> None:
        if reason := obstacle(found, device=device, hard_links=self._hard_links):
            raise LeftOut(f"{relpath!r} {OBSTACLES[reason]}", rule=reason)
