"""How many bytes arrived each way of late, for people who ask whether anything moves.

Owns: ten minutes in spans of ten seconds. Never: caps, budgets, a timer: old spans go when somebody adds or looks.
Safe from any thread. What counts are bodies that have arrived, also when their transfer failed afterwards.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import get_args

from replicator.observe.status import ThroughputView
from replicator.transfer.pace import Way

SPAN_S = 10.0
SPANS = 60


class Throughput:
    """Bytes by the span in which they went; spans are numbered from the clock's beginning."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._spans: dict[Way, defaultdict[int, float]] = {way: defaultdict(float) for way in get_args(Way)}
        self._newest = 0

    def add(self, way: Way, size: int, seconds: float = 0.0) -> None:
        """`size` bytes have gone: evenly over the last `seconds`, or just now."""
        with self._lock:
            now_s = self._turn()
            spans = self._spans[way]
            if seconds <= 0:
                spans[self._newest] += size
                return
            began_s = now_s - seconds
            for number in range(max(int(began_s // SPAN_S), self._newest - SPANS + 1), self._newest + 1):
                covered_s = min(now_s, (number + 1) * SPAN_S) - max(began_s, number * SPAN_S)
                spans[number] += size * covered_s / seconds

    def view(self) -> ThroughputView:
        """The last ten minutes as they are now."""
        with self._lock:
            now_s = self._turn()
            numbers = range(self._newest - SPANS + 1, self._newest + 1)
            up, down = (tuple(round(self._spans[way].get(number, 0)) for number in numbers) for way in get_args(Way))
            return ThroughputView(span_s=SPAN_S, last_s=now_s - self._newest * SPAN_S, up=up, down=down)

    def _turn(self) -> float:
        """The time; spans that are over ten minutes old are dropped as a new one begins."""
        now_s = self._clock()
        newest = int(now_s // SPAN_S)
        if newest != self._newest:
            self._newest = newest
            for spans in self._spans.values():
                for number in [number for number in spans if number <= newest - SPANS]:
                    del spans[number]
        return now_s
