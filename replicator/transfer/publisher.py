"""Publishes generations, on a thread of its own: a listing or a thousand links keep no file from being settled.

Asked whenever a file of such a target was settled, and when the target starts; what failed is tried again by itself.
Owns: when it is tried, and what came of it. Never: what makes a set whole (`transfer.generation`).
"""

import threading
import time
from dataclasses import replace

from replicator.errors import JournalError, Refused, TransferError
from replicator.observe import logs
from replicator.stores.lane import Lane
from replicator.transfer.generation import Standing, publish
from replicator.transfer.limits import Room
from replicator.transfer.queue import Queue

log = logs.get("transfer")


class Publisher:
    """`run` is for a thread of its own; the rest may be called from any. `retry_s`: pause after what failed."""

    def __init__(self, queue: Queue, room: Room, *, retry_s: float) -> None:
        self._queue = queue
        self._room = room
        self._retry_s = retry_s
        self._standing: dict[Lane, Standing] = {}
        self._due_s: dict[Lane, float] = {}
        self._at: Lane | None = None
        self._changed = threading.Condition()
        self._is_closed = False

    def add(self, lane: Lane) -> None:
        """A lane has started. One without generations is none of ours."""
        if lane.target.has_generations:
            with self._changed:
                self._standing[lane] = Standing()
            self.wake(lane)

    def forget(self, lane: Lane) -> None:
        """Drop a lane that is gone."""
        with self._changed:
            self._standing.pop(lane, None)
            self._due_s.pop(lane, None)

    def wake(self, lane: Lane) -> None:
        """Something of this lane has come to its end: look whether there is a whole set."""
        if lane in self._standing:
            with self._changed:
                self._due_s[lane] = time.monotonic()
                self._changed.notify()

    def standing(self, lane: Lane) -> Standing | None:
        """What its readers see; None for a lane without generations."""
        return self._standing.get(lane)

    def is_busy(self, lane: Lane) -> bool:
        """Whether a look at this lane is due or under way."""
        with self._changed:
            return self._at is lane or self._due_s.get(lane, float("inf")) <= time.monotonic()

    def run(self) -> None:
        """Publish until closed. Raises JournalError."""
        while lane := self._take():
            self._look(lane)
            with self._changed:
                self._at = None

    def close(self) -> None:
        """Let `run` end after the set that it is at."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _take(self) -> Lane | None:
        with self._changed:
            while not self._is_closed:
                lane = min(self._due_s, key=self._due_s.__getitem__, default=None)
                pause_s = self._due_s[lane] - time.monotonic() if lane else None
                if lane and pause_s is not None and pause_s <= 0:
                    del self._due_s[lane]
                    self._at = lane
                    return lane
                self._changed.wait(pause_s)
            return None

    def _look(self, lane: Lane) -> None:
        if any(not job.is_failing for job in self._queue.jobs(lane)):
            return  # the last of them asks again
        before = self._standing.get(lane, Standing())
        after = self._attempt(lane, before)
        obstacle = after.error or after.waits
        if obstacle and str(obstacle) != str(before.error or before.waits):
            log.warning("generation waits", target=lane.target.id, error=obstacle)
        with self._changed:
            if lane in self._standing:
                self._standing[lane] = after
                if after.error:
                    self._due_s.setdefault(lane, time.monotonic() + self._retry_s)

    def _attempt(self, lane: Lane, before: Standing) -> Standing:
        try:
            return publish(lane, self._room, is_moving=lambda: self._queue.running(lane) > 0)
        except TransferError as error:
            return replace(before, waits="", error=error)
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - one target's surprise must not stop the others
            log.error("generation failed unexpectedly", target=lane.target.id, error=error)
            return replace(before, waits="", error=Refused(logs.masked(f"unexpected {type(error).__name__}: {error}")))
