"""How a job ends: its row is recorded, it is counted, the queue is told; or it is put off.

Only here rows of finished transfers are written. One thread does it for all workers: what came in while one
transaction was committed is the next one, so that a worker goes on with its next file and never waits for the disk.
A job has ended only once its row is committed; a crash before that costs looking at the file again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from replicator.errors import (
    JournalFull,
    RemoteChanged,
    ReplicatorError,
    SourceChanged,
    Stopping,
    TransferError,
)
from replicator.model import UNSEEN
from replicator.observe import logs
from replicator.observe.metrics import Metrics, TargetSeries
from replicator.observe.tally import Tally
from replicator.stores.journal.journal import Journal
from replicator.stores.lane import Lane
from replicator.transfer.gate import Gate
from replicator.transfer.job import Job
from replicator.transfer.outcome import Done, Outcome
from replicator.transfer.queue import Queue
from replicator.transfer.retry import RetryPolicy

log = logs.get("transfer")

_GATHER_S = 0.005
"""How long the first of a batch waits for others: a commit for each file costs more than its row."""
_FULL_BATCH = 64


@dataclass(frozen=True, slots=True)
class Ended:
    """A job whose transfer is over. `began_s` is when it was taken, `ended_s` when its bytes had moved."""

    job: Job
    gate: Gate
    outcome: Outcome
    began_s: float
    ended_s: float


class Settling:
    """The last stage of every job. `run` is for a thread of its own; the rest may be called from any."""

    def __init__(
        self,
        queue: Queue,
        journal: Journal,
        *,
        policy: RetryPolicy,
        metrics: Metrics,
        on_ended: Callable[[Lane], object] = lambda _: None,
    ) -> None:
        """`on_ended` is told each lane of which jobs have ended, well or not. It must neither block nor raise."""
        self.last_success_ts: dict[Lane, float] = {}
        """When a file of the lane was last moved or confirmed, seconds since the epoch."""
        self.moved = Tally()
        """What has moved since the start."""
        self._queue = queue
        self._journal = journal
        self._policy = policy
        self._metrics = metrics
        self._on_ended = on_ended
        self._series: dict[Lane, TargetSeries] = {}
        self._waiting: list[Ended] = []
        self._changed = threading.Condition()
        self._is_closed = False

    def run(self) -> None:
        """Settle what comes until closed, and what is left then. Raises JournalError."""
        while batch := self._take():
            rows = [(ended.job.lane.number, ended.outcome.row) for ended in batch if ended.outcome.row]
            try:
                if rows:
                    self._journal.settle_all(rows)
            except JournalFull as error:
                for ended in batch:
                    self.failed(ended.job, ended.gate, error)
            else:
                for ended in batch:
                    # Not before: what cannot be recorded would be moved again and again.
                    ended.gate.succeeded() if ended.outcome.was_asked else ended.gate.released()
                    self._count(ended)
                self._queue.done([ended.job for ended in batch])
                for lane in {ended.job.lane for ended in batch}:
                    self._on_ended(lane)

    def put(self, ended: Ended) -> None:
        """Take over a job whose transfer went well."""
        with self._changed:
            self._waiting.append(ended)
            if len(self._waiting) in (1, _FULL_BATCH):
                self._changed.notify()

    def close(self) -> None:
        """Let `run` end once nothing is left."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def forget(self, lane: Lane) -> None:
        """Drop what is remembered of a lane that is gone."""
        self.last_success_ts.pop(lane, None)
        self._series.pop(lane, None)

    def failed(self, job: Job, gate: Gate, error: TransferError) -> None:
        """Put a job off whose attempt failed."""
        if isinstance(error, Stopping):
            gate.released()
            self._queue.defer(job, error, 0.0)
            return
        is_held = gate.failed(job.relpath, error, time.monotonic())
        delay_s = self._policy.delay_s(error, job.attempts + 1)
        self._metrics.put_off(job.lane.target, error.reason)
        if isinstance(error, RemoteChanged):
            job.remote = UNSEEN
        if not isinstance(error, SourceChanged | RemoteChanged):
            self._of(job.lane).files["failed"].inc()
            log.warning(
                "transfer put off",
                target=job.lane.target.id,
                relpath=job.relpath,
                reason=error.reason,
                error=error,
                attempts=job.attempts + 1,
                next_attempt_s=round(delay_s, 1),
            )
        error.forget_trace()
        self._queue.defer(job, error, delay_s, is_held=is_held)
        self._on_ended(job.lane)

    def _take(self) -> list[Ended]:
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if not self._is_closed:
                self._changed.wait(_GATHER_S)
            batch, self._waiting = self._waiting, []
            return batch

    def _count(self, ended: Ended) -> None:
        job, outcome, lane = ended.job, ended.outcome, ended.job.lane
        if outcome.done is Done.NOTHING:
            return
        series = self._of(lane)
        series.files[outcome.done].inc()
        if outcome.done is Done.FORGOTTEN:
            return
        self.last_success_ts[lane] = time.time()
        if outcome.is_freed:
            series.files[Done.FREED].inc()
        if outcome.conflict_copy:
            series.files["conflict"].inc()
            log.warning("local edit kept as conflict copy", target=lane.target.id, relpath=outcome.conflict_copy)
        if outcome.done is not Done.COPIED:
            return
        series.bytes.inc(outcome.moved_bytes)
        self.moved.add(files=1, size_bytes=outcome.moved_bytes)
        series.took(
            detect=job.hinted_s - job.changed_s,
            queue=ended.began_s - job.hinted_s,
            transfer=ended.ended_s - ended.began_s,
            total=time.monotonic() - job.changed_s,
        )
        log.info(
            "object stored" if lane.is_egress else "file stored",
            target=lane.target.id,
            key=outcome.key,
            bytes=outcome.moved_bytes,
            seconds=round(ended.ended_s - ended.began_s, 3),
        )

    def _of(self, lane: Lane) -> TargetSeries:
        if lane not in self._series:
            self._series[lane] = TargetSeries(self._metrics, lane.target)
        return self._series[lane]


def guarded(work: Callable[[], None], on_fault: Callable[[ReplicatorError], None]) -> Callable[[], None]:
    """`work` for a thread: what would end it in silence, and everybody's jobs with it, is told instead."""

    def run() -> None:
        try:
            work()
        except ReplicatorError as error:
            on_fault(error)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            log.error("thread ended unexpectedly", error=error)
            on_fault(ReplicatorError(f"a worker ended by itself ({type(error).__name__}: {error}); restart replicator"))

    return run
