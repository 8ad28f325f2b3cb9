"""watchfiles as a source of hints.

What it never tells (measured with 1.3 on Linux): queue overflow, writes through mmap, files in a directory that was
made or moved in faster than its watch, a replaced or unmounted root; a name that is not UTF-8 ends it. So every item
only means "look here", an added directory is scanned, twice, and `detect.watcher` and the sweep guard the rest.
Its own filter is switched off: it would drop names such as `.git/` or `*~` without a word.
"""

import asyncio
from collections.abc import AsyncIterator, Collection

from watchfiles import Change, awatch

from replicator.detect.source import Health, Listener
from replicator.model import OWN_DIR
from replicator.stores.files.canary import CanaryFile
from replicator.stores.files.export import Export

_STEP_MS = 20
"""Delay of a single event is about one step; the default of 1,600 ms debounce would add 0.8 s under steady load."""

_RESCAN_S = 0.5
"""The watch on a new directory may be armed after the first scan has passed; look once more."""


class WatchfilesSource:
    """Events of one directory tree, until it is cancelled, the directory is gone, or it can no longer watch."""

    def __init__(self, export: Export, canary: CanaryFile, health: Health) -> None:
        self._export = export
        self._canary = canary
        self._health = health
        self._path = f"{export.root}/{export.subdir}" if export.subdir else export.root

    async def run(self, listener: Listener) -> None:
        """As `detect.source.Source`. Raises OSError when a watch cannot be had, and whatever watchfiles raises."""
        async with asyncio.TaskGroup() as rescans:
            async for batch in self._batches(listener, await asyncio.to_thread(self._canary.stir)):
                if any(path == self._canary.path for _, path in batch):
                    listener.heard()
                # A set: a path that was removed and made again is in it twice, in no order.
                changes = {(change, self._relpath(path)) for change, path in batch if self._is_ours(path)}
                if (Change.deleted, "") in changes:
                    return
                listener.changed({path for _, path in changes if path})
                added = [path for change, path in changes if path and change is Change.added]
                if added and (directories := await asyncio.to_thread(self._directories, added)):
                    listener.changed(await asyncio.to_thread(self._contents, directories))
                    rescans.create_task(self._rescan(directories, listener), name="watchfiles-rescan")

    def promote(self, relpaths: Collection[str]) -> None:
        """Nothing to do: the library watches all that it can."""

    def recheck(self, directories: int) -> None:
        """The library does not say how many it watches: all, as far as is known."""
        self._health.watches = self._health.needed = directories

    async def _batches(self, listener: Listener, has_canary: bool) -> AsyncIterator[set[tuple[Change, str]]]:  # noqa: FBT001
        beside = [self._canary.directory] if has_canary and self._export.subdir else []
        events = awatch(
            self._path, *beside, watch_filter=None, debounce=_STEP_MS, step=_STEP_MS, ignore_permission_denied=False
        )
        batch = asyncio.ensure_future(anext(events))
        # awatch arms its watches before its first await, so they stand once the task has run one step.
        await asyncio.sleep(0)
        if not batch.done():
            listener.armed(can_hear=has_canary)
        try:
            while True:
                yield await batch
                batch = asyncio.ensure_future(anext(events))
        except StopAsyncIteration:
            return
        finally:
            batch.cancel()
            await asyncio.gather(batch, return_exceptions=True)
            await events.aclose()

    async def _rescan(self, directories: list[str], listener: Listener) -> None:
        await asyncio.sleep(_RESCAN_S)
        listener.changed(await asyncio.to_thread(self._contents, directories))

    def _directories(self, added: list[str]) -> list[str]:
        return [path for path in added if self._beneath(path).identity() is not None]

    def _contents(self, directories: list[str]) -> list[str]:
        """Every file beneath the new directories: no event tells of what was in them before their watch."""
        return [
            f"{directory}/{file.relpath}"
            for directory in directories
            for listing in self._beneath(directory).walk()
            for file in listing.files
        ]

    def _beneath(self, directory: str) -> Export:
        return Export(self._export.root, f"{self._export.subdir}/{directory}" if self._export.subdir else directory)

    def _relpath(self, path: str) -> str:
        return path[len(self._path) :].strip("/")

    def _is_ours(self, path: str) -> bool:
        is_beneath = path == self._path or path.startswith(f"{self._path}/")
        return is_beneath and (bool(self._export.subdir) or self._relpath(path).partition("/")[0] != OWN_DIR)
