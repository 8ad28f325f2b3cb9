"""The kernel's events as a source of hints, without a library between.

Readers cost nothing: their opens and reads are not asked for. No link is followed. No name ends it: names are bytes to
the kernel, and surrogate-escaped here. A directory that appears is watched first and read afterwards. A lost event is
known to be lost: after an overflow the tree is watched anew and everything looked at. Idle, it wakes for nothing.
Source: inotify(7), "Limitations and caveats".
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress

from replicator.detect.events import Batch, Reader
from replicator.detect.source import Health, Listener
from replicator.detect.tree import WatchTree
from replicator.stores import inotify
from replicator.stores.files.canary import CanaryFile
from replicator.stores.files.export import Export
from replicator.stores.inotify import Inotify, OutOfWatches
from replicator.stores.kernel import tightest_watch_limit

_TICK_S = 2.0
"""Seconds until a file that was made or written but not closed is told, and again while it is written. Sooner would
use up the path's debounce window just before the writer closes it."""

_BURST_S = 0.002
"""Looks at the queue that follow each other closer than this, several times in a row, are a burst. It is taken in gulps
of a millisecond: turning the event loop for every file costs more than its events."""

_BURST_LOOKS = 8

_RECHECK_S = 60.0
"""Seconds between two tours of the directories for no better reason than a count that differs."""

_SHORT_RECHECK_S = 600.0
"""The same while watches are short, unless the limit has changed: others of this user may have given some back."""

_FLOOD_S = 1.0
"""Seconds between two tours after overflows, so that a flood of events is not answered by one of tours."""


class InotifySource:
    """Events of one directory tree, until it is cancelled or the directory is gone. It is run once."""

    def __init__(self, export: Export, canary: CanaryFile, health: Health) -> None:
        self._export = export
        self._canary = canary
        self._health = health
        self._stirred = asyncio.Event()
        self._wanted: set[str] = set()
        self._checked_s = 0.0
        self._counted: int | None = None
        self._explained = 0
        self._limit = tightest_watch_limit()
        self._recheck_s: float | None = None
        self._tick_s: float | None = None

    async def run(self, listener: Listener) -> None:
        """As `detect.source.Source`. Raises OSError when the kernel has no queue for us."""
        queue = Inotify()
        try:
            tree = WatchTree(self._export, queue)
            # Before the tree, which takes what there is.
            canary_wd = await asyncio.to_thread(self._watch_canary, queue)
            await self._arm(tree)
            if tree.watches.root_wd is None:
                return
            reader = Reader(tree.watches, above=tree.above, canary_wd=canary_wd, has_own_dir=not self._export.subdir)
            listener.armed(can_hear=canary_wd is not None)
            await self._follow(queue, tree, reader, listener)
        finally:
            # A thread that is still at the tree gets errors from now on, and ends.
            queue.close()

    def promote(self, relpaths: Collection[str]) -> None:
        """Have these directories watched too, in the place of colder ones."""
        if "limit" in self._health.faults:
            self._wanted.update(relpaths)
            self._stirred.set()

    def recheck(self, directories: int) -> None:
        """Go through the directories again when there may be more to watch, or more watches, than the last tour found.

        Not too often: what may not be read is met by a sweep and cannot be watched, so that a difference may stay.
        """
        gap, now_s = directories - self._health.watches, asyncio.get_running_loop().time()
        age_s = now_s - self._checked_s
        if "limit" in self._health.faults:
            is_due = age_s > _SHORT_RECHECK_S or tightest_watch_limit() != self._limit
        else:
            is_due = age_s > _RECHECK_S and gap != self._explained
        if is_due:
            self._counted = directories
            self._recheck_s = now_s
            self._stirred.set()

    async def _follow(self, queue: Inotify, tree: WatchTree, reader: Reader, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        looked_s, looks = loop.time(), 0
        while True:
            await self._wait(queue)
            looks = looks + 1 if loop.time() - looked_s < _BURST_S else 0
            if looks > _BURST_LOOKS:
                await asyncio.sleep(_BURST_S / 2)
            looked_s = loop.time()
            batch = reader.take(queue.read())
            if batch.is_canary_heard:
                listener.heard()
            if batch.finished:
                listener.changed(reader.relpaths(batch.finished))
            if batch.is_over:
                return
            if batch.is_overflow:
                self._health.overflows += 1
                listener.overflowed()
                self._recheck_s = max(loop.time(), self._checked_s + _FLOOD_S)
            await self._keep_watches(tree, reader, batch, listener)
            if self._tick_s is not None and self._tick_s <= loop.time():
                self._tick_s = None
                # Heard again before they are told, so that no write falls between.
                if tree.is_unsettled:
                    await asyncio.to_thread(tree.settle)
                listener.changed(reader.take_open())
            elif self._tick_s is None and (reader.has_open or tree.is_unsettled):
                self._tick_s = loop.time() + _TICK_S
            self._count(tree)

    async def _wait(self, queue: Inotify) -> None:
        """Until events wait, somebody asks for something, or something is due."""
        loop = asyncio.get_running_loop()
        due_s = min(filter(None, (self._tick_s, self._recheck_s)), default=None)
        loop.add_reader(queue, self._stirred.set)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._stirred.wait()
        finally:
            loop.remove_reader(queue)
        self._stirred.clear()

    async def _keep_watches(self, tree: WatchTree, reader: Reader, batch: Batch, listener: Listener) -> None:
        """Watch what appeared, what is asked for, and after losses everything; then tell what no event has told."""
        if batch.appeared:
            files = await asyncio.to_thread(tree.adopt, reader.relpaths(batch.appeared))
            if files is None:
                listener.lost()
            else:
                listener.changed(files)
        if batch.noisy:
            await asyncio.to_thread(tree.hush, batch.noisy)
        if tree.is_short:
            tree.warm(wd for wd, _ in batch.finished)
        if self._wanted:
            wanted, self._wanted = self._wanted, set()
            await asyncio.to_thread(tree.promote, wanted)
        if self._recheck_s is not None and self._recheck_s <= asyncio.get_running_loop().time():
            self._recheck_s = None
            await self._arm(tree)
            if self._counted is not None:
                self._explained, self._counted = self._counted - self._health.watches, None
            listener.lost()

    async def _arm(self, tree: WatchTree) -> None:
        self._limit = tightest_watch_limit()
        await asyncio.to_thread(tree.arm)
        self._checked_s = asyncio.get_running_loop().time()
        self._count(tree)

    def _watch_canary(self, queue: Inotify) -> int | None:
        with self._canary.opened() as fd:
            try:
                return None if fd is None else queue.add(fd, inotify.ATTRIB)
            except (OSError, OutOfWatches):
                return None

    def _count(self, tree: WatchTree) -> None:
        health = self._health
        counts = len(tree.watches), tree.needed
        if counts != (health.watches, health.needed) or tree.is_short != ("limit" in health.faults):
            health.watches, health.needed = counts
            health.note("limit", shortage(*counts) if tree.is_short else "")


def shortage(watches: int, needed: int) -> str:
    """What to say when the kernel has fewer watches than there are directories."""
    name, limit = tightest_watch_limit()
    # The limit counts what others of this user hold, too, so twice the need is asked for.
    wanted = 1 << (2 * max(needed, limit or 0) - 1).bit_length()
    return f"{watches} of {needed} directories are watched, sweeps find changes in the others; set {name} to {wanted}"
