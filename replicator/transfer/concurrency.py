"""How many requests an endpoint bears at a time: found out from its answers, between 1 and the maximum.

More while it goes well, half when the store asks for less, a little less when small requests begin to take long.
Only small bodies tell of latency: a large one takes long on a healthy link too. Pure but for its lock.
Source: additive increase, multiplicative decrease, as TCP has it (RFC 5681), with a window of one round of requests.
"""

import threading
import time
from collections.abc import Callable

_START = 8
_SMALL_BYTES = 64 * 1024
"""Bodies up to this size take about a round trip, on links that are worth tuning for."""

_GROWTH = 1.1
"""A window that moves this much more than the one before is worth another doubling."""
_CALM_S = 3.0
"""After so long without trouble the cause is probably gone, and the climb becomes steep."""
_CALM_STEP = 4
"""A steep step is this fraction of the limit."""

_SLOW_FACTOR = 4.0
_SLOW_S = 0.05
"""Latency is trouble above both: that many times the usual, and that much more; a LAN's noise is neither."""
_SLOW_LIMIT = 4
"""Slowness alone never leaves fewer: a full link is slow at any concurrency."""
_SLOW_BACKOFF = 0.9
_RECENT_WEIGHT = 0.2
"""Of a new sample in the recent latency: the last ten or so count."""
_USUAL_S = 120.0
"""The usual latency follows a faster one at once, and a slower one this slowly: another route is no lasting brake."""


class Latency:
    """Whether small requests take much longer lately than they usually do."""

    def __init__(self) -> None:
        self._recent_s: float | None = None
        self._usual_s = 0.0
        self._heard_s = 0.0

    def is_slow(self, seconds: float, *, now_s: float) -> bool:
        """Whether they do, with one more that took so long."""
        if self._recent_s is None:
            self._recent_s = self._usual_s = seconds
        self._recent_s += (seconds - self._recent_s) * _RECENT_WEIGHT
        weight = 1.0 if self._recent_s < self._usual_s else min(1.0, (now_s - self._heard_s) / _USUAL_S)
        self._heard_s = now_s
        self._usual_s += (self._recent_s - self._usual_s) * weight
        return self._recent_s > self._usual_s * _SLOW_FACTOR and self._recent_s > self._usual_s + _SLOW_S


class Concurrency:
    """The limit of requests in flight. Safe from any thread."""

    def __init__(self, maximum: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._maximum = maximum
        self._clock = clock
        self._lock = threading.Lock()
        self._limit = float(min(_START, maximum))
        self._is_starting = True
        self._window_successes = 0
        self._window_began_s = clock()
        self._window_rate = 0.0
        self._unheard = 0
        """Answers still to come to requests that were sent before the limit was lowered: they are no news."""
        self._troubled_s = clock()
        self._latency = Latency()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._limit)

    def succeeded(self, seconds: float, size: int) -> None:
        """A request that carried `size` bytes was answered well after `seconds`, waits of our own left out."""
        with self._lock:
            self._unheard = max(0, self._unheard - 1)
            is_slow = size <= _SMALL_BYTES and self._latency.is_slow(seconds, now_s=self._clock())
            if is_slow and self._limit > _SLOW_LIMIT:
                self._lower(max(self._limit * _SLOW_BACKOFF, _SLOW_LIMIT))
                return
            self._window_successes += 1
            if self._window_successes >= self.limit:
                self._end_window()

    def throttled(self) -> None:
        """The store asked for less."""
        with self._lock:
            self._unheard = max(0, self._unheard - 1)
            self._lower(max(self._limit / 2, 1.0))

    def _lower(self, limit: float) -> None:
        """Lower the limit, once for all requests that were in flight together."""
        self._is_starting = False
        self._troubled_s = self._clock()
        if self._unheard:
            return
        self._unheard = self.limit
        self._limit = limit
        self._window_successes = 0

    def _end_window(self) -> None:
        now_s = self._clock()
        rate = self._window_successes / max(now_s - self._window_began_s, 1e-6)
        self._is_starting = self._is_starting and rate > self._window_rate * _GROWTH
        self._window_successes, self._window_began_s, self._window_rate = 0, now_s, rate
        step = 1.0
        if self._is_starting:
            step = self._limit
        elif now_s - self._troubled_s > _CALM_S:
            step = max(1.0, self._limit / _CALM_STEP)
        self._limit = min(self._limit + step, float(self._maximum))
