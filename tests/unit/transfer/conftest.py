"""What the tests of the transfer room share: lanes that are only names, gates, and a worker's view of the queue."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from replicator.config.bandwidth import Allowance, Timetable
from replicator.model import Fingerprint, LocalFile, TargetOptions
from replicator.stores.files.export import ignore_lease_signals
from replicator.stores.journal.journal import Journal
from replicator.transfer.concurrency import Concurrency
from replicator.transfer.gate import Gate
from replicator.transfer.limits import ByteBudget, Room
from replicator.transfer.outcome import Means
from replicator.transfer.pace import Bandwidth, DataBudget
from replicator.transfer.queue import Queue
from replicator.transfer.retry import RetryPolicy

BULK_BYTES = 200_000


class Lane:
    """The queue uses lanes as names, and asks them for their options."""

    is_egress = True

    def __init__(self, **options) -> None:
        self.target = SimpleNamespace(options=TargetOptions(**options))


class Worker:
    """The queue as worker threads see it. A job is taken as soon as one is due, as threads do."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._gates: dict = {}
        self._threads = ThreadPoolExecutor(1)
        self._taking: Future | None = None

    def take(self, timeout_s: float = 5.0):
        """The next job; None when none became due in time."""
        self._taking = self._taking or self._threads.submit(self.queue.take)
        try:
            taken = self._taking.result(timeout_s)
        except TimeoutError:
            return None
        self._taking = None
        assert taken is not None
        (job,), gate = taken
        self._gates[job] = gate
        return job

    def is_idle(self) -> bool:
        """Whether nothing is due now. What becomes due later is taken by the next `take`."""
        return self.take(0.05) is None

    def done(self, job) -> None:
        self._gates.pop(job).leave(is_bulk=job.is_bulk)
        self.queue.done([job])
        self._look_again()

    def defer(self, job, error, delay_s, **more) -> None:
        self._gates.pop(job).leave(is_bulk=job.is_bulk)
        self.queue.defer(job, error, delay_s, **more)

    def _look_again(self) -> None:
        """A thread that ends a job takes the next one itself; here that is the thread that waits already."""
        with self.queue._changed:
            self.queue._changed.notify()

    def close(self) -> None:
        self.queue.close()
        self._threads.shutdown()


def make_gate(*, limit: int = 16, max_s: float = 0.01) -> Gate:
    """A gate with exactly so many slots."""
    concurrency = Concurrency(limit)
    while concurrency.limit < limit:
        concurrency.succeeded(0.001, 1)
    return Gate(RetryPolicy(max_s=max_s, parked_s=300), concurrency)


def local(relpath: str, *, size: int = 1, age_s: float = 0.0) -> LocalFile:
    """A file that changed so long ago."""
    return LocalFile(relpath, Fingerprint(size, 0, int((time.time() - age_s) * 1e9), 1))


@pytest.fixture
def means() -> Means:
    """No cap, no budget of data, and files that are settled at once."""
    ignore_lease_signals()
    return Means(
        part_size_bytes=8 * 2**20,
        min_rate_bytes_s=0,
        quiet_s=0,
        open_file_ceiling_s=60,
        resume_after_s=30,
        budget=ByteBudget(64 * 2**20),
        room=Room(floor_bytes=0),
        bandwidth=Bandwidth(Timetable()),
        data=DataBudget(Allowance(), SimpleNamespace()),
    )


@pytest.fixture
def journal(tmp_path):
    one = Journal.open(str(tmp_path / "state"))
    yield one
    one.close()


@pytest.fixture
def queue():
    return Queue(bulk_bytes=BULK_BYTES)


@pytest.fixture
def worker(queue):
    one = Worker(queue)
    yield one
    one.close()


@pytest.fixture
def make_lane(queue):
    """A lane in the queue, with a gate of its own unless one is given."""

    def make(gate: Gate | None = None, **options) -> Lane:
        lane = Lane(**options)
        queue.add_lane(lane, gate or make_gate())
        return lane

    return make


@pytest.fixture
def lane(make_lane):
    return make_lane()


@pytest.fixture
def gate_of():
    return make_gate


@pytest.fixture
def file_of():
    return local
