"""The queue: at most one job a (target, path); a hint in flight marks it to run again.

Holds no state worth saving: the difference between disk and journal is the durable queue. Targets take turns, so that
a busy one does not starve a quiet one; a path that failed waits here and not in a worker.
"""

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from replicator.errors import Permanent, RemoteChanged, SourceChanged, TransferError
from replicator.model import Hint, LocalFile, RemoteObject, Unseen
from replicator.stores.lane import Lane
from replicator.transfer.retry import Gate


@dataclass(slots=True, eq=False)
class Job:
    """One path of one target that has to be looked at. Times are of the monotonic clock."""

    lane: Lane
    relpath: str
    remote: RemoteObject | Unseen | None
    hinted_s: float
    changed_s: float
    """When the difference came to be, as far as known: the age that people see counts from here."""
    due_s: float = 0.0
    is_running: bool = False
    is_dirty: bool = False
    attempts: int = 0
    error: TransferError | None = None
    size: int = 0
    """Bytes still to move, as far as known."""
    distrusted: str = ""
    """Checksum of a download that did not fit its ETag: the same bytes twice are what the store holds."""

    def observe(self, local: LocalFile | None) -> None:
        """Let the job be as large as the file, and as old as its change, which may be older than this process."""
        if local is not None:
            self.size = local.fingerprint.size
            age_s = time.time() - local.fingerprint.ctime_ns / 1e9
            self.changed_s = min(self.changed_s, time.monotonic() - max(0.0, age_s))

    @property
    def is_failing(self) -> bool:
        """Whether an attempt failed for a reason other than the file or object being in motion."""
        return self.error is not None and not isinstance(self.error, SourceChanged | RemoteChanged)


@dataclass(slots=True, eq=False)
class _Line:
    """One target's jobs in the order they become due, and the gate of its endpoint."""

    gate: Gate
    jobs: dict[str, Job] = field(default_factory=dict)
    heap: list[tuple[float, int, Job]] = field(default_factory=list)

    def schedule(self, job: Job, due_s: float) -> None:
        """Let the job be due at `due_s`; an earlier entry of it in the heap goes stale."""
        job.due_s = due_s
        job.is_running = False
        heapq.heappush(self.heap, (due_s, next(_order), job))

    def first(self) -> Job | None:
        """The waiting job that is due first."""
        while self.heap:
            due_s, _, job = self.heap[0]
            if self.jobs.get(job.relpath) is job and not job.is_running and job.due_s == due_s:
                return job
            heapq.heappop(self.heap)  # the job is gone, runs, or was given another time
        return None


_order = itertools.count()
"""Jobs that are due at one time keep the order in which they came."""


class Queue:
    """All jobs of the process. Used from one event loop; nothing here blocks."""

    def __init__(self) -> None:
        self._lines: dict[Lane, _Line] = {}
        self._turn: list[Lane] = []
        self._wake = asyncio.Event()
        self._job_ended = asyncio.Event()

    def add_lane(self, lane: Lane, gate: Gate) -> None:
        """Take jobs of this lane; lanes at one endpoint share their gate."""
        self._lines[lane] = _Line(gate)
        self._turn.append(lane)

    def remove_lane(self, lane: Lane) -> None:
        """Drop the lane's waiting jobs; those running end on their own and are not queued again."""
        self._lines.pop(lane, None)
        self._turn = [other for other in self._turn if other is not lane]
        self._wake.set()
        self._job_ended.set()

    def put(self, lane: Lane, hint: Hint, *, is_event: bool = False) -> bool:
        """Queue a look at a path; whether it was not queued yet.

        An event also ends the wait of a path that was parked for its own sake.
        """
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
        if is_new or (is_event and not job.is_running and isinstance(job.error, Permanent | SourceChanged)):
            line.schedule(job, now_s)
            self._wake.set()
        job.remote = hint.remote
        job.observe(hint.local)
        return is_new

    async def wait_until(self, *, at_most: int) -> None:
        """Wait until no more than so many jobs are left, waiting or running."""
        while len(self) > at_most:
            await self.wait_for_change()

    async def wait_for_change(self) -> None:
        """Wait until a job ended, well or not."""
        self._job_ended.clear()
        await self._job_ended.wait()

    async def get(self) -> tuple[Job, Gate]:
        """The next job that is due, of the target whose turn it is, and its endpoint's gate; waits for one."""
        while True:
            self._wake.clear()
            now_s = time.monotonic()
            if taken := self._take(now_s):
                return taken
            due_s = self._next_due_s()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due_s is None else max(0.0, due_s - now_s) + 0.001):
                    await self._wake.wait()

    def done(self, job: Job) -> None:
        """The path is in step, unless it was hinted again while the job ran."""
        line = self._lines.get(job.lane)
        if line is not None and job.is_dirty:
            now_s = time.monotonic()
            job.hinted_s = job.changed_s = now_s
            job.is_dirty, job.error, job.attempts = False, None, 0
            line.schedule(job, now_s)
        elif line is not None:
            del line.jobs[job.relpath]
        self._wake.set()
        self._job_ended.set()

    def defer(self, job: Job, error: TransferError, delay_s: float) -> None:
        """The attempt failed; look again after `delay_s`, at once when the path moved meanwhile."""
        job.error = error
        job.attempts += 1
        is_moved = job.is_dirty and isinstance(error, Permanent | SourceChanged | RemoteChanged)
        job.is_dirty = False
        if line := self._lines.get(job.lane):
            line.schedule(job, time.monotonic() + (0.0 if is_moved else delay_s))
        self._wake.set()
        self._job_ended.set()

    def hurry(self) -> None:
        """Make every waiting job due now: the drain gives each one more attempt."""
        for line in self._lines.values():
            for job in line.jobs.values():
                if not job.is_running:
                    line.schedule(job, time.monotonic())
        self._wake.set()

    def jobs(self, lane: Lane | None = None) -> Iterator[Job]:
        """The jobs of one lane, or all."""
        lines = self._lines.values() if lane is None else filter(None, [self._lines.get(lane)])
        return itertools.chain.from_iterable(line.jobs.values() for line in lines)

    def __len__(self) -> int:
        return sum(len(line.jobs) for line in self._lines.values())

    def _take(self, now_s: float) -> tuple[Job, Gate] | None:
        for index, lane in enumerate(self._turn):
            line = self._lines[lane]
            job = line.first()
            if job and job.due_s <= now_s and line.gate.admits(now_s):
                self._turn.append(self._turn.pop(index))
                heapq.heappop(line.heap)
                job.is_running = True
                return job, line.gate
        return None

    def _next_due_s(self) -> float | None:
        """When something can become due by itself; None while only a hint or a job's end can change that."""
        times = []
        for line in self._lines.values():
            job, opens_s = line.first(), line.gate.opens_s()
            if job and (line.gate.error is None or opens_s is not None):
                times.append(max(job.due_s, opens_s or 0.0))
        return min(times, default=None)
