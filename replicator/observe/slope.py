"""How fast a number changes, over the last seconds. Pure: times come in."""

from collections import deque

_OVER_S = 10.0
"""Long enough for files that come in bursts, short enough to follow a link that fails."""
_AT_LEAST_S = 0.5
"""Before that, two readings tell nothing."""


class Slope:
    """Readings of one number, and what they say about its pace."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, float]] = deque()

    def add(self, value: float, *, at_s: float) -> None:
        """A reading of `value`; `at_s` by any clock that goes forward."""
        readings = self._readings
        readings.append((at_s, value))
        while at_s - readings[0][0] > _OVER_S:
            readings.popleft()

    @property
    def per_s(self) -> float | None:
        """By how much it grows a second, negative when it shrinks; None while that is not known."""
        (first_s, first), (last_s, last) = self._readings[0], self._readings[-1]
        passed_s = last_s - first_s
        return (last - first) / passed_s if passed_s >= _AT_LEAST_S else None
