"""What an open page is told, and when, on a clock of the test's."""

import dataclasses
import itertools
import json

import pytest

from replicator.model import Direction
from replicator.observe.feed import ALIVE_EVERY_S, LOOK_EVERY_S, Feed
from replicator.observe.status import (
    ConfigView,
    FailingFile,
    MovingFile,
    State,
    ThroughputView,
    from_json,
    verdict,
)

FAILING = FailingFile("a", "refused", "no", 3, next_attempt_s=60, age_s=100)


class World:
    """A status that a test changes, a clock that it moves, and how often somebody looked."""

    def __init__(self, snapshot) -> None:
        self.snapshot = snapshot
        self.now_s = 0.0
        self.looks = 0
        self.cost_s = 0.0

    def look(self):
        self.looks += 1
        self.now_s += self.cost_s
        return self.snapshot

    def change(self, **changes) -> None:
        self.snapshot = dataclasses.replace(self.snapshot, **changes)


@pytest.fixture
def world(snapshot, view):
    plain = view(
        state=State.FAILING,
        pending_files=2,
        oldest_pending_s=7300,
        failing=(FAILING,),
        failing_by_reason={"refused": 1},
    )
    return World(snapshot(plain, view("in", Direction.INGRESS), throughput=ThroughputView(up=(1, 2), down=(0, 0))))


@pytest.fixture
def feed(world):
    return Feed(world.look, clock=lambda: world.now_s)


def told(event: bytes) -> dict:
    """The JSON of a status event."""
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    return json.loads(event.removeprefix(b"data: "))


def test_first_event_is_the_status_with_its_answer(feed, world):
    """Answer and verdict as people read them, and the whole status, which reads back as it was."""
    event = told(next(feed.events()))

    assert (event["mood"], event["answer"], event["verdict"]) == ("bad", "No", verdict(world.snapshot))
    assert from_json(event["status"]) == world.snapshot


def test_hostile_names_stay_in_one_line(feed, world, view, hostile_names):
    """A line break in a name would be the end of an event, and what follows another one."""
    world.change(targets=(view(in_flight=tuple(map(MovingFile, hostile_names))),))

    event = next(feed.events())

    assert event.isascii()
    assert from_json(told(event)["status"]) == world.snapshot


def test_nobody_looks_before_somebody_listens(feed, world):
    """A gateway pays nothing for a page that is not open."""
    stream = feed.events()

    assert world.looks == 0
    next(stream)
    assert world.looks == 1


def test_one_look_a_second_serves_every_stream(feed, world):
    """However many pages are open, and however often they ask."""
    streams = [feed.events() for _ in range(8)]
    for _ in range(4):
        for stream in streams:
            next(stream)
        world.now_s += LOOK_EVERY_S / 4

    assert world.looks == 1
    next(streams[0])
    assert world.looks == 2


def test_dear_look_is_followed_by_a_longer_pause(feed, world):
    """Whoever watches a large queue takes a tenth of the event loop at most."""
    world.cost_s = 0.5
    stream = feed.events()
    next(stream)
    world.now_s = 4.9
    next(stream)
    assert world.looks == 1

    world.now_s = 5.0
    next(stream)

    assert world.looks == 2


def test_large_status_is_told_less_often(feed, world, view):
    """A page on a thin link takes its share of it and no more; what it is told then is the present."""
    world.change(targets=tuple(view(str(number)) for number in range(100)))
    stream = feed.events()
    size = len(next(stream))
    said = []
    for number in range(2, 30):
        world.change(queue_jobs=number)
        world.now_s += 1
        said.append(next(stream))

    events = [event for event in said if event.startswith(b"data: ")]
    assert size > 50_000
    assert 1 <= len(events) <= 29 * 16 * 1024 / size
    assert told(events[-1])["status"]["queue_jobs"] == 2 + said.index(events[-1])


def test_silence_while_nothing_changes_but_a_sign_of_life(feed, world):
    """The page has to know that what it shows still holds; a comment would not reach it."""
    stream = feed.events()
    next(stream)
    said = []
    for _ in range(int(2 * ALIVE_EVERY_S)):
        world.now_s += 1
        said.append(next(stream))

    assert said == [*[b""] * 4, b"event: alive\ndata: .\n\n"] * 2


PASSING = {
    "time": lambda now, first: {"now_ts": now.now_ts + 1},
    "age of what waits": lambda now, first: replaced(now, first, oldest_pending_s=7301),
    "attempt to come": lambda now, first: replaced(
        now, first, failing=(dataclasses.replace(FAILING, next_attempt_s=59, age_s=101),)
    ),
    "jitter of the sweep": lambda now, first: replaced(now, first, last_sweep_ts=first.last_sweep_ts + 0.001),
    "some bytes of room": lambda now, first: replaced(now, first, free_bytes=first.free_bytes + 4096),
    "the present span": lambda now, first: {"throughput": dataclasses.replace(now.throughput, last_s=9)},
}
NEWS = {
    "another number": lambda now, first: replaced(now, first, pending_files=3),
    "a state": lambda now, first: replaced(now, first, state=State.BLOCKED),
    "progress": lambda now, first: replaced(now, first, in_flight=(MovingFile("a", 9, 3),)),
    "an attempt": lambda now, first: replaced(now, first, failing=(dataclasses.replace(FAILING, attempts=4),)),
    "an age in words": lambda now, first: replaced(now, first, oldest_pending_s=7400),
    "a sweep": lambda now, first: replaced(now, first, last_sweep_ts=first.last_sweep_ts + 15),
    "room": lambda now, first: replaced(now, first, free_bytes=first.free_bytes // 2),
    "bytes": lambda now, first: {"throughput": dataclasses.replace(now.throughput, up=(2, 0))},
    "a target": lambda now, first: {"targets": now.targets[:1]},
    "a refused configuration": lambda now, first: {
        "config": ConfigView(source="env", generation=1, valid=False, error="no")
    },
}


def replaced(now, first, **changes) -> dict:
    return {"targets": (dataclasses.replace(first, **changes), *now.targets[1:])}


@pytest.mark.parametrize("change", PASSING.values(), ids=PASSING)
def test_what_merely_passes_is_no_news(feed, world, change):
    """The page counts ages on by itself; an event a second for nothing would cost a thin link."""
    stream = feed.events()
    next(stream)
    world.change(**change(world.snapshot, world.snapshot.targets[0]))
    world.now_s += 1

    assert next(stream) == b""
    assert world.looks == 2


@pytest.mark.parametrize("change", NEWS.values(), ids=NEWS)
def test_what_a_person_would_notice_is_told(feed, world, change):
    """Each change goes to each stream, once."""
    streams = feed.events(), feed.events()
    for stream in streams:
        next(stream)
    world.change(**change(world.snapshot, world.snapshot.targets[0]))
    world.now_s += 1

    assert [from_json(told(next(stream))["status"]) == world.snapshot for stream in streams] == [True, True]
    assert [next(stream) for stream in streams] == [b"", b""]


def test_whoever_comes_later_is_told_the_present(feed, world):
    """The first event of a stream is of its own time, though nothing has changed since another one's."""
    next(feed.events())
    world.change(now_ts=world.snapshot.now_ts + 3600)
    world.now_s += 3600

    assert from_json(told(next(feed.events()))["status"]) == world.snapshot


def test_a_look_that_fails_ends_no_other(feed, world):
    """The next stream looks anew; no lock stays taken."""
    broken = itertools.chain([RuntimeError("no snapshot")])
    look, feed._look = feed._look, lambda: (_ for _ in ()).throw(next(broken))
    with pytest.raises(RuntimeError, match="no snapshot"):
        next(feed.events())
    feed._look = look

    assert told(next(feed.events()))["answer"] == "No"
