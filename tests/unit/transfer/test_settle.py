"""The end of a job: recorded, counted, and only then over."""

import gc
import logging
import threading
import time
import weakref

import pytest

from replicator.errors import JournalError, JournalFull, Stopping, Unavailable
from replicator.model import Direction, Fingerprint, Hint, Row
from replicator.observe.metrics import Metrics
from replicator.transfer.outcome import Done, Outcome
from replicator.transfer.retry import RetryPolicy
from replicator.transfer.settle import Ended, Settling, guarded
from tests.waiting import wait_until


class Journal:
    """Remembers each transaction; the first waits until it is let go."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.go = threading.Event()
        self.error: Exception | None = None

    def settle_all(self, rows):
        if self.error:
            raise self.error
        self.transactions.append([row.relpath for _, row in rows])
        self.go.wait(5)


@pytest.fixture
def journal():
    return Journal()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def settling(queue, journal, metrics):
    one = Settling(queue, journal, policy=RetryPolicy(max_s=0.01, parked_s=300), metrics=metrics)
    thread = threading.Thread(target=guarded(one.run, lambda error: setattr(one, "fault", error)))
    thread.start()
    yield one
    journal.go.set()
    one.close()
    thread.join(5)
    assert not thread.is_alive()


@pytest.fixture
def lane(make_lane):
    lane = make_lane()
    lane.number = 1
    lane.target.id, lane.target.workload, lane.target.direction = "w/egress/p", "w", Direction.EGRESS
    return lane


@pytest.fixture
def ended(queue, worker, lane):
    """A job for this path whose bytes have moved."""

    def make(relpath, done=Done.COPIED):
        queue.put(lane, Hint(relpath))
        job = worker.take()
        gate = worker._gates[job]
        row = Row(relpath, Fingerprint(1, 1, 1, 1), "e", "") if done is Done.COPIED else None
        now_s = time.monotonic()
        return Ended(job, gate, Outcome(done, moved_bytes=1, row=row), now_s, now_s)

    return make


def test_job_is_over_only_once_its_row_is_recorded(queue, settling, journal, ended):
    """A kill before the commit finds the job undone, and the file is looked at again."""
    settling.put(ended("a"))
    wait_until(lambda: journal.transactions)
    assert len(queue) == 1

    journal.go.set()

    wait_until(lambda: len(queue) == 0)


def test_jobs_that_end_meanwhile_share_the_next_transaction(queue, settling, journal, ended):
    """The disk is waited for once for all of them."""
    settling.put(ended("first"))
    wait_until(lambda: journal.transactions)
    for name in "abcde":
        settling.put(ended(name))

    journal.go.set()

    wait_until(lambda: len(queue) == 0)
    assert journal.transactions == [["first"], ["a", "b", "c", "d", "e"]]


@pytest.mark.fault("A10")
def test_full_journal_puts_every_job_of_the_batch_off(queue, settling, journal, ended, lane):
    """What is not recorded is not over: it is moved again once there is room."""
    journal.error = JournalFull("no room")

    settling.put(ended("a"))

    wait_until(lambda: [job.relpath for job in queue.jobs(lane) if job.is_failing] == ["a"])


@pytest.mark.fault("A10")
def test_probe_of_a_full_journal_has_succeeded_only_once_its_row_is_recorded(queue, settling, journal, ended):
    """The store's answer alone opens nothing: what cannot be recorded would be moved again and again."""
    job = ended("a")
    job.gate.failed("b", JournalFull("no room"), now_s=0.0)
    settling.put(job)
    wait_until(lambda: journal.transactions)
    assert isinstance(job.gate.error, JournalFull)

    journal.go.set()

    wait_until(lambda: job.gate.error is None)


def test_journal_that_cannot_be_trusted_is_told(settling, journal, ended):
    """It ends the process, which the thread cannot do by itself."""
    journal.error = JournalError("broken")

    settling.put(ended("a"))

    wait_until(lambda: isinstance(getattr(settling, "fault", None), JournalError))


def test_surprise_ends_the_process_and_not_only_the_thread(settling, journal, ended):
    """A thread that is gone would leave every later job undone, and nobody would hear of it."""
    journal.error = ZeroDivisionError("nobody planned for this")

    settling.put(ended("a"))

    wait_until(lambda: "nobody planned" in str(getattr(settling, "fault", "")))


def test_job_that_had_nothing_to_record_needs_no_transaction(queue, settling, journal, ended):
    """A look that found everything in step costs no commit."""
    settling.put(ended("a", Done.NOTHING))

    wait_until(lambda: len(queue) == 0)
    assert journal.transactions == []


def test_failure_counts_and_comes_back(queue, settling, metrics, worker, lane):
    """Each attempt that failed is one more retry, by reason; the process's own end is no failure."""
    queue.put(lane, Hint("a"))
    job = worker.take()
    gate = worker._gates.pop(job)
    gate.leave(is_bulk=False)
    settling.failed(job, gate, Unavailable("down"))
    job = worker.take()
    gate = worker._gates.pop(job)
    gate.leave(is_bulk=False)

    settling.failed(job, gate, Stopping("end"))

    samples = {s.labels["reason"]: s.value for m in metrics.retries.collect() for s in m.samples if s.value}
    assert samples == {"unavailable": 1}


def test_failure_that_is_remembered_holds_no_body(queue, settling, worker, lane, caplog):
    """An error may wait with its job for hours; the frames that it came through, and what they held, do not."""
    queue.put(lane, Hint("a"))
    job = worker.take()
    gate = worker._gates.pop(job)
    gate.leave(is_bulk=False)

    class Body(bytearray):
        pass

    def attempt() -> tuple[Unavailable, weakref.ref]:
        body = Body(b"large")
        try:
            try:
                raise OSError(body)
            except OSError as exc:
                raise Unavailable("down") from exc
        except Unavailable as error:
            return error, weakref.ref(body)

    error, body = attempt()
    assert body() is not None
    with caplog.at_level(logging.CRITICAL, "replicator"):  # a test's own log keeps what it is told
        settling.failed(job, gate, error)

    gc.collect()
    assert job.error is error
    assert body() is None


def test_lane_is_told_of_each_end_of_a_job(queue, journal, metrics, ended, worker, lane):
    """Well or not, and only once the queue knows: whoever is told finds the job gone, or put off."""
    told = []
    one = Settling(
        queue,
        journal,
        policy=RetryPolicy(max_s=60, parked_s=300),
        metrics=metrics,
        on_ended=lambda lane: told.append([(job.relpath, job.is_failing) for job in queue.jobs(lane)]),
    )
    journal.go.set()
    one.put(ended("a"))
    one.close()
    one.run()
    queue.put(lane, Hint("b"))
    job = worker.take()

    one.failed(job, worker._gates[job], Unavailable("down"))

    assert told == [[], [("b", True)]]


def test_closed_settling_records_what_is_left(queue, journal, metrics, ended):
    """The end of the process loses no row of a file that was moved."""
    one = Settling(queue, journal, policy=RetryPolicy(max_s=1, parked_s=1), metrics=metrics)
    journal.go.set()
    one.put(ended("a"))
    one.close()

    one.run()

    assert journal.transactions == [["a"]]
