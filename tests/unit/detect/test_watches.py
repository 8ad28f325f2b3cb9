"""The table of watches: a tree that follows renames and forgets what is gone."""

import random

from replicator.detect.watches import Watches, hottest


def tree(*relpaths: str) -> Watches:
    """Watches 1, 2, 3 ... on the directory itself and on these, which come after those that they are in."""
    watches = Watches()
    for wd, relpath in enumerate(("", *relpaths), 1):
        assert watches.put(relpath, wd, heat=wd)
    return watches


def paths(watches: Watches) -> dict[int, str | None]:
    return {wd: watches.path(wd) for wd in watches}


def test_renamed_directory_takes_everything_beneath_it_along():
    """After the new name is put, every watch beneath says the new path."""
    watches = tree("a", "a/b", "a/b/c")

    watches.detach(1, "a")
    gone = paths(watches)
    watches.put("z", 2, heat=9)

    assert gone == {1: "", 2: None, 3: None, 4: None}
    assert paths(watches) == {1: "", 2: "z", 3: "z/b", 4: "z/b/c"}
    assert not watches.has_adrift


def test_directory_that_moved_away_for_good_is_cleared_with_all_beneath():
    """What is adrift is given back as a whole, but for what was put somewhere else meanwhile."""
    watches = tree("a", "a/b", "a/b/c", "d")

    watches.detach(1, "a")
    watches.put("d/c", 4, heat=9)

    assert sorted(watches.clear_adrift()) == [2, 3]
    assert paths(watches) == {1: "", 5: "d", 4: "d/c"}


def test_another_directory_under_a_name_sends_the_former_adrift():
    """A name that was taken over before its going was told has one watch, and the former none."""
    watches = tree("a", "a/b")

    watches.put("a", 9, heat=9)

    assert paths(watches) == {1: "", 2: None, 3: None, 9: "a"}
    assert sorted(watches.clear_adrift()) == [2, 3]


def test_watch_that_is_no_more_leaves_what_was_beneath_adrift():
    """IGNORED for a directory: its children have no path until they are put again."""
    watches = tree("a", "a/b")

    watches.forget(2)
    watches.forget(2)

    assert paths(watches) == {1: "", 3: None}
    assert watches.clear_adrift() == [3]


def test_directory_without_a_watched_one_above_is_not_put():
    """A watch whose directory nobody would see move has no place."""
    watches = tree("a")

    assert not watches.put("b/c", 9, heat=9)
    assert paths(watches) == {1: "", 2: "a"}


def test_no_directory_is_put_beneath_itself():
    """A table that events left behind never becomes a ring, in which looking for a path would not end."""
    watches = tree("a", "a/b")

    assert not watches.put("a/b/c", 2, heat=9)
    assert paths(watches) == {1: "", 2: "a", 3: "a/b"}


def test_two_directories_that_trade_places():
    """`a/b` becomes `b`, then `a` becomes `b/a`: put from above, each has its new path."""
    watches = tree("a", "a/b")

    watches.detach(2, "b")
    watches.detach(1, "a")
    watches.put("b", 3, heat=9)
    watches.put("b/a", 2, heat=9)

    assert paths(watches) == {1: "", 3: "b", 2: "b/a"}


def test_coldest_are_leaves_and_never_the_directory_itself():
    """Only directories with none beneath give their watches up, the one in which least happened first."""
    watches = tree("a", "a/b", "c", "d")
    watches.warm(4, 100.0)

    assert watches.coldest(9, below=50.0) == [3, 5]
    assert watches.coldest(1, below=50.0) == [3]
    assert watches.coldest(9, below=5.0) == [3]
    assert tree().coldest(9, below=50.0) == []


def test_random_moves_leave_the_paths_of_the_disk():
    """However directories are made, moved and removed: told in order, the table says what a walk would."""
    dice = random.Random(7)
    disk: dict[str, int] = {"": 1}
    watches = tree()
    for wd in range(2, 500):
        here = dice.choice(list(disk))
        if dice.random() < 0.5 or not here:
            name = f"{here}/{wd}" if here else str(wd)
            disk[name] = wd
            watches.put(name, wd, heat=wd)
            continue
        above, _, name = here.rpartition("/")
        watches.detach(disk[above], name)
        moved = {path: disk.pop(path) for path in sorted(disk) if path == here or path.startswith(f"{here}/")}
        if dice.random() < 0.5:
            there = dice.choice(list(disk))
            for path, moved_wd in moved.items():
                target = f"{there}/m{wd}".lstrip("/") + path[len(here) :]
                disk[target] = moved_wd
                assert watches.put(target, moved_wd, heat=wd)
        else:
            assert sorted(watches.clear_adrift()) == sorted(moved.values())

        assert len(watches) == len(disk)
    assert paths(watches) == {wd: path for path, wd in disk.items()}


def test_hottest_are_chosen_with_all_above_them():
    """A directory in which nobody would be told of its own move is not worth its watch."""
    census = [(1.0, ""), (1.0, "a"), (9.0, "a/b"), (2.0, "c"), (8.0, "d"), (7.0, "e/f/g"), (1.0, "e"), (1.0, "e/f")]

    assert hottest(census, 3) == {"", "a", "a/b"}
    assert hottest(census, 4) == {"", "a", "a/b", "d"}
    assert hottest(census, 5) == {"", "a", "a/b", "d", "c"}
    assert hottest(census, 99) == {relpath for _, relpath in census}
