"""watchfiles as a source of hints.

What it never tells (measured with 1.3 on Linux): queue overflow, writes through mmap, files in a directory that was
made or moved in faster than its watch, a replaced or unmounted root; a name that is not UTF-8 ends it. So every item
only means "look here", an added directory is scanned, twice, and `detect.watcher` and the sweep guard the rest.
Its own filter is switched off: it would drop names such as `.git/` or `*~` without a word.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from watchfiles import Change, awatch

from replicator.model import OWN_DIR
from replicator.stores.files.export import Export

_STEP_MS = 20
"""Delay of a single event is about one step; the default of 1,600 ms debounce would add 0.8 s under steady load."""

_RESCAN_S = 0.5
"""The watch on a new directory may be armed after the first scan has passed; look once more."""


class WatchfilesSource:
    """Events of one directory tree, emitted as batches of relpaths until it is cancelled or can no longer watch."""

    name = "watchfiles"

    def __init__(self, root: str, subdir: str) -> None:
        self._root = root
        self._subdir = subdir
        self._path = f"{root}/{subdir}" if subdir else root

    async def run(self, emit: Callable[[Iterable[str]], None], armed: Callable[[], None]) -> None:
        """Call `armed` once watches stand, then `emit` per batch. Returns when the source ended by itself.

        Raises OSError when a watch cannot be had, and whatever watchfiles raises when it broke.
        """
        async with asyncio.TaskGroup() as rescans:
            async for batch in self._batches(armed):
                changes = {self._relpath(path): change for change, path in batch}
                found = [path for path in changes if path and not self._is_own(path)]
                if not found:
                    continue
                emit(found)
                added = [path for path in found if changes[path] is Change.added]
                if added and (directories := await asyncio.to_thread(self._directories, added)):
                    emit(await asyncio.to_thread(self._contents, directories))
                    rescans.create_task(self._rescan(directories, emit), name="watchfiles-rescan")

    async def _batches(self, armed: Callable[[], None]) -> AsyncIterator[set[tuple[Change, str]]]:
        events = awatch(self._path, watch_filter=None, debounce=_STEP_MS, step=_STEP_MS, ignore_permission_denied=False)
        batch = asyncio.ensure_future(anext(events))
        # awatch arms its watches before its first await, so they stand once the task has run one step.
        await asyncio.sleep(0)
        if not batch.done():
            armed()
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

    async def _rescan(self, directories: list[str], emit: Callable[[Iterable[str]], None]) -> None:
        await asyncio.sleep(_RESCAN_S)
        emit(await asyncio.to_thread(self._contents, directories))

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
        return Export(self._root, f"{self._subdir}/{directory}" if self._subdir else directory)

    def _relpath(self, path: str) -> str:
        return path[len(self._path) :].strip("/")

    def _is_own(self, relpath: str) -> bool:
        return not self._subdir and relpath.partition("/")[0] == OWN_DIR
