"""The watches on a directory tree: set, kept to the budget, and moved to where changes are.

A watch is set on a directory before its names are read, so that nothing falls between. When there are more directories
than watches, those with the newest changes have them, each with all directories above it; the sweep has the others.
Everything here blocks; the caller sees to it that one thread at a time is at it.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from replicator.detect.events import CHANGES, SELF
from replicator.detect.watches import Watches, hottest
from replicator.errors import Refused
from replicator.stores import inotify
from replicator.stores.files.export import Export
from replicator.stores.files.tour import Arrive, tour, visit
from replicator.stores.inotify import Inotify, OutOfWatches
from replicator.stores.kernel import watch_limit

_SPARE = 16
"""One watch in so many is left to others of the same user, whom nothing tells of the limit."""

_MANY_FILES = 10_000
"""More files than this in directories that appeared are a sweep's work, which holds back what the queue cannot take."""


class _Posts:
    """Watches on open directories, as many as the budget and the kernel allow."""

    def __init__(self, queue: Inotify) -> None:
        self.watches = Watches()
        self.budget = 0
        self._queue = queue

    def set(self, relpath: str, fd: int, *, heat: float, without: int = 0) -> bool:
        """See to it that a watch stands on the directory; False when there is none left for it."""
        mask = CHANGES | inotify.EXCL_UNLINK | (0 if relpath else SELF)
        try:
            wd = self._queue.add(fd, mask & ~without)
        except OutOfWatches:
            held = len(self.watches)
            self.budget = max(1, held - held // _SPARE)
            return False
        is_known = wd in self.watches
        if (is_known or len(self.watches) < self.budget) and self.watches.put(relpath, wd, heat=heat):
            return True
        if not is_known:
            self._queue.remove(wd)
        return False

    def has_place(self, relpath: str) -> bool:
        """Whether a watch stands on the directory above, so that one on this directory tells where it is."""
        return not relpath or self.watches.has(relpath.rpartition("/")[0])

    def exchange(self, relpath: str, fd: int, *, heat: float) -> bool:
        """Set a watch in the place of a colder one; False when there is none."""
        # Some at a time, since finding them means looking at all.
        colder = self.watches.coldest(max(1, self.budget // _SPARE), below=heat)
        self.give_back(colder)
        return bool(colder) and self.set(relpath, fd, heat=heat)

    def give_back(self, wds: Iterable[int]) -> None:
        """Remove watches, and those that stood beneath their directories."""
        for wd in wds:
            self.watches.forget(wd)
            self._queue.remove(wd)
        self.clear_adrift()

    def clear_adrift(self) -> None:
        """Remove the watches on directories that moved away and did not come back."""
        for wd in self.watches.clear_adrift():
            self._queue.remove(wd)


class WatchTree:
    """The watches of one mapped directory in one queue of events."""

    def __init__(self, export: Export, queue: Inotify, *, limit: Callable[[], int | None] = watch_limit) -> None:
        self.is_short = False
        """Whether there were fewer watches than directories when they were last set."""
        self.above: frozenset[int] = frozenset()
        """Watches on the directories above the mapped one, up to the export's root: they tell when those move."""
        self._export = export
        self._queue = queue
        self._limit = limit
        self._posts = _Posts(queue)
        self.watches = self._posts.watches
        self._met = 0
        self._hushed: set[int] = set()

    @property
    def needed(self) -> int:
        """Directories that there are to watch; while watches are short, those that were met."""
        return max(self._met, len(self.watches)) if self.is_short else len(self.watches)

    @property
    def is_unsettled(self) -> bool:
        """Whether `settle` has something to do."""
        return bool(self._hushed) or self.watches.has_adrift

    def arm(self) -> None:
        """Watch every directory, or the hottest; afterwards no watch stands on what is not there any more.

        Without the directory itself there is no watch. Raises OutOfWatches when there is none even for that one.
        """
        limit = self._limit()
        self._posts.budget = 1 << 62 if limit is None else max(1, limit - limit // _SPARE)
        self.is_short = False
        census: list[tuple[float, str]] = []

        def arrive(relpath: str, fd: int, mtime_s: float) -> None:
            census.append((mtime_s, relpath))
            if not self.is_short:
                self.is_short = not self._posts.set(relpath, fd, heat=mtime_s)

        with suppress(OSError, Refused):
            self._watch_above()
            for _ in tour(self._export.root, self._export.subdir, "", arrive=arrive):
                pass
        if self.is_short and self.watches.root_wd is None:
            raise OutOfWatches
        self._met = len(census)
        chosen = {relpath for _, relpath in census} if not self.is_short else hottest(census, self._posts.budget)
        self._posts.give_back(wd for wd in self.watches if self.watches.path(wd) not in chosen)
        if self.is_short:
            self._visit(sorted(chosen), lambda relpath, fd, mtime_s: self._posts.set(relpath, fd, heat=mtime_s))

    def adopt(self, relpaths: Iterable[str]) -> list[str] | None:
        """Watch directories that appeared, with all beneath them; the files in them, None when they are too many."""
        files: list[str] | None = []

        def arrive(relpath: str, fd: int, mtime_s: float) -> None:
            # Without a watch above it has moved on already, or nobody would be told when it does.
            if self._posts.has_place(relpath) and not self._posts.set(relpath, fd, heat=mtime_s):
                if not self.is_short:
                    self.is_short, self._met = True, len(self.watches)
                self._met += not self._posts.exchange(relpath, fd, heat=mtime_s)

        for relpath in relpaths:
            with suppress(OSError, Refused):
                for level in tour(self._export.root, self._export.subdir, relpath, arrive=arrive):
                    if files is not None:
                        files += level.files
                        files = files if len(files) <= _MANY_FILES else None
        return files

    def warm(self, wds: Iterable[int]) -> None:
        """Something happened in these directories: they are the last to give their watches up."""
        now = time.time()
        for wd in wds:
            self.watches.warm(wd, now)

    def promote(self, relpaths: Iterable[str]) -> None:
        """Move watches to these directories, which have just changed, from the coldest ones."""
        now = time.time()
        wanted = {relpath for relpath in relpaths if not self.watches.has(relpath)}
        for relpath in tuple(wanted):
            while relpath := relpath.rpartition("/")[0]:
                wanted.add(relpath)

        def arrive(relpath: str, fd: int, _: float) -> None:
            if self._posts.has_place(relpath) and not self._posts.set(relpath, fd, heat=now):
                self._posts.exchange(relpath, fd, heat=now)

        # In this order a directory comes after the one that it is in.
        self._visit(sorted(wanted), arrive)

    def hush(self, wds: Iterable[int]) -> None:
        """Hear no writes in these directories until `settle`: only what is finished, made, renamed or removed."""
        self._hushed.update(wds)
        self._set_anew(wds, without=inotify.MODIFY)

    def settle(self) -> None:
        """Hear writes everywhere again, and give back the watches on directories that moved away for good."""
        hushed, self._hushed = self._hushed, set()
        self._posts.clear_adrift()
        self._set_anew(hushed)

    def _set_anew(self, wds: Iterable[int], *, without: int = 0) -> None:
        relpaths = [path for wd in wds if (path := self.watches.path(wd)) is not None]
        self._visit(relpaths, lambda path, fd, heat: self._posts.set(path, fd, heat=heat, without=without))

    def _visit(self, relpaths: Iterable[str], arrive: Arrive) -> None:
        # Gone with the directory itself: other events tell the source.
        with suppress(OSError, Refused):
            visit(self._export.root, self._export.subdir, relpaths, arrive=arrive)

    def _watch_above(self) -> None:
        parts = self._export.subdir.split("/") if self._export.subdir else []
        above = []

        def arrive(_: str, fd: int, __: float) -> None:
            above.append(self._queue.add(fd, SELF))

        with suppress(OutOfWatches):  # The tree comes next, and finds the same.
            visit(self._export.root, "", ["/".join(parts[:depth]) for depth in range(len(parts))], arrive=arrive)
        self.above = frozenset(above)
