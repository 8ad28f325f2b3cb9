"""Workers: threads that take jobs, have them done, and hand them on to be settled, or put them off when they failed.

What is done is `egress` and `ingress`, how a job ends is `settle`; only a journal that cannot be trusted ends the
process.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

from replicator.errors import ReplicatorError, TransferError
from replicator.observe import logs
from replicator.stores.lane import Lane
from replicator.transfer import egress, ingress
from replicator.transfer.gate import Gate
from replicator.transfer.job import Job
from replicator.transfer.outcome import Means
from replicator.transfer.publisher import Publisher
from replicator.transfer.queue import Queue
from replicator.transfer.settle import Ended, Settling, guarded

log = logs.get("workers")

_STOP_S = 2.0
"""How long the end of the process waits for bodies on their way; a thread that is stuck in one dies with it."""

_POLL_S = 0.02

_SPARE_THREADS = 16
"""For the event loop, the libraries, parts of large files, and those who ask how it is."""


class Workers:
    """`threads` threads that take jobs from the queue while `run` runs."""

    def __init__(self, queue: Queue, settling: Settling, publisher: Publisher, *, threads: int, means: Means) -> None:
        self._queue = queue
        self._settling = settling
        self._publisher = publisher
        self._means = means
        self._workers = [self._thread(self._take_jobs, f"worker {number}") for number in range(threads)]
        self._settler = self._thread(settling.run, "settle")
        self._publishing = self._thread(publisher.run, "publish")
        self._fault: ReplicatorError | None = None
        self._tell_fault: Callable[[], object] = lambda: None

    async def run(self) -> None:
        """Work until cancelled; bodies on their way are given a moment to end. Raises ReplicatorError."""
        has_fault = asyncio.Event()
        self._tell_fault = partial(asyncio.get_running_loop().call_soon_threadsafe, has_fault.set)
        self._fit()
        for thread in (*self._workers, self._settler, self._publishing):
            thread.start()
        try:
            await has_fault.wait()
            if self._fault:
                raise self._fault
        finally:
            self._means.stopping.set()
            self._means.bandwidth.close()
            self._queue.close()
            await asyncio.to_thread(self._join)

    def _fit(self) -> None:
        """Do with fewer workers where threads are short: a limit of them shows only when it is met."""
        wanted = len(self._workers)
        allowed = _startable(wanted + _SPARE_THREADS) - _SPARE_THREADS
        if allowed < wanted:
            del self._workers[max(1, allowed) :]
            fix = "Raise the limit of threads (ulimit -u, or the container's limit of processes), or lower transfers."
            log.warning("few threads may be started, fewer files move at a time", limit=len(self._workers), fix=fix)

    async def leave(self, lane: Lane) -> None:
        """Wait until no job of this lane runs any more; after that nothing uses its store."""
        self._publisher.forget(lane)
        while self._queue.running(lane) or self._publisher.is_busy(lane):  # noqa: ASYNC110 - threads end jobs; waking the loop for each would cost more
            await asyncio.sleep(_POLL_S)
        self._settling.forget(lane)

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        # A daemon: what is stuck in a request must not keep the process from ending.
        return threading.Thread(target=guarded(work, self._on_fault), name=name, daemon=True)

    def _on_fault(self, error: ReplicatorError) -> None:
        if not self._means.stopping.is_set():
            self._fault = error
            self._tell_fault()

    def _join(self) -> None:
        deadline_s = time.monotonic() + _STOP_S
        for thread in self._workers:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        self._settling.close()
        self._settler.join(_STOP_S)
        self._publisher.close()
        self._publishing.join(_STOP_S)

    def _take_jobs(self) -> None:
        while taken := self._queue.take():
            self._work(*taken)

    def _work(self, jobs: list[Job], gate: Gate) -> None:
        """Move a run; when the gate closes on the way, the rest of it waits like everybody else."""
        left = dict.fromkeys(jobs)
        move = egress.send if jobs[0].lane.is_egress else ingress.fetch
        began_s = time.monotonic()
        for job, ending in move(jobs, self._means, lambda: gate.error is None or len(jobs) == 1):
            del left[job]
            if isinstance(ending, TransferError):
                self._settling.failed(job, gate, ending)
                continue
            if ending.asked_s:
                gate.concurrency.succeeded(ending.asked_s, ending.moved_bytes)
            now_s = time.monotonic()
            self._settling.put(Ended(job, gate, ending, began_s, now_s))
            began_s = now_s
        gate.leave(is_bulk=jobs[0].is_bulk)
        for job in left:
            self._queue.defer(job, None, 0.0)


def _startable(wanted: int) -> int:
    """How many of so many threads may be started now."""
    go_on = threading.Event()
    threads: list[threading.Thread] = []
    try:
        while len(threads) < wanted:
            thread = threading.Thread(target=go_on.wait, name="trial", daemon=True)
            thread.start()
            threads.append(thread)
    except RuntimeError:  # what CPython makes of EAGAIN
        pass
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
    return len(threads)
