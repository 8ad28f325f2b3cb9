"""What the kernel's events mean: files to look at, directories that appeared, and what can no longer be relied on.

Pure: no kernel, no clock. A file is finished when it was closed after writing, renamed, removed or given other
attributes. One that was made or written may still be: it is kept among the open ones, so that it is not looked at too
early, until it is finished or somebody asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from replicator.detect.watches import Watches
from replicator.model import OWN_DIR
from replicator.stores import inotify
from replicator.stores.inotify import Event

SELF = inotify.DELETE_SELF | inotify.MOVE_SELF
"""What is asked for beside `CHANGES` where a directory's own fate is to be told."""

CHANGES = inotify.CREATE | inotify.CLOSE_WRITE | inotify.MODIFY | inotify.ATTRIB | inotify.DELETE
CHANGES |= inotify.MOVED_FROM | inotify.MOVED_TO
"""Not OPEN, ACCESS and CLOSE_NOWRITE: readers cost nothing."""

_NOISY = 32
"""So many writes in a directory until its open files are asked for make it a noisy one: a writer that never pauses
would make an event a write."""

_UNFINISHED = inotify.CREATE | inotify.MODIFY
_APPEARED = inotify.CREATE | inotify.MOVED_TO
_GONE = inotify.MOVED_FROM | inotify.DELETE

Name = tuple[int, str]
"""A name in the directory of a watch."""


@dataclass(slots=True)
class Batch:
    """What some events say together, each name once, in order."""

    finished: dict[Name, None] = field(default_factory=dict)
    appeared: dict[Name, None] = field(default_factory=dict)
    """Directories that are to be watched and read."""
    is_overflow: bool = False
    """Events were thrown away before these or among them."""
    is_over: bool = False
    """The directory itself, or one above it, is not what it was."""
    is_canary_heard: bool = False
    noisy: list[int] = field(default_factory=list)
    """Watches on directories in which so much is written that it had better not be heard for a while."""


class Reader:
    """Reads events on `watches`, which it keeps true as far as events tell."""

    def __init__(
        self, watches: Watches, *, above: Iterable[int] = (), canary_wd: int | None = None, has_own_dir: bool = False
    ) -> None:
        """`above` are the watches on directories above ours; `has_own_dir`: `.replicator` may stand in ours."""
        self._watches = watches
        self._above = frozenset(above)
        self._canary_wd = canary_wd
        self._own_dir = OWN_DIR if has_own_dir else None
        self._open: dict[Name, None] = {}
        self._writes: dict[int, int] = {}

    @property
    def has_open(self) -> bool:
        """Whether files were made or written that were not finished since."""
        return bool(self._open)

    def take(self, events: Iterable[Event]) -> Batch:
        """Read events in their order."""
        batch = Batch()
        unfinished, finished = self._open, batch.finished
        for wd, mask, name in events:
            if not name or mask & inotify.ISDIR:
                self._take_directory(batch, wd, mask, name)
            elif mask & _UNFINISHED:
                unfinished[wd, name] = None
                if mask & inotify.MODIFY:
                    self._writes[wd] = writes = self._writes.get(wd, 0) + 1
                    if writes == _NOISY:
                        batch.noisy.append(wd)
            else:
                unfinished.pop((wd, name), None)
                finished[wd, name] = None
        return batch

    def _take_directory(self, batch: Batch, wd: int, mask: int, name: str) -> None:
        if wd == self._canary_wd:
            batch.is_canary_heard |= bool(mask & inotify.ATTRIB)
            return
        if mask & inotify.Q_OVERFLOW:
            batch.is_overflow = True
        elif name:
            if mask & _GONE:
                self._watches.detach(wd, name)
            if mask & _APPEARED or (mask & inotify.ATTRIB and not self._watches.has_child(wd, name)):
                # A directory that was given other rights may be readable now.
                batch.appeared[wd, name] = None
        elif wd in self._above or wd == self._watches.root_wd:
            batch.is_over |= bool(mask & (SELF | inotify.UNMOUNT | inotify.IGNORED))
        elif mask & inotify.IGNORED:
            self._watches.forget(wd)

    def relpaths(self, names: Iterable[Name]) -> list[str]:
        """Where these names are now. Those in directories that are gone, and our own, are left out."""
        paths: dict[int, str | None] = {}
        found = []
        for wd, name in names:
            if wd not in paths:
                paths[wd] = self._watches.path(wd)
            above = paths[wd]
            if above:
                found.append(f"{above}/{name}")
            elif above is not None and name != self._own_dir:
                found.append(name)
        return found

    def take_open(self) -> list[str]:
        """Where the open files are; from now on they count as not seen."""
        found = self.relpaths(self._open)
        self._open.clear()
        self._writes.clear()
        return found
