"""The queue: one job a path, turns, waiting, and what people see of it."""

import asyncio

import pytest

from replicator.errors import KeyUnsafe, SourceChanged, Unavailable
from replicator.model import UNSEEN, Hint, RemoteObject
from replicator.transfer.queue import Queue
from replicator.transfer.retry import Gate, RetryPolicy

POLICY = RetryPolicy(max_s=0.01, parked_s=300)


class Lane:
    """The queue only uses lanes as names."""


@pytest.fixture
def lane():
    return Lane()


@pytest.fixture
def queue(lane):
    queue = Queue()
    queue.add_lane(lane, Gate(POLICY))
    return queue


async def take(queue):
    async with asyncio.timeout(5):
        job, _ = await queue.get()
    return job


async def is_idle(queue):
    """Whether nothing is due now."""
    getting = asyncio.create_task(queue.get())
    done, _ = await asyncio.wait({getting}, timeout=0.05)
    getting.cancel()
    return not done


async def test_hints_of_one_path_are_one_job(queue, lane):
    """However often a path is hinted, it is looked at once."""
    assert queue.put(lane, Hint("a"))
    assert not queue.put(lane, Hint("a"))

    assert (await take(queue)).relpath == "a"
    assert await is_idle(queue)


async def test_hint_in_flight_makes_the_job_run_again(queue, lane):
    """A change during a transfer is never lost: the job is done and at once due again."""
    queue.put(lane, Hint("a"))
    job = await take(queue)
    queue.put(lane, Hint("a"))
    assert await is_idle(queue)

    queue.done(job)

    assert (await take(queue)).relpath == "a"


async def test_done_job_is_gone(queue, lane):
    """A path in step holds no memory."""
    queue.put(lane, Hint("a"))
    queue.done(await take(queue))

    assert len(queue) == 0
    assert queue.put(lane, Hint("a"))


async def test_newest_observation_replaces_the_older(queue, lane):
    """A stale listing entry must not win over what was seen later."""
    queue.put(lane, Hint("a", RemoteObject("a", 1, "old", 0)))
    queue.put(lane, Hint("a", RemoteObject("a", 1, "new", 0)))

    job = await take(queue)

    assert job.remote.etag == "new"


async def test_targets_take_turns(queue, lane):
    """A target with many files does not starve a quiet one."""
    quiet = Lane()
    queue.add_lane(quiet, Gate(POLICY))
    for number in range(10):
        queue.put(lane, Hint(f"busy{number}"))
    queue.put(quiet, Hint("quiet"))

    first_two = {(await take(queue)).relpath, (await take(queue)).relpath}

    assert "quiet" in first_two


async def test_failed_path_waits_and_the_others_go_on(queue, lane):
    """A poison file blocks nobody."""
    queue.put(lane, Hint("bad"))
    queue.put(lane, Hint("good"))
    queue.defer(await take(queue), Unavailable("no"), 300)

    assert (await take(queue)).relpath == "good"
    assert await is_idle(queue)
    assert [job.relpath for job in queue.jobs(lane) if job.is_failing] == ["bad"]


async def test_deferred_job_comes_back_by_itself(queue, lane):
    """A wait ends without anybody hinting again."""
    queue.put(lane, Hint("a"))
    queue.defer(await take(queue), Unavailable("no"), 0.02)

    job = await take(queue)

    assert (job.relpath, job.attempts) == ("a", 1)


async def test_event_ends_the_wait_of_a_path_parked_for_its_own_sake(queue, lane):
    """A mended file is looked at at once; a sweep does not hurry it, and no file hurries a dead endpoint."""
    queue.put(lane, Hint("a"))
    queue.defer(await take(queue), KeyUnsafe("no"), 300)
    queue.put(lane, Hint("a"))
    assert await is_idle(queue)

    queue.put(lane, Hint("a"), is_event=True)
    job = await take(queue)
    queue.defer(job, Unavailable("no"), 300)
    queue.put(lane, Hint("a"), is_event=True)

    assert await is_idle(queue)


async def test_file_in_motion_is_pending_but_not_failing(queue, lane):
    """A file that is being written is nobody's fault."""
    queue.put(lane, Hint("a"))
    queue.defer(await take(queue), SourceChanged("busy"), 300)

    (job,) = queue.jobs(lane)
    assert not job.is_failing


async def test_closed_gate_lets_one_probe_through(queue, lane):
    """A dead endpoint is probed by one request, not by one a file."""
    gate = Gate(RetryPolicy(max_s=0.05, parked_s=300))
    dead = Lane()
    queue.add_lane(dead, gate)
    for number in range(6):
        queue.put(dead, Hint(f"f{number}"))
    for _ in range(3):
        job = await take(queue)
        gate.failed(job.relpath, Unavailable("down"), asyncio.get_running_loop().time())
        queue.defer(job, Unavailable("down"), 0.0)

    probe = await take(queue)
    assert await is_idle(queue)
    gate.succeeded()
    queue.done(probe)

    assert {(await take(queue)).relpath for _ in range(5)} | {probe.relpath} == {f"f{n}" for n in range(6)}


async def test_removed_target_has_no_jobs(queue, lane):
    """A target that left the configuration is not worked on; its running job ends quietly."""
    queue.put(lane, Hint("running"))
    job = await take(queue)
    queue.put(lane, Hint("waiting"))

    queue.remove_lane(lane)
    queue.done(job)

    assert await is_idle(queue)
    assert not queue.put(lane, Hint("late"))
    assert len(queue) == 0


async def test_hurry_makes_everything_due(queue, lane):
    """The drain gives every waiting path one more attempt."""
    for name in ("a", "b"):
        queue.put(lane, Hint(name))
        queue.defer(await take(queue), Unavailable("no"), 300)

    queue.hurry()

    assert {(await take(queue)).relpath, (await take(queue)).relpath} == {"a", "b"}


async def test_observation_defaults_to_unseen(queue, lane):
    """An event knows nothing of the other side."""
    queue.put(lane, Hint("a"))

    assert (await take(queue)).remote is UNSEEN
