"""Which directory stands at a mapped place: when there is one, and when it is another.

No event tells of a mount over a directory, so the kernel's list of mounts is watched, and the directory compared at
every change of it; and slowly all the same, for what is moved further up. Owns no source and tells no reason.
"""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from replicator.stores.files.export import Export
from replicator.stores.kernel import MountChanges

_LOOK_S = 5.0
"""Between two comparisons when no mount changed: the net under a source that tells of the directory's own fate."""

_AWAIT_S = 1.0
"""Between two looks for a directory that is not there yet."""

Identity = tuple[int, int]


class RootGuard:
    """Compares one directory; use it as a context manager inside the event loop."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self._moved = asyncio.Event()
        self._mounts: MountChanges | None = None

    def __enter__(self) -> Self:
        # Without /proc only the slow look is left.
        with contextlib.suppress(OSError):
            self._mounts = MountChanges()
            asyncio.get_running_loop().add_reader(self._mounts, self._on_mounts)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mounts is not None:
            asyncio.get_running_loop().remove_reader(self._mounts)
            self._mounts.close()

    async def identity(self) -> Identity | None:
        """(st_dev, st_ino) of the directory now; None when there is none."""
        return await asyncio.to_thread(self._export.identity)

    async def appears(self) -> None:
        """Wait for a moment at which it may be worth looking for a directory that was missing."""
        await self._wait(_AWAIT_S)

    async def leaves(self, identity: Identity) -> None:
        """Wait until the directory is no longer this one."""
        while await self.identity() == identity:
            await self._wait(_LOOK_S)

    async def _wait(self, at_most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._moved.wait()
        self._moved.clear()

    def _on_mounts(self) -> None:
        if self._mounts is not None:
            self._mounts.clear()
        self._moved.set()
