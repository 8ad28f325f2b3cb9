"""Memory for bodies and room on the device: nobody gets what is not there, and nobody waits for ever."""

import threading
import time
from types import SimpleNamespace

import pytest

from replicator.errors import DiskFull
from replicator.transfer.limits import ByteBudget, Room
from tests.waiting import wait_until


class Holder:
    """A thread that holds bytes until it is told to let go."""

    def __init__(self, budget, size):
        self.is_holding = threading.Event()
        self._let_go = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(budget, size), daemon=True)
        self._thread.start()

    def _run(self, budget, size):
        with budget.hold(size):
            self.is_holding.set()
            self._let_go.wait(30)

    def let_go(self):
        self._let_go.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def holder():
    """Starts holders, and ends those that are left."""
    started = []

    def start(budget, size):
        started.append(Holder(budget, size))
        return started[-1]

    yield start
    for one in started:
        one._let_go.set()
    for one in started:
        one.let_go()


# Memory


def test_bytes_that_are_free_are_held_at_once(holder):
    """Bodies that fit together do not wait for each other."""
    budget = ByteBudget(10)

    first, second = holder(budget, 6), holder(budget, 4)

    assert first.is_holding.wait(5)
    assert second.is_holding.wait(5)


def test_body_waits_until_there_is_room(holder):
    """What does not fit beside the others waits, and goes as soon as enough is given back."""
    budget = ByteBudget(10)
    first = holder(budget, 6)
    assert first.is_holding.wait(5)
    second = holder(budget, 5)
    wait_until(lambda: budget._waiting)

    assert not second.is_holding.is_set()
    first.let_go()
    assert second.is_holding.wait(5)


def test_body_above_the_capacity_passes_alone(holder):
    """A body that could never fit is not stuck: it takes everything."""
    budget = ByteBudget(10)
    large = holder(budget, 1000)
    assert large.is_holding.wait(5)
    small = holder(budget, 1)
    wait_until(lambda: budget._waiting)

    large.let_go()
    assert small.is_holding.wait(5)
    small.let_go()
    with budget.hold(10):
        pass


def test_small_bodies_do_not_pass_a_large_one_that_waits(holder):
    """First come, first served: a stream of small bodies does not starve a large one."""
    budget = ByteBudget(10)
    first = holder(budget, 6)
    assert first.is_holding.wait(5)
    large = holder(budget, 9)
    wait_until(lambda: len(budget._waiting) == 1)
    small = holder(budget, 2)  # would fit beside the first
    wait_until(lambda: len(budget._waiting) == 2)

    first.let_go()
    assert large.is_holding.wait(5)
    assert not small.is_holding.is_set()
    large.let_go()
    assert small.is_holding.wait(5)


def test_bytes_given_back_serve_all_that_fit(holder):
    """One large body's end lets several small ones go."""
    budget = ByteBudget(10)
    large = holder(budget, 10)
    assert large.is_holding.wait(5)
    small = [holder(budget, 3) for _ in range(3)]
    wait_until(lambda: len(budget._waiting) == 3)

    large.let_go()

    assert all(one.is_holding.wait(5) for one in small)


def test_failure_gives_the_bytes_back():
    """A transfer that fails leaves nothing held."""
    budget = ByteBudget(10)
    with pytest.raises(ZeroDivisionError), budget.hold(10):
        raise ZeroDivisionError

    with budget.hold(10):
        pass


def test_many_threads_never_hold_more_than_there_is():
    """The sum of what is held stays within the capacity, and in the end all of it is free."""
    budget = ByteBudget(100)
    lock = threading.Lock()
    held, most = [0], [0]

    def work(number):
        for turn in range(100):
            size = (number * 31 + turn * 17) % 60 + 1
            with budget.hold(size):
                with lock:
                    held[0] += size
                    most[0] = max(most[0], held[0])
                with lock:
                    held[0] -= size

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not any(thread.is_alive() for thread in threads)
    assert 60 <= most[0] <= 100
    assert (budget._free, len(budget._waiting)) == (100, 0)


# Room


class Lane:
    """As much of a lane as room is asked for."""

    def __init__(self, *, free=None, used=0, quota=0, root="/export"):
        self.target = SimpleNamespace(root=root, options=SimpleNamespace(quota_bytes=quota))
        self.export = SimpleNamespace(free_bytes=free if callable(free) else lambda: free)
        self.journal = SimpleNamespace(totals=lambda number: (1, used() if callable(used) else used))
        self.number = 1


def reserve(room, lane, size, replaced_bytes=0):
    return room.reserve(lane, size, replaced_bytes=replaced_bytes)


def test_floor_stays_free():
    """A download may take what is above the floor, to the byte, and no more."""
    room, lane = Room(floor_bytes=100), Lane(free=150)

    with reserve(room, lane, 50):
        pass
    with pytest.raises(DiskFull, match="FREE_SPACE_FLOOR"), reserve(room, lane, 51):
        pass


def test_downloads_under_way_count_against_the_floor():
    """Two downloads cannot both have the last room, also of different targets; it is free again afterwards."""
    room = Room(floor_bytes=0)
    one, other, elsewhere = Lane(free=100), Lane(free=100), Lane(free=100, root="/other")

    with reserve(room, one, 60):
        with pytest.raises(DiskFull), reserve(room, other, 60):
            pass
        with reserve(room, elsewhere, 60):
            pass

    with reserve(room, other, 60):
        pass


def test_quota_counts_what_the_target_holds_and_what_is_on_its_way():
    """A file in place of another takes only the difference."""
    room, lane = Room(floor_bytes=0), Lane(used=70, quota=100)

    with reserve(room, lane, 20):
        with pytest.raises(DiskFull, match="QUOTA"), reserve(room, lane, 11):
            pass
        with reserve(room, lane, 50, replaced_bytes=40):
            pass
    with reserve(room, lane, 50, replaced_bytes=40), reserve(room, lane, 20):
        pass


def test_without_quota_and_with_unknown_space_everything_fits():
    """A quota of 0 is none, and a file system that does not tell its room is not doubted."""
    with reserve(Room(floor_bytes=10**9), Lane(free=None, used=10**12), 10**12):
        pass


def test_failed_download_gives_its_room_back():
    """Room is held only as long as the download lasts, however it ends."""
    room, lane = Room(floor_bytes=0), Lane(free=100, quota=100)
    with pytest.raises(ZeroDivisionError), reserve(room, lane, 100):
        raise ZeroDivisionError

    with reserve(room, lane, 100):
        pass
    assert not room._by_lane


def test_two_threads_do_not_get_the_same_room():
    """Nobody looks at the free space between another one's look and its reservation."""

    def used():
        time.sleep(0.2)  # after the look at the free space: long enough for another one's, if it may look
        return 0

    room, lane = Room(floor_bytes=0), Lane(free=100, used=used)
    results = []
    both_tried = threading.Barrier(2)

    def download():
        try:
            with reserve(room, lane, 60):
                results.append("room")
                both_tried.wait(10)
        except DiskFull:
            results.append("full")
            both_tried.wait(10)

    threads = [threading.Thread(target=download) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert sorted(results) == ["full", "room"]
