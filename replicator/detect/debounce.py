"""Quiet time per path: the first hint passes at once, the following ones at most once a window.

The window begins at `quiet_s` and doubles up to `ceiling_s` while a path keeps changing, so a file rewritten a
thousand times a second still ships, and costs one look a window. Pure: the caller passes the clock in.
"""

import heapq
from dataclasses import dataclass

_CALM_WINDOWS = 5
"""A path that stayed silent this many windows is forgotten, and its next change passes at once again."""


@dataclass(slots=True)
class _Path:
    released_s: float
    window_s: float
    is_hinted: bool


class Debounce:
    """The paths of one target that were hinted of late. Times in seconds of one monotonic clock."""

    def __init__(self, *, quiet_s: float, ceiling_s: float) -> None:
        self._quiet_s = quiet_s
        self._ceiling_s = max(quiet_s, ceiling_s)
        self._paths: dict[str, _Path] = {}
        self._timers: list[tuple[float, str]] = []

    def knows(self, relpath: str) -> bool:
        """Whether the path was hinted of late, so that a sweep that finds it has found nothing new."""
        return relpath in self._paths

    def hint(self, relpath: str, now_s: float) -> bool:
        """Take a hint. True: look at the path now. False: `due` will name it when its window has passed."""
        path = self._paths.get(relpath)
        if path is None:
            self._paths[relpath] = _Path(released_s=now_s, window_s=self._quiet_s, is_hinted=False)
            heapq.heappush(self._timers, (now_s + self._quiet_s, relpath))
            return True
        path.is_hinted = True
        return False

    def due(self, now_s: float) -> list[str]:
        """The paths whose window has passed and that were hinted in it. Each window is reported once."""
        released = []
        while self._timers and self._timers[0][0] <= now_s:
            _, relpath = heapq.heappop(self._timers)
            path = self._paths[relpath]
            if path.is_hinted:
                released.append(relpath)
                path.is_hinted = False
                path.released_s = now_s
                path.window_s = min(path.window_s * 2, self._ceiling_s)
            elif now_s >= path.released_s + _CALM_WINDOWS * path.window_s:
                del self._paths[relpath]
                continue
            heapq.heappush(self._timers, (now_s + path.window_s, relpath))
        return released

    def next_due_s(self) -> float | None:
        """When `due` has to be asked next; None when nothing is waiting."""
        return self._timers[0][0] if self._timers else None
