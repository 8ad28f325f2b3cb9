"""What a link may carry: rates by time of the week, and a volume in any period. Text becomes values; pure.

A timetable is rules, the first that fits wins: `mon-fri 08:00-18:00 2MiB/s:10MiB/s, sat+sun 1GiB/s, else unlimited`.
A rule is [days] [from-to] caps, where caps are up:down or one value for both. Faults are ValueErrors that name the
rule by its number and quote nothing. Never here: a clock, or bytes that move.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""By the number that `time.struct_time` gives them."""
_WHOLE_WEEK = frozenset(range(len(_DAYS)))
_DAY_MINUTES = 24 * 60

_MIN_RATE_BYTES_S = 1024
"""Nothing is configured to stand still in silence."""
_MIN_BUDGET_BYTES = 1000**2
_MAX_BYTES = 1024**5
_MAX_PERIOD_S = 366 * 86400

# A small b is bits to many people, so it is none of ours.
_BYTES = re.compile(r"(?P<number>[0-9]{1,15}(\.[0-9]{1,9})?)((?P<power>[KMGTkmgt])(?P<binary>[Ii]?B)?|B)")
_TIMES = re.compile(r"([0-9]{1,2}):([0-5][0-9])-([0-9]{1,2}):([0-5][0-9])")
_BUDGET = re.compile(r"(?P<size>[^/\s]+)\s*/\s*(?P<count>[0-9]{1,4})\s*(?P<unit>[hd])")

_SAY_BYTES = "a number with B, KB, KiB, MB, MiB, GB or GiB (K, M and G alone are KiB, MiB and GiB)"


@dataclass(frozen=True, slots=True)
class Caps:
    """Bytes a second that may go each way; None is unlimited."""

    up_bytes_s: int | None = None
    down_bytes_s: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Caps for a span of some days, in minutes of the day; `end` is the first that is out.

    A span whose end is not after its begin passes midnight, and belongs to the day it begins.
    """

    caps: Caps
    days: frozenset[int] = _WHOLE_WEEK
    begin: int = 0
    end: int = _DAY_MINUTES

    def fits(self, weekday: int, minute: int) -> bool:
        if self.begin < self.end:
            return weekday in self.days and self.begin <= minute < self.end
        if minute >= self.begin:
            return weekday in self.days
        return minute < self.end and (weekday - 1) % len(_DAYS) in self.days


@dataclass(frozen=True, slots=True)
class Timetable:
    """The caps of every minute of a week. `str()` is the text that it was made of."""

    rules: tuple[Rule, ...] = ()
    text: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The timetable that `text` describes; an empty one is unlimited. Raises ValueError."""
        if not text.strip():
            return cls()
        rules: list[Rule] = []
        for number, words in enumerate((part.split() for part in text.split(",")), 1):
            if rules and rules[-1] == Rule(rules[-1].caps):
                raise ValueError(f"rule {number} is never reached: the one before it fits at any time")
            try:
                rules.append(_rule(words))
            except ValueError as exc:
                raise ValueError(f"rule {number}: {exc}") from None
        return cls(tuple(rules), " ".join(text.split()))

    def caps_at(self, weekday: int, minute: int) -> Caps:
        """The caps on a weekday (0 is Monday) at a minute of the day (from 0)."""
        return next((rule.caps for rule in self.rules if rule.fits(weekday, minute)), Caps())

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many bytes may move in any `period_s` seconds, both ways together; a limit of 0 is none."""

    limit_bytes: int = 0
    period_s: int = 0
    text: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The allowance that a text such as `10GiB/30d` describes; an empty one is no limit. Raises ValueError."""
        if not text.strip():
            return cls()
        match = _BUDGET.fullmatch(text.strip())
        if match is None:
            raise ValueError("must be bytes/period such as 10GiB/30d or 500MB/12h, or empty")
        limit_bytes = _bytes(match["size"])
        if limit_bytes is None or not _MIN_BUDGET_BYTES <= limit_bytes <= _MAX_BYTES:
            raise ValueError(f"the bytes must be {_SAY_BYTES}, from 1MB to 1024TiB")
        period_s = int(match["count"]) * (3600 if match["unit"] == "h" else 86400)
        if not 0 < period_s <= _MAX_PERIOD_S:
            raise ValueError("the period must be from 1h to 366d")
        return cls(limit_bytes, period_s, text.strip())

    def __str__(self) -> str:
        return self.text


def _rule(words: Sequence[str]) -> Rule:
    *when, last = words or [""]
    caps = _caps(last)
    if [word.lower() for word in when] == ["else"]:
        return Rule(caps)
    days = _days(when.pop(0)) if when and when[0][0].isalpha() else _WHOLE_WEEK
    begin, end = _span(when.pop(0)) if when else (0, _DAY_MINUTES)
    if when:
        raise ValueError("must be [days] [from-to] caps, such as mon-fri 08:00-18:00 2MiB/s:10MiB/s, or else caps")
    return Rule(caps, days, begin, end)


def _days(word: str) -> frozenset[int]:
    """Days such as `sat`, `mon-fri` or `fri-mon`, joined by '+'."""
    found: set[int] = set()
    for part in word.lower().split("+"):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS or part.endswith("-"):
            raise ValueError(f"days are {', '.join(_DAYS)}, as in mon-fri or mon+wed+sat-sun")
        begin, length = _DAYS.index(first), _DAYS.index(last or first) - _DAYS.index(first)
        found.update((begin + step) % len(_DAYS) for step in range(length % len(_DAYS) + 1))
    return frozenset(found)


def _span(word: str) -> tuple[int, int]:
    match = _TIMES.fullmatch(word)
    hours = [int(group) for group in match.groups()] if match else [0, 0, 0, 0]
    begin, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if begin == end or begin >= _DAY_MINUTES or end > _DAY_MINUTES:
        raise ValueError("times are HH:MM-HH:MM, as in 08:00-18:00 or 22:00-06:00; 24:00 is the end of the day")
    return begin, end


def _caps(word: str) -> Caps:
    up, colon, down = word.partition(":")
    up_bytes_s = _rate(up)
    return Caps(up_bytes_s, _rate(down) if colon else up_bytes_s)


def _rate(word: str) -> int | None:
    if word.lower() == "unlimited":
        return None
    rate_bytes_s = _bytes(word.removesuffix("/s"))
    if rate_bytes_s is None:
        raise ValueError(f"caps are up:down or one value, each unlimited or {_SAY_BYTES}, as in 2MiB/s:unlimited")
    if not _MIN_RATE_BYTES_S <= rate_bytes_s <= _MAX_BYTES:
        raise ValueError("caps must be from 1KiB/s to 1024TiB/s")
    return rate_bytes_s


def _bytes(word: str) -> int | None:
    """The bytes that a word such as `2MiB` stands for; None when it stands for none."""
    match = _BYTES.fullmatch(word)
    if match is None:
        return None
    base = 1000 if match["binary"] == "B" else 1024
    return int(float(match["number"]) * base ** " KMGT".index((match["power"] or " ").upper()))
