"""Workers: take a job, have it done, count, and put it off when it failed.

Where any fault of one path ends: nothing that happens to a path stops the others. What is done is `egress` and
`ingress`, how long a failed path waits is `retry`; only a journal that cannot be trusted ends the process.
"""

import asyncio
import time
from collections import defaultdict

from replicator.errors import JournalError, Refused, RemoteChanged, SourceChanged, TransferError
from replicator.model import UNSEEN
from replicator.observe import logs
from replicator.observe.metrics import Metrics, who
from replicator.stores.lane import Lane
from replicator.transfer import egress, ingress
from replicator.transfer.outcome import Done, Means, Outcome
from replicator.transfer.queue import Job, Queue
from replicator.transfer.retry import Gate, RetryPolicy

log = logs.get("workers")


class Workers:
    """At most `limit` jobs at a time, taken from the queue until cancelled."""

    def __init__(self, queue: Queue, *, limit: int, means: Means, policy: RetryPolicy, metrics: Metrics) -> None:
        self.limit = limit
        self.in_flight = 0
        self.last_success_ts: dict[Lane, float] = {}
        """When a file of the lane was last moved or confirmed, seconds since the epoch."""
        self._queue = queue
        self._means = means
        self._policy = policy
        self._metrics = metrics
        self._running: dict[Lane, set[asyncio.Task[None]]] = defaultdict(set)

    async def run(self) -> None:
        """Work until cancelled; jobs in flight are cancelled with it. Raises JournalError."""
        slots = asyncio.Semaphore(self.limit)

        async def work(job: Job, gate: Gate) -> None:
            try:
                await self._work(job, gate)
            finally:
                slots.release()

        async with asyncio.TaskGroup() as jobs:
            while True:
                await slots.acquire()
                job, gate = await self._queue.get()
                task = jobs.create_task(work(job, gate), name=f"job {job.lane.target.id}")
                self._running[job.lane].add(task)
                task.add_done_callback(self._running[job.lane].discard)

    async def leave(self, lane: Lane) -> None:
        """Wait until no job of this lane runs any more; after that nothing uses its store."""
        if tasks := self._running.pop(lane, None):
            await asyncio.gather(*tasks, return_exceptions=True)
        self.last_success_ts.pop(lane, None)

    async def _work(self, job: Job, gate: Gate) -> None:
        began_s = time.monotonic()
        self.in_flight += 1
        try:
            outcome = await (egress.send if job.lane.is_egress else ingress.fetch)(job, self._means)
        except TransferError as error:
            self._failed(job, gate, error)
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001 - one path's surprise must not stop the others
            log.error("job failed unexpectedly", target=job.lane.target.id, relpath=job.relpath, error=error)
            self._failed(job, gate, Refused(f"unexpected {type(error).__name__}: {error}"))
        else:
            gate.succeeded() if outcome.was_asked else gate.released()
            self._count(job, outcome, began_s)
            self._queue.done(job)
        finally:
            self.in_flight -= 1

    def _failed(self, job: Job, gate: Gate, error: TransferError) -> None:
        gate.failed(job.relpath, error, time.monotonic())
        labels = who(job.lane.target)
        delay_s = self._policy.delay_s(error, job.attempts + 1)
        self._metrics.retries.labels(*labels, error.reason).inc()
        if isinstance(error, RemoteChanged):
            job.remote = UNSEEN
        if not isinstance(error, SourceChanged | RemoteChanged):
            self._metrics.files.labels(*labels, "failed").inc()
            log.warning(
                "transfer put off",
                target=job.lane.target.id,
                relpath=job.relpath,
                reason=error.reason,
                error=error,
                attempts=job.attempts + 1,
                next_attempt_s=round(delay_s, 1),
            )
        self._queue.defer(job, error, delay_s)

    def _count(self, job: Job, outcome: Outcome, began_s: float) -> None:
        lane, now_s = job.lane, time.monotonic()
        if outcome.done is Done.NOTHING:
            return
        labels = who(lane.target)
        self._metrics.files.labels(*labels, outcome.done.value).inc()
        if outcome.done is Done.FORGOTTEN:
            return
        self.last_success_ts[lane] = time.time()
        if outcome.done is not Done.COPIED:
            return
        direction = str(lane.target.direction)
        self._metrics.bytes.labels(*labels).inc(outcome.moved_bytes)
        stages = {
            "detect": job.hinted_s - job.changed_s,
            "queue": began_s - job.hinted_s,
            "transfer": now_s - began_s,
            "total": now_s - job.changed_s,
        }
        for stage, seconds in stages.items():
            self._metrics.latency.labels(direction, stage).observe(max(0.0, seconds))
        if outcome.conflict_copy:
            self._metrics.files.labels(*labels, "conflict").inc()
            log.warning("local edit kept as conflict copy", target=lane.target.id, relpath=outcome.conflict_copy)
        log.info(
            "object stored" if lane.is_egress else "file stored",
            target=lane.target.id,
            key=outcome.key,
            bytes=outcome.moved_bytes,
            seconds=round(now_s - began_s, 3),
        )
