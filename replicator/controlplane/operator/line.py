"""Keys that wait for a look, each at most once, from now or from a later moment on. In memory: a start fills it anew.

A key that is put in while somebody works on it comes again afterwards, so a change that arrives in the middle of a look
is never lost; and two never work on one key. Never: what a key stands for.
"""

import asyncio
import contextlib
import heapq

from replicator.cluster.kinds import Key


class Line:
    """For one event loop, whose clock counts."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        """Also of moments that no longer hold: `_due` has the one in force."""
        self._busy: set[Key] = set()
        self._turned = asyncio.Event()

    def __len__(self) -> int:
        """How many wait, also for a later moment."""
        return len(self._due)

    def put(self, key: Key, *, after_s: float = 0.0) -> None:
        """Have the key looked at, at the earliest moment of all that were asked for."""
        moment = asyncio.get_running_loop().time() + after_s
        if moment < self._due.get(key, float("inf")):
            self._due[key] = moment
            heapq.heappush(self._heap, (moment, key))
            self._turned.set()

    async def take(self) -> Key:
        """The next key that is due; `done` has to follow."""
        while True:
            self._turned.clear()
            key, pause_s = self._next()
            if key:
                return key
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._turned.wait()

    def done(self, key: Key) -> None:
        """Nobody works on the key any more."""
        self._busy.discard(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], key))
            self._turned.set()

    def _next(self) -> tuple[Key | None, float | None]:
        """A key that is due, or how long until the next one is."""
        now = asyncio.get_running_loop().time()
        while self._heap:
            moment, key = self._heap[0]
            if self._due.get(key) == moment and key not in self._busy:
                if moment > now:
                    return None, moment - now
                del self._due[key]
                self._busy.add(key)
                heapq.heappop(self._heap)
                return key, None
            heapq.heappop(self._heap)
        return None, None
