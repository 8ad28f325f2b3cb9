"""The queue: one job a path, whose turn it is, waiting, and what people see of it."""

import threading
import time

import pytest

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    KeyUnsafe,
    Refused,
    RemoteChanged,
    SourceChanged,
    Throttled,
    Unavailable,
)
from replicator.model import UNSEEN, Hint, RemoteObject


def test_hints_of_one_path_are_one_job(queue, worker, lane):
    """However often a path is hinted, it is looked at once."""
    assert queue.put(lane, Hint("a"))
    assert not queue.put(lane, Hint("a"))

    assert worker.take().relpath == "a"
    assert worker.is_idle()


def test_hint_in_flight_makes_the_job_run_again(queue, worker, lane):
    """A change during a transfer is never lost: the job is done and at once due again."""
    queue.put(lane, Hint("a"))
    job = worker.take()
    queue.put(lane, Hint("a"))

    worker.done(job)

    assert worker.take().relpath == "a"


def test_path_in_flight_is_not_taken_twice(queue, worker, lane):
    """Two workers never have one path."""
    queue.put(lane, Hint("a"))
    worker.take()
    queue.put(lane, Hint("a"), is_event=True)

    assert worker.is_idle()


def test_done_job_is_gone(queue, worker, lane):
    """A path in step holds no memory."""
    queue.put(lane, Hint("a"))
    worker.done(worker.take())

    assert len(queue) == 0
    assert queue.running() == 0
    assert queue.put(lane, Hint("a"))


def test_newest_observation_replaces_the_older(queue, worker, lane):
    """A stale listing entry must not win over what was seen later."""
    queue.put(lane, Hint("a", RemoteObject("a", 1, "old", 0)))
    queue.put(lane, Hint("a", RemoteObject("a", 1, "new", 0)))

    assert worker.take().remote.etag == "new"


@pytest.mark.fault("F15", "G5")
def test_targets_take_turns(queue, worker, lane, make_lane):
    """A target with many files does not starve a quiet one."""
    quiet = make_lane()
    for number in range(10):
        queue.put(lane, Hint(f"busy{number}"))
    queue.put(quiet, Hint("quiet"))

    first_two = {worker.take().relpath, worker.take().relpath}

    assert "quiet" in first_two


def test_higher_priority_goes_first(queue, worker, lane, make_lane):
    """As long as an urgent target has a file, the others wait."""
    urgent = make_lane(priority=5)
    for number in range(3):
        queue.put(lane, Hint(f"plain{number}"))
        queue.put(urgent, Hint(f"urgent{number}"))

    taken = [worker.take().relpath for _ in range(6)]

    assert taken == ["urgent0", "urgent1", "urgent2", "plain0", "plain1", "plain2"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"order": "oldest"}, ["old.log", "mid.csv", "new.txt"]),
        ({"order": "newest"}, ["new.txt", "mid.csv", "old.log"]),
        ({"order": "smallest"}, ["mid.csv", "new.txt", "old.log"]),
        ({"order": "pattern", "order_patterns": ("*.txt", "*.log")}, ["new.txt", "old.log", "mid.csv"]),
    ],
)
def test_target_sends_in_its_order(queue, worker, make_lane, file_of, options, expected):
    """By age, size or name, as the target's options say."""
    lane = make_lane(**options)
    for name, size, age_s in (("mid.csv", 1, 50), ("old.log", 300, 100), ("new.txt", 20, 5)):
        queue.put(lane, Hint(name, local=file_of(name, size=size, age_s=age_s)))

    assert [worker.take().relpath for _ in range(3)] == expected


@pytest.mark.fault("G5")
def test_small_files_overtake_large_ones(queue, worker, make_lane, gate_of, file_of):
    """However many large files are first in line, most slots are for small ones, and one is always for a large one."""
    lane = make_lane(gate_of(limit=4))
    for number in range(5):
        queue.put(lane, Hint(f"large{number}", local=file_of(f"large{number}", size=10**9, age_s=1000)))
    for number in range(6):
        queue.put(lane, Hint(f"small{number}", local=file_of(f"small{number}", size=100_000)))

    running = [worker.take() for _ in range(5)]

    assert [job.relpath for job in running] == ["large0", "small0", "small1", "small2", "small3"]
    assert worker.is_idle()
    worker.done(running[1])
    assert worker.take().relpath == "small4"
    worker.done(running[0])
    assert worker.take().relpath == "large1"


def test_many_small_files_share_a_slot_in_their_order(queue, make_lane, gate_of, file_of):
    """With more small files due than slots, each slot takes a run of them, and leaves as many to each other slot."""
    lane = make_lane(gate_of(limit=4))
    for number in range(16):
        queue.put(lane, Hint(f"f{number:02}", local=file_of(f"f{number:02}", size=10, age_s=100 - number)))

    jobs, gate = queue.take()

    assert [job.relpath for job in jobs] == ["f00", "f01", "f02", "f03"]
    assert queue.running(lane) == 4
    gate.leave(is_bulk=False)


def test_run_holds_small_files_only(queue, make_lane, gate_of, file_of):
    """A file that is not small ends a run, and never begins one: it would keep the others waiting."""
    lane = make_lane(gate_of(limit=1))
    for number, size in enumerate((10, 10, 100_000, 10, 10)):
        queue.put(lane, Hint(f"f{number}", local=file_of(f"f{number}", size=size, age_s=100 - number)))
    runs = []
    for _ in range(3):
        jobs, gate = queue.take()
        gate.leave(is_bulk=jobs[0].is_bulk)
        runs.append([job.relpath for job in jobs])

    assert runs == [["f0", "f1"], ["f2"], ["f3", "f4"]]


def test_closed_gate_is_probed_by_one_job_and_not_by_a_run(queue, make_lane, gate_of):
    """While an endpoint is in doubt, one request asks for all."""
    gate = gate_of(limit=1, max_s=0.001)
    lane = make_lane(gate)
    for number in range(5):
        queue.put(lane, Hint(f"f{number}"))
    gate.failed("f0", BucketMissing("no"), time.monotonic() - 1)

    assert len(queue.take()[0]) == 1


def test_jobs_that_were_not_begun_are_due_as_before(queue, make_lane, gate_of):
    """What a run did not come to is nobody's failure: it is due at once, and counts no attempt."""
    lane = make_lane(gate_of(limit=1))
    for name in "abc":
        queue.put(lane, Hint(name))
    jobs, gate = queue.take()
    gate.leave(is_bulk=False)

    for job in jobs[1:]:
        queue.defer(job, None, 0.0)

    again, _ = queue.take()
    assert [job.relpath for job in again] == [job.relpath for job in jobs[1:]]
    assert [job.attempts for job in again] == [0, 0]
    assert queue.running(lane) == 3


def test_failed_path_waits_and_the_others_go_on(queue, worker, lane):
    """A poison file blocks nobody."""
    queue.put(lane, Hint("bad"))
    queue.put(lane, Hint("good"))
    worker.defer(worker.take(), Unavailable("no"), 300)

    assert worker.take().relpath == "good"
    assert worker.is_idle()
    assert [job.relpath for job in queue.jobs(lane) if job.is_failing] == ["bad"]


def test_deferred_job_comes_back_by_itself(queue, worker, lane):
    """A wait ends without anybody hinting again."""
    queue.put(lane, Hint("a"))
    worker.defer(worker.take(), Unavailable("no"), 0.02)

    job = worker.take()

    assert (job.relpath, job.attempts) == ("a", 1)


def test_event_ends_the_wait_of_a_path_parked_for_its_own_sake(queue, worker, lane):
    """A mended file is looked at at once; a sweep does not hurry it, and no file hurries a dead endpoint."""
    queue.put(lane, Hint("a"))
    worker.defer(worker.take(), KeyUnsafe("no"), 300)
    queue.put(lane, Hint("a"))
    assert worker.is_idle()

    queue.put(lane, Hint("a"), is_event=True)
    worker.defer(worker.take(), Unavailable("no"), 300)
    queue.put(lane, Hint("a"), is_event=True)

    assert worker.is_idle()


@pytest.mark.parametrize("is_event", [False, True])
def test_sweep_that_meets_a_long_attempt_gives_it_no_next_one(queue, worker, lane, is_event):
    """An upload that lasts longer than a sweep and is refused waits all the same; an event says that it was mended."""
    queue.put(lane, Hint("a"))
    job = worker.take()
    queue.put(lane, Hint("a"), is_event=is_event)
    queue.put(lane, Hint("a"))

    worker.defer(job, Refused("too large"), 300)

    assert worker.is_idle() == (not is_event)


def test_file_in_motion_is_pending_but_not_failing(queue, worker, lane):
    """A file that is being written is nobody's fault."""
    queue.put(lane, Hint("a"))
    worker.defer(worker.take(), SourceChanged("busy"), 300)

    (job,) = queue.jobs(lane)
    assert not job.is_failing


def test_object_that_is_another_one_each_time_is_failing_in_the_end(queue, worker, lane):
    """A replaced object is nobody's fault; one that is never the version that was looked at has a reason to be seen."""
    queue.put(lane, Hint("a"))
    failing = []
    for _ in range(5):
        job = worker.take()
        worker.defer(job, RemoteChanged("another"), 0.0)
        failing.append(job.is_failing)

    assert failing == [False, False, False, True, True]


@pytest.mark.fault("B1", "B25")
def test_closed_gate_lets_one_probe_through(queue, worker, make_lane, gate_of):
    """A dead endpoint is probed by one request, not by one a file."""
    gate = gate_of(max_s=0.05)
    dead = make_lane(gate)
    for number in range(6):
        queue.put(dead, Hint(f"f{number}"))
    for _ in range(3):
        job = worker.take()
        gate.failed(job.relpath, Unavailable("down"), time.monotonic())
        worker.defer(job, Unavailable("down"), 300)

    probe = worker.take()
    assert worker.is_idle()
    gate.succeeded()
    worker.done(probe)
    queue.hurry()

    assert {worker.take().relpath for _ in range(5)} | {probe.relpath} == {f"f{n}" for n in range(6)}


@pytest.mark.fault("B25")
def test_probe_of_somebody_else_wakes_who_waits(queue, worker, make_lane, gate_of):
    """A listing may be the probe that opens the gate: whoever waits hears of it, though no job has ended."""
    gate = gate_of()
    lane = make_lane(gate)
    gate.failed("", BucketMissing("no"), time.monotonic() - 1)
    assert gate.admits(time.monotonic())
    queue.put(lane, Hint("a"))
    assert worker.is_idle()

    gate.succeeded()

    assert worker.take().relpath == "a"


def test_probe_of_somebody_else_that_fails_leaves_an_alarm(queue, worker, make_lane, gate_of):
    """After a listing that failed, the next probe is made when its time has come, though no job has ended."""
    gate = gate_of(max_s=0.05)
    lane = make_lane(gate)
    gate.failed("", BucketMissing("no"), time.monotonic() - 1)
    assert gate.admits(time.monotonic())
    queue.put(lane, Hint("a"))
    assert worker.is_idle()

    gate.failed("", BucketMissing("no"), time.monotonic())

    assert worker.take().relpath == "a"


@pytest.mark.fault("B6", "B25")
def test_open_gate_releases_what_only_it_held_back(queue, worker, make_lane, gate_of):
    """A path that failed while the endpoint was known to be away is due when that answers, whatever its own wait."""
    gate = gate_of(max_s=0.001)
    lane = make_lane(gate)
    for name in ("closes", "probes", "good"):
        queue.put(lane, Hint(name))
    for _ in range(2):
        job = worker.take()
        error = Throttled("slow down")
        worker.defer(job, error, 300, is_held=gate.failed(job.relpath, error, time.monotonic()))
    probe = worker.take()
    assert (probe.relpath, worker.is_idle()) == ("good", True)

    gate.succeeded()

    assert worker.take().relpath == "probes"
    worker.done(probe)
    assert worker.is_idle()  # what closed the gate may have been to blame itself


def test_removed_target_has_no_jobs(queue, worker, lane):
    """A target that left the configuration is not worked on; its running job ends quietly."""
    queue.put(lane, Hint("running"))
    job = worker.take()
    queue.put(lane, Hint("waiting"))

    queue.remove_lane(lane)
    assert queue.running(lane) == 1
    worker.done(job)

    assert queue.running(lane) == 0
    assert worker.is_idle()
    assert not queue.put(lane, Hint("late"))
    assert len(queue) == 0


def test_hurry_makes_everything_due(queue, worker, lane):
    """The drain gives every waiting path one more attempt."""
    for name in ("a", "b"):
        queue.put(lane, Hint(name))
        worker.defer(worker.take(), Unavailable("no"), 300)

    queue.hurry()

    assert {worker.take().relpath, worker.take().relpath} == {"a", "b"}


def test_observation_defaults_to_unseen(queue, worker, lane):
    """An event knows nothing of the other side."""
    queue.put(lane, Hint("a"))

    assert worker.take().remote is UNSEEN


def test_deferred_job_comes_back_while_its_worker_has_another(queue, lane):
    """A worker that goes on with a long job does not take the timer of the failed one with it."""
    queue.put(lane, Hint("bad"))
    queue.put(lane, Hint("long"))
    taken = []
    idle = threading.Thread(target=lambda: taken.append(queue.take()))
    first = queue.take()
    second = queue.take()
    idle.start()

    queue.defer(first[0][0], Unavailable("no"), 0.05)
    queue.done(second[0])
    queue.put(lane, Hint("longer"))
    queue.take()

    idle.join(5)
    queue.close()
    assert taken[0][0][0].relpath == "bad"


def test_closed_queue_lets_every_worker_go(queue, lane):
    """Threads that wait for work end when the process does."""
    taken = []
    threads = [threading.Thread(target=lambda: taken.append(queue.take())) for _ in range(3)]
    for thread in threads:
        thread.start()

    queue.close()

    for thread in threads:
        thread.join(5)
    assert taken == [None, None, None]


def test_every_job_is_taken_once_by_many_threads(queue, make_lane, gate_of):
    """Jobs that come while threads wait, work and fail are all done, each by one thread, and none is left behind."""
    lane = make_lane(gate_of(limit=8))
    names = {f"f{number}" for number in range(500)}
    done: list[str] = []

    def work():
        while taken := queue.take():
            jobs, gate = taken
            gate.leave(is_bulk=jobs[0].is_bulk)
            for job in jobs:
                if job.attempts == 0 and job.relpath.endswith("7"):
                    queue.defer(job, Unavailable("once"), 0.001)
                else:
                    done.append(job.relpath)
                    queue.done([job])

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for name in sorted(names):
        queue.put(lane, Hint(name))
    deadline = time.monotonic() + 20
    while len(queue) and time.monotonic() < deadline:
        time.sleep(0.005)
    queue.close()
    for thread in threads:
        thread.join(5)

    assert sorted(done) == sorted(names)


@pytest.mark.fault("B17")
def test_hurry_of_a_lane_has_what_runs_tried_again_at_once(queue, worker, lane, make_lane, gate_of):
    """What began with old credentials and is refused goes again at once; other lanes wait as before."""
    other = make_lane()
    queue.add_lane(other, gate_of())
    queue.put(other, Hint("x"))
    worker.defer(worker.take(), AccessDenied("no"), 300)
    queue.put(lane, Hint("waits"))
    worker.defer(worker.take(), AccessDenied("no"), 300)
    queue.put(lane, Hint("runs"))
    runs = worker.take()

    queue.hurry(lane)
    worker.defer(runs, AccessDenied("no"), 300)

    assert {worker.take().relpath, worker.take().relpath} == {"waits", "runs"}
    assert worker.is_idle()
