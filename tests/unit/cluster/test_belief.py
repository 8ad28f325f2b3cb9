"""Lists and events that repeat, contradict and forget: what is believed of them."""

import random

import pytest

from replicator.cluster.belief import BELIEVED_AFTER, Belief
from replicator.cluster.client import Event, Listing


def thing(name="a", version=1, uid="", **words):
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    } | words


class Told(list):
    """What was told, in short: name, what it was, what it is."""

    def __call__(self, key, old, new):
        self.append((key[1], *(one and one["metadata"]["resourceVersion"] for one in (old, new))))


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def belief(told):
    return Belief(told)


def listing(*things, version=1):
    return Listing(list(things), str(version))


def test_a_list_is_taken_by_difference(belief, told):
    """What is new, changed and gone is told once each, and what is as it was is not."""
    belief.take_listing(listing(thing("a"), thing("b"), thing("c"), version=1))
    told.clear()

    belief.take_listing(listing(thing("a"), thing("b", 2), thing("d", 3), version=3))

    assert sorted(told) == [("b", "1", "2"), ("c", "1", None), ("d", None, "3")]
    assert sorted(name for _, name in belief.objects) == ["a", "b", "d"]


def test_events_change_what_is_known(belief, told):
    """ADDED, MODIFIED and DELETED do what they say, and the last version is where a watch goes on."""
    belief.take_event(Event("ADDED", thing(version=5)))
    belief.take_event(Event("MODIFIED", thing(version=6)))
    belief.take_event(Event("DELETED", thing(version=7)))

    assert told == [("a", None, "5"), ("a", "5", "6"), ("a", "6", None)]
    assert (belief.objects, belief.version) == ({}, "7")


@pytest.mark.fault("E1")
def test_a_repeated_event_is_nothing(belief, told):
    """The same event twice is told once."""
    for _ in range(2):
        belief.take_event(Event("ADDED", thing(version=5)))

    assert told == [("a", None, "5")]


@pytest.mark.fault("E1")
def test_an_older_version_never_replaces_a_newer_one(belief):
    """A late event changes neither the object nor the place from which the watch goes on."""
    belief.take_event(Event("MODIFIED", thing(version=10)))

    belief.take_event(Event("MODIFIED", thing(version=9)))

    assert belief.objects["ns", "a"]["metadata"]["resourceVersion"] == "10"
    assert belief.version == "10"


@pytest.mark.fault("E1")
def test_a_late_event_does_not_bring_back_what_was_removed(belief, told):
    """An event from before an object's removal does not make it anew; one from after does, as for a label selector."""
    belief.take_event(Event("ADDED", thing(version=5)))
    belief.take_event(Event("DELETED", thing(version=7)))
    told.clear()

    belief.take_event(Event("MODIFIED", thing(version=6)))
    assert told == []

    belief.take_event(Event("ADDED", thing(version=8)))
    assert told == [("a", None, "8")]


@pytest.mark.fault("E1")
def test_a_bookmark_moves_only_the_version(belief, told):
    """A watch that tells nothing but bookmarks goes on from the last of them."""
    belief.take_listing(listing(thing(), version=1))
    told.clear()

    belief.take_event(Event("BOOKMARK", {"metadata": {"resourceVersion": "99"}}))

    assert (told, belief.version) == ([], "99")


@pytest.mark.fault("E1")
def test_any_order_of_one_objects_events_ends_the_same():
    """However the events of a few objects are shuffled and doubled, each ends in its newest version."""
    for seed in range(300):
        dice = random.Random(seed)
        belief = Belief(Told())
        events = [
            Event("MODIFIED", thing(name, version=10 * place + step))
            for place, name in enumerate("abc")
            for step in range(1, 5)
        ]
        events += [Event("DELETED", thing("c", version=29))]
        events += dice.choices(events, k=6)
        dice.shuffle(events)

        for event in events:
            belief.take_event(event)

        newest = {name: one["metadata"]["resourceVersion"] for (_, name), one in belief.objects.items()}
        assert newest == {"a": "4", "b": "14"}, f"seed {seed}"


@pytest.mark.fault("E3")
def test_an_empty_list_is_believed_only_when_it_stays(belief, told):
    """Absence in one list proves nothing: all is kept until the third empty list in a row."""
    belief.take_listing(listing(thing("a"), thing("b"), version=5))
    told.clear()

    for attempt in range(1, BELIEVED_AFTER):
        belief.take_listing(listing(version=6))
        assert (len(belief.objects), belief.doubt, told) == (2, "empty", []), attempt
        assert belief.version == "5", "a watch goes on from where all was there"

    belief.take_listing(listing(version=6))
    assert (belief.objects, belief.doubt) == ({}, "")
    assert sorted(told) == [("a", "1", None), ("b", "1", None)]


@pytest.mark.fault("E3")
def test_a_list_that_is_whole_again_ends_the_doubt(belief, told):
    """Two empty lists, a whole one, two empty ones: nothing is removed."""
    whole = listing(thing("a"), version=5)
    belief.take_listing(whole)
    told.clear()

    for one in (listing(version=6), listing(version=6), whole, listing(version=6), listing(version=6)):
        belief.take_listing(one)

    assert (told, len(belief.objects)) == ([], 1)


def test_the_last_object_may_be_removed_by_an_event(belief, told):
    """What the server says is gone is gone, and an empty list after it needs no doubt."""
    belief.take_listing(listing(thing("a", 5), version=5))
    belief.take_event(Event("DELETED", thing("a", 6)))

    belief.take_listing(listing(version=7))

    assert (belief.objects, belief.doubt) == ({}, "")


def test_a_list_from_an_older_state_is_believed_when_it_stays(belief):
    """A replica that lags is not believed; a server that went back for good, as from a backup, is."""
    belief.take_listing(listing(thing("a", 90), thing("b", 80), version=100))

    belief.take_listing(listing(thing("a", 50), version=60))
    assert belief.doubt == "older"
    assert belief.objects["ns", "a"]["metadata"]["resourceVersion"] == "90"
    for _ in range(BELIEVED_AFTER - 1):
        belief.take_listing(listing(thing("a", 50), version=60))

    assert [one["metadata"]["resourceVersion"] for one in belief.objects.values()] == ["50"]
    assert (belief.version, belief.doubt) == ("60", "")


@pytest.mark.fault("E4")
@pytest.mark.parametrize("by_list", [True, False])
def test_another_uid_under_the_same_name_is_another_object(belief, told, by_list):
    """An object that was deleted and made again is told as gone and as new, never as changed."""
    belief.take_listing(listing(thing("a", 5, uid="first"), version=5))
    told.clear()

    again = thing("a", 9, uid="second")
    if by_list:
        belief.take_listing(listing(again, version=9))
    else:
        belief.take_event(Event("ADDED", again))

    assert told == [("a", "5", None), ("a", None, "9")]


@pytest.mark.fault("E4")
def test_the_end_of_the_first_does_not_end_the_second(belief, told):
    """The removal of an object that is told after its successor leaves the successor alone."""
    belief.take_event(Event("ADDED", thing("a", 9, uid="second")))
    told.clear()

    belief.take_event(Event("DELETED", thing("a", 8, uid="first")))

    assert (told, len(belief.objects)) == ([], 1)


def test_what_the_server_keeps_for_itself_is_dropped(belief):
    """managedFields are not kept in memory."""
    one = thing("a")
    one["metadata"]["managedFields"] = [{"manager": "somebody"}]

    belief.take_listing(listing(one))

    assert "managedFields" not in belief.objects["ns", "a"]["metadata"]


def test_removed_objects_are_remembered_within_a_bound(belief):
    """However many come and go, a fixed number of removals is remembered."""
    for number in range(3000):
        belief.take_event(Event("DELETED", thing(f"n{number}", number + 1)))

    assert len(belief._removed) == 1024
