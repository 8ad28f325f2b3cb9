"""What transfers may take: memory for bodies in flight, and room on the device for ingress."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

from replicator.errors import DiskFull
from replicator.stores.lane import Lane


class ByteBudget:
    """One budget for all bodies in flight, whatever the number of workers."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._free = capacity_bytes
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait until `size` bytes are free, and hold them. One body above the capacity may pass alone."""
        held = min(size, self._capacity)
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            self._free += held
            async with self._changed:
                self._changed.notify_all()


class Room:
    """The free-space floor of the device and the quota of each ingress target."""

    def __init__(self, *, floor_bytes: int) -> None:
        self._floor_bytes = floor_bytes
        self._by_root: dict[str, int] = defaultdict(int)
        self._by_lane: dict[Lane, int] = defaultdict(int)

    @contextlib.contextmanager
    def reserve(self, lane: Lane, size: int, *, replaced_bytes: int) -> Iterator[None]:
        """Hold room for a download of `size` bytes that replaces a file of `replaced_bytes`.

        Raises DiskFull, before anything is written, when the floor or the target's quota would be passed.
        The old version and the temporary file exist at once, so the floor counts the whole size.
        """
        target = lane.target
        free = lane.export.free_bytes()
        if free is not None and free - self._by_root[target.root] - size < self._floor_bytes:
            raise DiskFull(
                f"{size} bytes do not fit: {free} bytes are free under {target.root} and {self._floor_bytes} stay free "
                "(REPLICATOR_FREE_SPACE_FLOOR_BYTES); free some space"
            )
        used = lane.journal.totals(lane.number)[1] + self._by_lane[lane]
        quota = target.options.quota_bytes
        if quota and used + size - replaced_bytes > quota:
            raise DiskFull(
                f"{size} bytes do not fit: {used} of this target's {quota} bytes (REPLICATOR_QUOTA_BYTES) are used or "
                "on their way; raise the quota or remove objects"
            )
        self._by_root[target.root] += size
        self._by_lane[lane] += size - replaced_bytes
        try:
            yield
        finally:
            self._by_root[target.root] -= size
            self._by_lane[lane] -= size - replaced_bytes
            if not self._by_lane[lane]:
                del self._by_lane[lane]
