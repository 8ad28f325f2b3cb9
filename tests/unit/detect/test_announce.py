"""Whom a notification concerns."""

from types import SimpleNamespace

import pytest

from replicator.detect.announce import FULL_JOBS, announce
from replicator.model import Prefix
from replicator.observe.metrics import Metrics
from replicator.observe.notifications import Change, Notice


class Patrol:
    """Takes down what it is told."""

    def __init__(self, prefix: str, *, bucket: str = "b", is_egress: bool = False, subdir: str = "in") -> None:
        target = SimpleNamespace(prefix=Prefix(prefix), storage=SimpleNamespace(bucket=bucket), subdir=subdir)
        self.lane = SimpleNamespace(is_egress=is_egress, target=target)
        self.hints: list[str] = []
        self.doubts = 0

    def hint(self, relpath: str) -> None:
        self.hints.append(relpath)

    def doubt(self) -> None:
        self.doubts += 1


@pytest.fixture
def tell():
    """Announces keys of bucket b; gives the counts by outcome."""

    def announce_keys(patrols, *keys, waiting_jobs=0, **more):
        metrics = Metrics()
        notice = Notice(tuple(Change("b", key) for key in keys), **more)
        announce(notice, patrols, waiting_jobs=waiting_jobs, metrics=metrics)
        samples = [sample for family in metrics.notifications.collect() for sample in family.samples]
        return {sample.labels["outcome"]: sample.value for sample in samples if sample.value}

    return announce_keys


def test_bucket_and_prefix_say_whose_it_is(tell):
    """A neighbour's prefix, another bucket and egress hear nothing."""
    ours, neighbour, whole = Patrol("remote/data/"), Patrol("remote/data2/"), Patrol("", subdir="whole")
    elsewhere, egress = Patrol("remote/data/", bucket="other"), Patrol("remote/data/", is_egress=True)

    counts = tell([ours, neighbour, whole, elsewhere, egress], "remote/data/a/b")

    assert ours.hints == ["a/b"]
    assert whole.hints == ["remote/data/a/b"]
    assert [neighbour.hints, elsewhere.hints, egress.hints] == [[], [], []]
    assert counts == {"hinted": 1}


@pytest.mark.parametrize("key", ["elsewhere/f", "in", "in/", "in/marker/", "in/../x", "in//x", "in/a\0b", "in/\ud800"])
def test_key_that_is_no_file_of_ours_is_ignored(tell, key):
    """Nothing is asked for, and it is counted."""
    patrol = Patrol("in/")

    assert tell([patrol], key) == {"ignored": 1}
    assert (patrol.hints, patrol.doubts) == ([], 0)


def test_records_that_tell_nothing_are_counted(tell):
    """They show that a store sends more than is of use."""
    assert tell([Patrol("in/")], "in/f", ignored=3) == {"hinted": 1, "ignored": 3}


@pytest.mark.parametrize("flood", [{"is_flood": True}, {"waiting_jobs": FULL_JOBS + 1}], ids=["body", "queue"])
def test_flood_is_left_to_the_next_listing(tell, flood):
    """No sender makes the queue grow; each ingress target lists once, whatever its marker says."""
    patrol, egress = Patrol("in/"), Patrol("out/", is_egress=True)

    assert tell([patrol, egress], "in/f", **flood) == {"flooded": 1}
    assert (patrol.hints, patrol.doubts, egress.doubts) == ([], 1, 0)
