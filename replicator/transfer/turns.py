"""Whose turn it is: a target's jobs in the order it asks for, and the targets among each other.

Large files have slots of their own beside those of the small ones: however many large ones wait, small ones overtake
them, and the other way round. When many more small ones are due than there are slots, each slot takes a run of them:
what is done once a run is not done once a file. Knows no threads and no clock: the queue locks, and passes the time in.
"""

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from replicator.stores.lane import Lane
from replicator.transfer.gate import Gate
from replicator.transfer.job import Job
from replicator.transfer.order import rank_of

SMALL_BYTES = 64 * 1024
"""Files up to this size are moved in runs, and held in memory for it."""

_RUN_JOBS = 16

Run = tuple[list[Job], Gate]
"""Jobs of one target that share a slot, one after the other, and the gate they came through."""

_Entry = tuple[tuple[float, ...], int, Job]
"""Where in its heap, ticket, job."""


@dataclass(slots=True, eq=False)
class Line:
    """One target's jobs: those that wait for their time, and those that are due, small and large, in their order."""

    lane: Lane
    gate: Gate
    jobs: dict[str, Job] = field(default_factory=dict)
    waiting: list[_Entry] = field(default_factory=list)
    due: tuple[list[_Entry], list[_Entry]] = field(default_factory=lambda: ([], []))
    held: set[Job] = field(default_factory=set)
    """Jobs that failed while the gate was closed: they wait for that, and not for their own sake."""

    @property
    def priority(self) -> int:
        return self.lane.target.options.priority

    def has_work(self) -> bool:
        """Whether a job is due, as far as the last `take` saw, and the gate has a slot for it."""
        return self.gate.error is None and any(
            heap and self.gate.has_slot(is_bulk=heap is self.due[True]) for heap in self.due
        )

    def schedule(self, job: Job, due_s: float) -> None:
        """Let the job be due at `due_s`; any earlier entry of it goes stale."""
        job.due_s = due_s
        job.is_running = False
        job.ticket = next(_tickets)
        heapq.heappush(self.waiting, ((due_s,), job.ticket, job))

    def take(self, now_s: float, bulk_bytes: int) -> list[Job]:
        """The due job whose turn it is, with those that share its slot; none when the gate has no slot for it."""
        if self.held and self.gate.error is None:
            self._release(now_s)
        while (job := self._first(self.waiting)) and job.due_s <= now_s:
            heapq.heappop(self.waiting)
            job.is_bulk = job.size > bulk_bytes
            heapq.heappush(self.due[job.is_bulk], (rank_of(job.lane.target, job), job.ticket, job))
        heads = [(heap[0], heap) for heap in self.due if self._first(heap)]
        for _, heap in sorted(heads, key=lambda head: head[0][:2]):
            if self.gate.enter(now_s, is_bulk=heap is self.due[True]):
                run = [heapq.heappop(heap)[2]]
                if run[0].size <= SMALL_BYTES and self.gate.error is None:
                    run += self._followers(heap)
                for job in run:
                    job.is_running, job.moved_bytes = True, 0
                return run
        return []

    def _release(self, now_s: float) -> None:
        """Let what the gate alone held back be due: it is open again."""
        for job in self.held:
            if self.jobs.get(job.relpath) is job and not job.is_running:
                self.schedule(job, min(now_s, job.due_s))
        self.held.clear()

    def _followers(self, heap: list[_Entry]) -> list[Job]:
        """The small jobs that come next, as many as leave as many to each other slot."""
        share = min(len(heap) // self.gate.concurrency.limit, _RUN_JOBS - 1)
        jobs: list[Job] = []
        while len(jobs) < share and (job := self._first(heap)) and job.size <= SMALL_BYTES:
            jobs.append(heapq.heappop(heap)[2])
        return jobs

    def next_due_s(self, now_s: float) -> float | None:
        """When something can become due by itself; None while only a hint or a job's end can change that."""
        opens_s = self.gate.opens_s()
        if self.gate.error is not None and opens_s is None:
            return None
        has_due = any(self._first(heap) for heap in self.due)
        job = self._first(self.waiting)
        if has_due and self.gate.error is not None:
            return opens_s
        return max(job.due_s, opens_s or now_s) if job else None

    def _first(self, heap: list[_Entry]) -> Job | None:
        while heap:
            _, ticket, job = heap[0]
            if self.jobs.get(job.relpath) is job and not job.is_running and job.ticket == ticket:
                return job
            heapq.heappop(heap)  # the job is gone, runs, or was given another time
        return None


_tickets = itertools.count(1)
"""Jobs of one rank keep the order in which they came."""


class Turns:
    """The lines of all targets: higher priorities first, one after the other within a priority."""

    def __init__(self, *, bulk_bytes: int) -> None:
        self._bulk_bytes = bulk_bytes
        self._lines: list[Line] = []

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines)

    def add(self, line: Line) -> None:
        self._lines.append(line)
        self._lines.sort(key=lambda line: -line.priority)

    def remove(self, line: Line) -> None:
        self._lines.remove(line)

    def take(self, now_s: float) -> Run | None:
        """The due jobs of the line whose turn it is; that line is then behind the others of its priority."""
        for index, line in enumerate(self._lines):
            if run := line.take(now_s, self._bulk_bytes):
                later = (
                    place for place in range(index, len(self._lines)) if self._lines[place].priority < line.priority
                )
                self._lines.insert(next(later, len(self._lines)) - 1, self._lines.pop(index))
                return run, line.gate
        return None

    def has_more(self) -> bool:
        """Whether there is a job for somebody else, now."""
        return any(line.has_work() for line in self._lines)

    def next_due_s(self, now_s: float) -> float | None:
        """When a job can become due by itself; None while only a hint or a job's end can change that."""
        times = [due_s for line in self._lines if (due_s := line.next_due_s(now_s)) is not None]
        return min(times, default=None)
