"""How fast bytes go, and how many may go at all: caps by the timetable, and the data budget of a metered link.

Owns: waiting for a cap, what the link achieves, bytes against the budget. Never: bytes themselves, or what is done
about a budget that is spent. Safe from any thread. What is counted are bodies as they are sent, failed attempts too.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from replicator.config.bandwidth import Allowance, Caps, Timetable
from replicator.errors import BudgetSpent, Stopping
from replicator.transfer.limits import ByteBudget

Way = Literal["up", "down"]
"""To the bucket, or from it."""

_BLOCK_BYTES = 64 * 1024
"""May always go at once: a cap below it is kept by longer waits, not by smaller pieces."""
_LOOK_AGAIN_S = 1.0
"""How long the timetable is believed without a look at the clock on the wall."""

_TELLING_BYTES = 256 * 1024
"""Smaller bodies tell how far the store is, not how much the link carries."""
_HALF_LIFE_S = 10.0
"""After so long a transfer counts half in the rate that is achieved."""

_HOUR_S = 3600
_ASK_AGAIN_S = 300.0
"""Clocks get set and budgets raised: nobody waits for a relief longer than this without asking again."""
_WRITE_S = 5.0
"""A power cut forgets the usage of so many seconds; each write costs a commit."""


class Bucket:
    """Bytes that may go, refilled at a rate, at most a second's worth. A large body leaves a debt behind."""

    def __init__(self) -> None:
        self._level: float | None = None
        self._rate = 0
        self._filled_s = 0.0

    def take(self, size: int, *, rate: int, now_s: float) -> float:
        """Take `size` bytes and return 0, or take nothing and return the seconds until that may be worth another try.

        A body above the bucket goes once it is full, and the next one waits the longer. `rate` is in bytes a second.
        """
        full = max(rate, _BLOCK_BYTES)
        level = full if self._level is None else self._level
        if level < 0 and rate < self._rate:
            level *= rate / self._rate  # a debt is paid in the time that it would have taken when it was made
        level = min(full, level + (now_s - self._filled_s) * rate)
        self._rate, self._filled_s = rate, now_s
        missing = min(size, full) - level
        if missing < 1:  # a fraction of a byte is nobody's wait
            self._level = level - size
            return 0.0
        self._level = level
        return missing / rate


class Meter:
    """Bytes a second of a transfer, as it was lately."""

    def __init__(self) -> None:
        self._bytes = 0.0
        self._seconds = 0.0
        self._at_s = 0.0

    def add(self, size: int, seconds: float, *, now_s: float) -> None:
        kept = 0.5 ** ((now_s - self._at_s) / _HALF_LIFE_S)
        self._bytes = self._bytes * kept + size
        self._seconds = self._seconds * kept + seconds
        self._at_s = now_s

    def bytes_s(self) -> float | None:
        """None before anything was added."""
        return self._bytes / self._seconds if self._seconds else None


class Bandwidth:
    """The caps of the timetable, each way: `take` before bytes go, `moved` after.

    `local` is the device's local time; it is asked once a second.
    """

    def __init__(
        self,
        timetable: Timetable,
        *,
        clock: Callable[[], float] = time.monotonic,
        local: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        self._timetable = timetable
        self._clock = clock
        self._local = local
        self._changed = threading.Condition()
        self._in_force = (float("-inf"), Caps())
        """Until when the caps are believed, and the caps. One value, so that it is read without a lock."""
        self._buckets = {way: Bucket() for way in get_args(Way)}
        self._turns = {way: ByteBudget(1) for way in get_args(Way)}
        """Whoever is first waits for the bucket, the others for their turn, in order and without waking up."""
        self._meters = {way: Meter() for way in get_args(Way)}
        self._is_closed = False

    def take(self, way: Way, size: int) -> None:
        """Wait until `size` bytes may go. Raises Stopping when that would be after the end of the process."""
        if not size or self.rate(way) is None:
            return
        with self._turns[way].hold(1), self._changed:
            while (rate := self.rate(way)) is not None:
                if self._is_closed:
                    raise Stopping("replicator stops; what waits for bandwidth is moved after the next start")
                wait_s = self._buckets[way].take(size, rate=rate, now_s=self._clock())
                if not wait_s:
                    return
                self._changed.wait(min(wait_s, _LOOK_AGAIN_S))

    def rate(self, way: Way) -> int | None:
        """The cap in force, in bytes a second; None is unlimited."""
        believed_until_s, caps = self._in_force
        if self._clock() >= believed_until_s:
            caps = self._look()
        return caps.up_bytes_s if way == "up" else caps.down_bytes_s

    def replace(self, timetable: Timetable) -> None:
        """Let another timetable be in force, also for those who wait."""
        with self._changed:
            self._timetable = timetable
            self._look()
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody who waits for a cap, now or later, have Stopping."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def moved(self, way: Way, size: int, seconds: float) -> None:
        """A body, or a part of one, of `size` bytes took so long, waits of our own left out."""
        if size >= _TELLING_BYTES:
            with self._changed:
                self._meters[way].add(size, seconds, now_s=self._clock())

    def measured_bytes_s(self, way: Way) -> float | None:
        """What one transfer achieves lately, at most the cap in force; None while neither is known."""
        known = [rate for rate in (self._meters[way].bytes_s(), self.rate(way)) if rate is not None]
        return min(known, default=None)

    def _look(self) -> Caps:
        with self._changed:
            now = self._local()
            caps = self._timetable.caps_at(now.tm_wday, now.tm_hour * 60 + now.tm_min)
            self._in_force = (self._clock() + _LOOK_AGAIN_S, caps)
            return caps


class Usage(Protocol):
    """What remembers, over restarts, how many bytes moved in which hour since the epoch. The journal does."""

    def add_usage(self, hour: int, *, sent: int, received: int) -> None:
        """Add to that hour's bytes."""
        ...

    def usage_since(self, hour: int) -> tuple[int, int]:
        """(sent, received) of that hour and all later ones."""
        ...


@dataclass(frozen=True, slots=True)
class BudgetView:
    """How the data budget stands, for people."""

    used_bytes: int
    limit_bytes: int
    period_s: int
    relief_ts: float | None
    """When bytes may move again, seconds since the epoch; None while they may."""


class DataBudget:
    """Bytes against an allowance, by whole hours: an hour counts until all of it lies outside the period.

    What is under way when the budget is used up goes on; `check` stands before what begins.
    """

    def __init__(self, allowance: Allowance, usage: Usage, *, clock: Callable[[], float] = time.time) -> None:
        self._allowance = allowance
        self._usage = usage
        self._clock = clock
        self._lock = threading.Lock()
        self._hour: int | None = None
        """The hour that `_used` is true for; None when it has to be counted anew."""
        self._used = 0
        self._unwritten: dict[int, Counter[str]] = {}
        self._written_s = clock()

    def spend(self, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes that went. Raises what the usage raises when it is written."""
        if not self._allowance.limit_bytes:
            return
        with self._lock:
            self._unwritten.setdefault(self._turn(), Counter()).update(sent=sent, received=received)
            self._used += sent + received
            if not 0 <= self._clock() - self._written_s < _WRITE_S:
                self._write()

    def check(self) -> None:
        """Raises BudgetSpent when no more bytes may move for now."""
        if not self._allowance.limit_bytes:
            return
        with self._lock:
            relief_ts = self._relief_ts(self._turn())
        if relief_ts is not None:
            at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(relief_ts))
            retry_after_s = min(max(relief_ts - self._clock(), 1.0), _ASK_AGAIN_S)
            raise BudgetSpent(
                f"the data budget of {self._allowance} (REPLICATOR_DATA_BUDGET) is used up; transfers go on at {at}, "
                "or soon after it is raised",
                retry_after_s=retry_after_s,
            )

    def replace(self, allowance: Allowance) -> None:
        """Let another budget be in force. What was moved while there was none was not counted."""
        with self._lock:
            self._allowance = allowance
            self._hour = None

    def flush(self) -> None:
        """Write what is counted in memory only."""
        with self._lock:
            self._write()

    def view(self) -> BudgetView | None:
        """How it stands; None without a budget."""
        if not self._allowance.limit_bytes:
            return None
        with self._lock:
            relief_ts = self._relief_ts(self._turn())
            return BudgetView(self._used, self._allowance.limit_bytes, self._allowance.period_s, relief_ts)

    def _turn(self) -> int:
        """The present hour. When it has just begun, an old one may have left the period."""
        now = int(self._clock() // _HOUR_S)
        if now != self._hour:
            self._hour = now
            self._used = self._used_between(now - self._period_hours, now)
        return now

    @property
    def _period_hours(self) -> int:
        return self._allowance.period_s // _HOUR_S

    def _used_between(self, begin: int, now: int) -> int:
        """Bytes of the hours from `begin` to `now`, and none of the future, where a wrong clock left some."""
        written = sum(self._usage.usage_since(begin)) - sum(self._usage.usage_since(now + 1))
        return written + sum(used.total() for hour, used in self._unwritten.items() if begin <= hour <= now)

    def _relief_ts(self, now: int) -> float | None:
        if self._used < self._allowance.limit_bytes:
            return None
        # The later a period begins, the less was used in it: the first begin that leaves room is looked for.
        begins = range(now - self._period_hours, now + 2)
        place = bisect_left(
            begins, x=True, key=lambda begin: self._used_between(begin, now) < self._allowance.limit_bytes
        )
        return float((begins[place] + self._period_hours) * _HOUR_S)

    def _write(self) -> None:
        self._written_s = self._clock()
        for hour, used in list(self._unwritten.items()):
            self._usage.add_usage(hour, sent=used["sent"], received=used["received"])
            del self._unwritten[hour]
