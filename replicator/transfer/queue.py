"""The queue: at most one job a (target, path); a hint in flight marks it to run again.

Holds no state worth saving: the difference between disk and journal is the durable queue. It stands between the event
loop and the worker threads, so every call is safe from any thread, and none but `take` blocks. Whose turn it is says
`turns`. A path that failed waits here and not in a worker.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

from replicator.errors import Permanent, RemoteChanged, SourceChanged, TransferError
from replicator.model import Hint, RemoteObject
from replicator.stores.lane import Lane
from replicator.transfer.gate import Gate
from replicator.transfer.job import Job
from replicator.transfer.turns import Line, Run, Turns

_POLL_S = 0.02
"""How often tasks of the event loop look whether the queue has shrunk: rare, and cheaper than a wake-up a job."""


class Queue:
    """All jobs of the process. `bulk_bytes`: files above it are large ones."""

    def __init__(self, *, bulk_bytes: int) -> None:
        self._lines: dict[Lane, Line] = {}
        self._turns = Turns(bulk_bytes=bulk_bytes)
        self._changed = threading.Condition()
        self._is_closed = False
        self._alarm_s: float | None = None  # the time that one of the waiting threads waits for
        self._running: Counter[Lane] = Counter()

    def add_lane(self, lane: Lane, gate: Gate) -> None:
        """Take jobs of this lane; lanes at one endpoint share their gate."""
        with self._changed:
            line = self._lines[lane] = Line(lane, gate)
            gate.tell(partial(_wake, self._changed))  # also a sweep's listing may be the probe
            self._turns.add(line)

    def remove_lane(self, lane: Lane) -> None:
        """Drop the lane's waiting jobs; those running end on their own and are not queued again."""
        with self._changed:
            if line := self._lines.pop(lane, None):
                self._turns.remove(line)

    def put(self, lane: Lane, hint: Hint, *, is_event: bool = False) -> bool:
        """Queue a look at a path; whether it was not queued yet.

        An event also ends the wait of a path that was parked for its own sake.
        """
        with self._changed:
            line = self._lines.get(lane)
            if line is None or hint.relpath is None:
                return False
            now_s = time.monotonic()
            job = line.jobs.get(hint.relpath)
            is_new = job is None
            if job is None:
                job = line.jobs[hint.relpath] = Job(lane, hint.relpath, hint.remote, hinted_s=now_s, changed_s=now_s)
            elif job.is_running:
                job.is_dirty = True
                job.is_announced |= is_event
            job.remote = hint.remote
            job.observe(hint.local)
            if isinstance(hint.remote, RemoteObject) and not lane.is_egress:
                job.size = hint.remote.size
            if is_new or (is_event and not job.is_running and isinstance(job.error, Permanent | SourceChanged)):
                line.schedule(job, now_s)
                self._changed.notify()
            return is_new

    def take(self) -> Run | None:
        """The next jobs that are due, one or a run of small ones; waits for one. None once the queue is closed."""
        with self._changed:
            while not self._is_closed:
                now_s = time.monotonic()
                if taken := self._turns.take(now_s):
                    jobs, _ = taken
                    self._running[jobs[0].lane] += len(jobs)
                    if self._turns.has_more() or (self._alarm_s is None and self._turns.next_due_s(now_s)):
                        self._changed.notify()  # each taker wakes the next, who works too or waits for what comes
                    return taken
                self._wait(now_s)
            return None

    def _wait(self, now_s: float) -> None:
        """Wait for a hint or a job's end. One thread also waits for the time of what is due next."""
        alarm_s = self._turns.next_due_s(now_s)
        if alarm_s is None or self._alarm_s is not None:
            self._changed.wait()
            return
        self._alarm_s = alarm_s
        self._changed.wait(max(0.0, alarm_s - now_s) + 0.001)
        self._alarm_s = None

    def done(self, jobs: Sequence[Job]) -> None:
        """These paths are in step, but for those that were hinted again while their job ran."""
        with self._changed:
            for job in jobs:
                self._running[job.lane] -= 1
                job.is_running = False
                line = self._lines.get(job.lane)
                if line is not None and job.is_dirty:
                    now_s = time.monotonic()
                    job.hinted_s = job.changed_s = now_s
                    job.is_dirty, job.is_announced, job.error, job.attempts = False, False, None, 0
                    line.schedule(job, now_s)
                    self._changed.notify()
                elif line is not None:
                    del line.jobs[job.relpath]

    def defer(self, job: Job, error: TransferError | None, delay_s: float, *, is_held: bool = False) -> None:
        """The attempt failed; look again after `delay_s`, at once when the path moved meanwhile.

        Where a person must act, only an event says that: a long attempt meets a sweep, and would never rest.
        Without an error there was no attempt: the job is due as before. `is_held`: only the closed gate was to blame,
        so that the job is due as soon as that opens.
        """
        with self._changed:
            self._running[job.lane] -= 1
            job.is_running = False
            is_moved = job.is_dirty and (error is None or isinstance(error, SourceChanged | RemoteChanged))
            is_moved |= job.is_announced and isinstance(error, Permanent)
            job.is_dirty = job.is_announced = False
            if error is not None:
                job.error = error
                job.attempts += 1
            if line := self._lines.get(job.lane):
                line.schedule(job, time.monotonic() + (0.0 if is_moved else delay_s))
                (line.held.add if is_held else line.held.discard)(job)
                if self._alarm_s is None or job.due_s < self._alarm_s:
                    self._changed.notify_all()  # somebody has to wait for it

    def hurry(self, lane: Lane | None = None) -> None:
        """Make every waiting job due now: the drain gives each one more attempt.

        Of one `lane`, whose bucket has new words, what runs gets another one too: it began with the old ones.
        """
        with self._changed:
            for line in self._turns:
                for job in line.jobs.values() if lane in (None, line.lane) else ():
                    if not job.is_running:
                        line.schedule(job, time.monotonic())
                    elif lane:
                        job.is_dirty = job.is_announced = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody take a job any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    async def wait_until(self, *, at_most: int) -> None:
        """Wait until no more than so many jobs are left, waiting or running."""
        while len(self) > at_most:  # noqa: ASYNC110 - threads end jobs; waking the loop for each would cost more
            await asyncio.sleep(_POLL_S)

    def jobs(self, lane: Lane | None = None) -> list[Job]:
        """The jobs of one lane, or all."""
        with self._changed:
            return [job for line in self._turns if lane in (None, line.lane) for job in line.jobs.values()]

    def running(self, lane: Lane | None = None) -> int:
        """How many jobs run, of one lane, removed or not, or of all."""
        with self._changed:
            self._running += Counter()  # drops what has come down to nothing
            return self._running.total() if lane is None else self._running[lane]

    def __len__(self) -> int:
        return sum(len(line.jobs) for line in self._turns)


def _wake(changed: threading.Condition) -> None:
    with changed:
        changed.notify_all()
