"""List every directory beneath an open one, with the plain files in it and what was left out.

Owns: the order, the bounds and the reason words of a walk, and the signature that tells a directory's versions apart.
Never: content, links, other file systems. Few descriptors are held however deep the tree is, and little memory however
large a directory; one bad entry or directory never stops the rest.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from replicator.errors import Refused
from replicator.model import OWN_DIR, LocalFile
from replicator.stores.files.beneath import fingerprint_of, obstacle, open_directory

RELPATH_MAX_BYTES = 4096
"""PATH_MAX of Linux, four times the longest S3 key: directories beyond it are named, not entered."""

PIECE_ENTRIES = 8192
"""A directory of more entries comes in pieces: a few MB each, whatever it holds."""

_HELD_DIRECTORIES = 8
"""Open directories above the present one, so that its siblings are reached in one step."""

_LISTING = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that was seen and left out: symlink, special, hard-linked, unreadable, other-device or name."""

    relpath: str
    reason: str


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory, or a piece of a large one: the plain files directly in it, in byte order of their names.

    Pieces follow each other; the signature and the count of the whole are the XOR and the sum of theirs.
    """

    relpath: str
    files: tuple[LocalFile, ...]
    """None of them when `is_known`."""
    skipped: tuple[Skipped, ...]
    directories: tuple[str, ...] = ()
    """Relpaths of those in it, in no order; the walk enters them next."""
    count: int = 0
    """How many plain files there are."""
    signature: int = 0
    """64 bits of every file's name and version, in any order. Means something to this process only."""
    is_known: bool = False
    """Its signature is the one that the caller knows."""
    is_whole: bool = True
    """False for each piece of several."""

    @property
    def is_complete(self) -> bool:
        """False when the directory itself is among the skipped: then an absent name proves nothing."""
        return all(skipped.relpath != self.relpath for skipped in self.skipped)


def walk(top_fd: int, *, hard_links: str, is_root: bool, known: Mapping[str, int]) -> Iterator[Directory]:
    """Every directory beneath `top_fd` (the caller's to close): parents before children, siblings in byte order.

    `is_root` says that `top_fd` is the top of an export, where our own directory is left out. `known` are signatures
    by relpath: while a directory has its known one, no value is made for a file in it, which costs less than half.
    """
    rules = _Rules(device=os.fstat(top_fd).st_dev, hard_links=hard_links, own_dir=OWN_DIR if is_root else None)
    pending = [""]
    with closing(_Position(top_fd)) as position:
        while pending:
            relpath = pending.pop()
            beneath: list[str] = []
            try:
                for piece in rules.pieces(relpath, position.enter(relpath), known.get(relpath)):
                    beneath += piece.directories
                    yield piece
            except (FileNotFoundError, NotADirectoryError):
                pass
            except Refused:
                yield Directory(relpath, (), (Skipped(relpath, "symlink"),))
            except OSError:
                yield Directory(relpath, (), (Skipped(relpath, "unreadable"),))
            pending += sorted(beneath, key=os.fsencode, reverse=True)


class _Position:
    """The directory listed last, and a few above it: the next one's parent is most often among them."""

    def __init__(self, top_fd: int) -> None:
        self._top_fd = top_fd
        self._held: list[tuple[str, int]] = []

    def enter(self, relpath: str) -> int:
        """A readable descriptor of the directory, ours until it is left. Raises OSError, and LeftOut for a link."""
        parent, _, name = relpath.rpartition("/")
        while self._held and self._held[-1][0] != parent:
            os.close(self._held.pop()[1])
        if self._held:
            fd = _open(name, self._held[-1][1])
        else:
            above = open_directory(".", parent.split("/") if parent else [], dir_fd=self._top_fd)
            try:
                fd = _open(name or ".", above)
            finally:
                os.close(above)
        self._held.append((relpath, fd))
        if len(self._held) > _HELD_DIRECTORIES:
            os.close(self._held.pop(0)[1])
        return fd

    def close(self) -> None:
        for _, fd in self._held:
            os.close(fd)


def _open(name: str, dir_fd: int) -> int:
    try:
        return os.open(name, _LISTING, dir_fd=dir_fd)
    except NotADirectoryError:
        os.close(open_directory(".", [name], dir_fd=dir_fd))  # it tells a link from a file
        raise


@dataclass(frozen=True, slots=True)
class _Rules:
    device: int
    hard_links: str
    own_dir: str | None

    def pieces(self, relpath: str, fd: int, known: int | None) -> Iterator[Directory]:
        """What is in the directory `fd`. Files of an unknown version are looked at again, for nothing was kept."""
        if known is not None:
            with os.scandir(fd) as entries:
                whole = self._read(relpath, fd, entries, is_survey=True)
            if whole.signature == known:
                yield whole
                return
        with os.scandir(fd) as entries:
            is_whole = True
            while True:
                some = list(islice(entries, PIECE_ENTRIES))
                is_last = len(some) < PIECE_ENTRIES
                is_whole = is_whole and is_last
                yield self._read(relpath, fd, some, is_whole=is_whole)
                if is_last:
                    return

    def _read(
        self,
        relpath: str,
        fd: int,
        entries: Iterable["os.DirEntry[str]"],
        *,
        is_survey: bool = False,
        is_whole: bool = True,
    ) -> Directory:
        """The hot loop of a sweep: one fstatat(2) and one hash a file, and in a survey nothing more."""
        if not relpath:
            entries = (entry for entry in entries if entry.name != self.own_dir)
        prefix = f"{relpath}/" if relpath else ""
        files: list[LocalFile] = []
        skipped: list[Skipped] = []
        directories: list[str] = []
        count = signature = 0
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError:
                os.stat(".", dir_fd=fd)  # raises where the fault is the whole directory's
                skipped.append(Skipped(prefix + entry.name, "unreadable"))
                continue
            reason = obstacle(found, device=self.device, hard_links=self.hard_links)
            if not reason:
                count += 1
                signature ^= hash((entry.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
                if not is_survey:
                    files.append(LocalFile(prefix + entry.name, fingerprint_of(found)))
            elif reason == "directory" and not (reason := self._closed(prefix + entry.name, found)):
                directories.append(prefix + entry.name)
            else:
                skipped.append(Skipped(prefix + entry.name, reason))
        files.sort(key=_file_order)
        return Directory(
            relpath,
            tuple(files),
            tuple(skipped),
            tuple(directories),
            count=count,
            signature=signature,
            is_known=is_survey,
            is_whole=is_whole,
        )

    def _closed(self, relpath: str, found: os.stat_result) -> str:
        """Why a directory is not entered, '' when it is."""
        if found.st_dev != self.device:
            return "other-device"
        return "name" if len(os.fsencode(relpath)) > RELPATH_MAX_BYTES else ""


def _file_order(file: LocalFile) -> bytes:
    return os.fsencode(file.relpath)
