"""When an ingress poll may spare its listing."""

from types import SimpleNamespace
from typing import cast

import pytest

from replicator.detect.marker import Marker
from replicator.errors import AccessDenied, ObjectMissing, Unavailable
from replicator.model import Prefix, RemoteObject, TargetOptions
from replicator.stores.lane import Lane

VERSION_1 = RemoteObject("in/_manifest", 9, "e1", 1_000_000_000)


class World:
    """A store with one object, a directory and a clock."""

    def __init__(self, name: str = "_manifest", audit_s: float = 60.0) -> None:
        self.marker: RemoteObject | Exception = VERSION_1
        self.directory: tuple[int, int] | None = (1, 2)
        self.now_s = 0.0
        self.asked: list[str] = []
        options = TargetOptions(ingress_marker=name, ingress_audit_s=audit_s)
        lane = SimpleNamespace(
            target=SimpleNamespace(prefix=Prefix("in/"), options=options),
            objects=SimpleNamespace(head=self._head),
            export=SimpleNamespace(identity=lambda: self.directory),
        )
        self.one = Marker(cast("Lane", lane), clock=lambda: self.now_s)

    def _head(self, key: str) -> RemoteObject:
        self.asked.append(key)
        if isinstance(self.marker, Exception):
            raise self.marker
        return self.marker

    def lists(self) -> bool:
        """One poll; whether it listed."""
        sight = self.one.look()
        if self.one.is_known(sight):
            return False
        self.one.begin()
        self.one.complete(sight)
        return True


@pytest.fixture
def world():
    return World()


def test_listing_is_spared_while_the_marker_is_the_same(world):
    """The first poll lists, the next ones only ask for the marker."""
    assert [world.lists() for _ in range(4)] == [True, False, False, False]
    assert world.asked == ["in/_manifest"] * 4


@pytest.mark.parametrize(
    "version",
    [
        RemoteObject("in/_manifest", 9, "e2", 1_000_000_000),
        RemoteObject("in/_manifest", 8, "e1", 1_000_000_000),
        RemoteObject("in/_manifest", 9, "e1", 2_000_000_000),
    ],
    ids=["etag", "size", "written again"],
)
def test_another_version_lists_once(world, version):
    """Other bytes, or the same bytes of a later second."""
    world.lists()
    world.marker = version

    assert [world.lists(), world.lists()] == [True, False]


@pytest.mark.parametrize("error", [ObjectMissing("gone"), AccessDenied("no"), Unavailable("away")])
def test_marker_that_cannot_be_read_lists_every_time(world, error):
    """It must never stand in the way; once it is back it is trusted only after one more listing."""
    world.lists()
    world.marker = error
    assert [world.lists(), world.lists()] == [True, True]

    world.marker = VERSION_1
    assert [world.lists(), world.lists()] == [True, False]


def test_audit_is_due_after_its_time(world):
    """However unchanged the marker is, and counted from the end of the last listing."""
    world.lists()
    world.now_s = 59.9
    assert not world.lists()
    world.now_s = 60.0

    assert world.lists()
    world.now_s = 119.9
    assert not world.lists()


def test_another_directory_under_the_name_lists(world):
    """It was mounted, made anew or taken away: its files have to come again."""
    for directory in ((1, 3), None, (1, 2)):
        world.lists()
        world.directory = directory

        assert world.lists()


def test_version_that_comes_while_a_listing_runs_is_not_missed(world):
    """What is remembered is what was seen before the listing, not what is there after it."""
    sight = world.one.look()
    world.one.begin()
    world.marker = RemoteObject("in/_manifest", 9, "e2", 1_000_000_000)
    world.one.complete(sight)

    assert world.lists()


def test_listing_that_fails_proves_nothing(world):
    """Not even what an earlier one had proven."""
    world.lists()
    world.now_s = 60.0
    world.one.look()
    world.one.begin()  # and never complete
    world.now_s = 0.0

    assert world.lists()


def test_doubt_lists_whatever_the_marker_says(world):
    """Once; then the marker counts again."""
    world.lists()
    world.one.doubt()

    assert [world.lists(), world.lists()] == [True, False]


def test_doubt_while_a_listing_runs_is_for_the_next_one(world):
    """The one that runs may be past what is doubted."""
    sight = world.one.look()
    world.one.begin()
    world.one.doubt()
    world.one.complete(sight)

    assert [world.lists(), world.lists()] == [True, False]


def test_without_a_name_nothing_is_asked_for():
    """Most targets have no marker: each poll lists, and makes no other request."""
    world = World(name="")

    assert [world.lists(), world.lists()] == [True, True]
    assert world.asked == []
