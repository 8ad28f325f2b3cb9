"""What transfers may take: memory for bodies in flight, and room on the device for ingress. Safe from any thread."""

import contextlib
import threading
from collections import defaultdict, deque
from collections.abc import Iterator

from replicator.errors import DiskFull
from replicator.stores.lane import Lane


class ByteBudget:
    """One budget for all bodies in flight, whatever the number of workers. First come, first served."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._free = capacity_bytes
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()
        """What each wants, and a locked lock that is released once it is held for it."""

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and hold them. One body above the capacity may pass alone.

        Whoever holds must not ask for more: behind somebody who waits for these very bytes, both would wait for ever.
        """
        held = min(size, self._capacity)
        self._take(held)
        try:
            yield
        finally:
            self._give(held)

    def _take(self, held: int) -> None:
        with self._lock:
            # Behind those who wait even if it would fit: else small bodies would pass a large one for ever.
            if not self._waiting and held <= self._free:
                self._free -= held
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append((held, turn))
        turn.acquire()

    def _give(self, held: int) -> None:
        with self._lock:
            self._free += held
            # The bytes are taken for those whose turn it is, so that only they wake up, and each once.
            while self._waiting and self._waiting[0][0] <= self._free:
                wanted, turn = self._waiting.popleft()
                self._free -= wanted
                turn.release()


class Room:
    """The free-space floor of the device and the quota of each ingress target."""

    def __init__(self, *, floor_bytes: int) -> None:
        self._floor_bytes = floor_bytes
        self._lock = threading.Lock()
        self._by_root: dict[str, int] = defaultdict(int)
        self._by_lane: dict[Lane, int] = defaultdict(int)

    @contextlib.contextmanager
    def reserve(self, lane: Lane, size: int, *, replaced_bytes: int) -> Iterator[None]:
        """Hold room for a download of `size` bytes that replaces a file of `replaced_bytes`.

        Raises DiskFull, before anything is written, when the floor or the target's quota would be passed.
        The old version and the temporary file exist at once, so the floor counts the whole size.
        """
        with self._lock:  # from the look to the reservation, or two could take one room
            self._check(lane, size, replaced_bytes)
            self._by_root[lane.target.root] += size
            self._by_lane[lane] += size - replaced_bytes
        try:
            yield
        finally:
            with self._lock:
                self._by_root[lane.target.root] -= size
                self._by_lane[lane] -= size - replaced_bytes
                if not self._by_lane[lane]:
                    del self._by_lane[lane]

    def _check(self, lane: Lane, size: int, replaced_bytes: int) -> None:
        target = lane.target
        free = lane.export.free_bytes()
        if free is not None and free - self._by_root[target.root] - size < self._floor_bytes:
            raise DiskFull(
                f"{size} bytes do not fit: {free} bytes are free under {target.root} and {self._floor_bytes} stay free "
                "(REPLICATOR_FREE_SPACE_FLOOR_BYTES); free some space"
            )
        quota = target.options.quota_bytes
        used = lane.journal.totals(lane.number)[1] + self._by_lane[lane] if quota else 0
        if quota and used + size - replaced_bytes > quota:
            raise DiskFull(
                f"{size} bytes do not fit: {used} of this target's {quota} bytes (REPLICATOR_QUOTA_BYTES) are used or "
                "on their way; raise the quota or remove objects"
            )
