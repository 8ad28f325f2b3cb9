"""How often one device may ask: a bucket of tokens each."""

import time
from collections.abc import Callable, Hashable

_PRUNED_S = 60.0


class Rates:
    """Tokens come at `rate` a second, up to `burst`."""

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._full_at_s: dict[Hashable, float] = {}
        """When a device's bucket is full again; those that are full are not in it."""
        self._pruned_s = clock()

    def take(self, who: Hashable) -> float:
        """Take a token: 0, or the seconds until there is one."""
        now_s = self._clock()
        self._prune(now_s)
        full_at_s = max(self._full_at_s.get(who, now_s), now_s) + 1 / self._rate
        wait_s = full_at_s - now_s - self._burst / self._rate
        if wait_s > 1e-9:  # what adding fractions of a second leaves
            return wait_s
        self._full_at_s[who] = full_at_s
        return 0.0

    def _prune(self, now_s: float) -> None:
        if now_s - self._pruned_s >= _PRUNED_S:
            self._pruned_s = now_s
            self._full_at_s = {who: at_s for who, at_s in self._full_at_s.items() if at_s > now_s}
