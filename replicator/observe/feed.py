"""What an open page is told: the status at once, and again when it has changed, at most once a second.

While no page is open nothing is looked at, and one look serves all that are. That time passes is no change: ages are
counted on by the page. Never: sockets, who may listen, how many.
Source: server-sent events, HTML Living Standard 9.2.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from replicator.observe import words
from replicator.observe.overview import answer_to
from replicator.observe.status import Snapshot, TargetView, to_json, verdict

LOOK_EVERY_S = 1.0
_COST_SHARE = 9
"""A look that is dear is followed by a pause so many times as long: who watches a large queue must not slow it down."""
ALIVE_EVERY_S = 5.0
"""A page that hears nothing for some multiple of this calls what it shows old. The browser keeps comments from it, so
this is an event: a connection that died without a word is noticed no other way."""
_RATE_BYTES_S = 16 * 2**10
"""What a stream may take of the link: the status of a hundred targets comes some seconds apart."""
_SWEEP_GRAIN_S = 5.0
"""When a sweep ended is told to within jitter of the clocks; less is no news."""

_ALIVE = b"event: alive\ndata: .\n\n"


class Feed:
    """The events of all streams. `look` gives the status, on any thread, and is called by one at a time."""

    def __init__(self, look: Callable[[], Snapshot], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._next_s = float("-inf")
        self._snapshot: Snapshot | None = None
        self._gist: object = None
        self._number = 0
        """Of the last change."""

    def events(self) -> Iterator[bytes]:
        """For one stream, without an end: what to send now, b'' for nothing. To be asked about once a second."""
        told, spoke_s, free_s = 0, self._clock(), float("-inf")
        while True:
            number, snapshot = self._now()
            now_s = self._clock()
            if number != told and now_s >= free_s:
                event = _event(snapshot)
                told, spoke_s, free_s = number, now_s, now_s + len(event) / _RATE_BYTES_S
                yield event
            elif now_s - spoke_s >= ALIVE_EVERY_S:
                spoke_s = now_s
                yield _ALIVE
            else:
                yield b""

    def _now(self) -> tuple[int, Snapshot]:
        """The status, and the number of its last change; looked at anew when the last look is old enough."""
        with self._lock:
            began_s = self._clock()
            if self._snapshot is None or began_s >= self._next_s:
                self._snapshot = self._look()
                gist = _gist(self._snapshot)
                if gist != self._gist:
                    self._gist = gist
                    self._number += 1
                cost_s = self._clock() - began_s
                self._next_s = began_s + max(LOOK_EVERY_S, cost_s * (1 + _COST_SHARE))
            return self._number, self._snapshot


def _event(snapshot: Snapshot) -> bytes:
    answer = answer_to(snapshot)
    told = {"mood": answer.mood, "answer": answer.text, "verdict": verdict(snapshot), "status": to_json(snapshot)}
    return b"data: %s\n\n" % json.dumps(told, separators=(",", ":")).encode()


def _gist(now: Snapshot) -> object:
    """What of a status is news: equal for two moments between which nothing but time went by."""
    still = replace(
        now,
        now_ts=0.0,
        targets=tuple(map(_still, now.targets)),
        throughput=replace(now.throughput, last_s=0.0),
    )
    room = [None if view.free_bytes is None else words.size(view.free_bytes) for view in now.targets]
    swept = [view.last_sweep_ts and round(view.last_sweep_ts / _SWEEP_GRAIN_S) for view in now.targets]
    return verdict(now), still, room, swept


def _still(view: TargetView) -> TargetView:
    failing = tuple(replace(file, next_attempt_s=0.0, age_s=0.0) for file in view.failing)
    return replace(view, oldest_pending_s=0.0, last_sweep_ts=None, free_bytes=None, failing=failing)
