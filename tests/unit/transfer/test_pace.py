"""Caps and the data budget: averages hold, whoever waits can be woken, and what was counted is not forgotten."""

import sys
import threading
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.bandwidth import Allowance, Timetable
from replicator.errors import BudgetSpent, JournalFull, Stopping
from replicator.transfer.pace import Bandwidth, Bucket, BudgetView, DataBudget
from tests.waiting import wait_until

KIB, MIB = 2**10, 2**20
HOUR_S = 3600
DAY_S = 24 * HOUR_S


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self, now_s=1000.0):
        self.now_s = now_s

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


# The bucket


def passes(bucket, sizes, *, rate, now_s=0.0):
    """The times at which these bodies go, one behind the other."""
    times = []
    for size in sizes:
        while wait_s := bucket.take(size, rate=rate, now_s=now_s):
            now_s += wait_s
        times.append(now_s)
    return times


def test_a_seconds_worth_goes_at_once():
    """After a pause, as much goes without a wait as the cap lets pass in a second, and no more."""
    times = passes(Bucket(), [MIB // 4] * 6, rate=MIB)

    assert times == pytest.approx([0, 0, 0, 0, 0.25, 0.5])


def test_a_long_pause_saves_up_no_more_than_a_second():
    """What was not used is not added up over a night."""
    bucket = Bucket()
    passes(bucket, [MIB], rate=MIB)

    assert passes(bucket, [MIB, MIB], rate=MIB, now_s=8 * HOUR_S) == pytest.approx([8 * HOUR_S, 8 * HOUR_S + 1])


def test_large_body_goes_once_the_bucket_is_full_and_the_next_waits_the_longer():
    """A body of ten seconds' worth does not wait for ever, and its debt is paid before anything else goes."""
    times = passes(Bucket(), [10 * MIB, 1, MIB], rate=MIB)

    assert times == pytest.approx([0, 9 + 1 / MIB, 10 + 1 / MIB])


def test_cap_below_a_block_lets_a_block_pass():
    """The slowest cap is kept by longer waits, not by bodies in crumbs."""
    times = passes(Bucket(), [64 * KIB, 64 * KIB], rate=KIB)

    assert times == pytest.approx([0, 64])


def test_cap_below_a_block_lets_small_bodies_pass_together():
    """A burst of small files is one block, not a second of waiting each."""
    times = passes(Bucket(), [KIB] * 65, rate=KIB)

    assert times == pytest.approx([0] * 64 + [1])


def test_tighter_cap_does_not_make_an_old_debt_longer():
    """What went under the old cap is paid in the time it would have taken under it."""
    bucket = Bucket()
    passes(bucket, [10 * MIB], rate=MIB)

    assert bucket.take(1, rate=KIB, now_s=0.0) == pytest.approx(9, abs=0.1)


def test_wider_cap_pays_an_old_debt_faster():
    """Whoever waits profits from it."""
    bucket = Bucket()
    passes(bucket, [10 * MIB], rate=MIB)

    assert bucket.take(1, rate=9 * MIB, now_s=0.0) == pytest.approx(1, abs=0.1)


@given(
    rate=st.integers(1024, 10 * MIB),
    bodies=st.lists(st.tuples(st.integers(0, 20 * MIB), st.floats(0, 30)), min_size=1, max_size=30),
)
def test_average_holds_whatever_goes(rate, bodies):
    """From any body to any later one, no more passed than the cap allows, but a second's worth and one body."""
    bucket, now_s, gone = Bucket(), 0.0, []
    for size, pause_s in bodies:
        (now_s,) = passes(bucket, [size], rate=rate, now_s=now_s + pause_s)
        gone.append((now_s, size))

    for first, (begin_s, _) in enumerate(gone):
        for last in range(first, len(gone)):
            before = sum(size for _, size in gone[first:last])
            assert before <= (gone[last][0] - begin_s) * rate + max(rate, 64 * KIB) + gone[first][1] + 1


# Waiting for a cap


class Local:
    """The device's local time, put by hand; counts how often it is asked."""

    def __init__(self, hour=12):
        self.hour = hour
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return time.struct_time((2024, 5, 6, self.hour, 0, 0, 0, 127, -1))


class Takers:
    """Threads that take, in the order in which they were started."""

    def __init__(self):
        self.done: list[int] = []
        self.stopped: list[int] = []
        self._threads: list[threading.Thread] = []

    def start(self, bandwidth, way, size):
        number = len(self._threads)

        def run():
            try:
                bandwidth.take(way, size)
            except Stopping:
                self.stopped.append(number)
            else:
                self.done.append(number)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def join(self):
        for thread in self._threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads)


@pytest.fixture
def takers():
    return Takers()


def standing(text="1KiB/s", **given_):
    """A bandwidth whose bucket is empty both ways: the next block has to wait for a minute."""
    bandwidth = Bandwidth(Timetable.parse(text), **given_)
    for way in ("up", "down"):
        bandwidth.take(way, 64 * KIB)
    return bandwidth


@pytest.fixture
def _asleep(monkeypatch):
    """Nobody who waits looks up by himself."""
    monkeypatch.setattr("replicator.transfer.pace._LOOK_AGAIN_S", 60.0)


def is_waiting(bandwidth, way, *, behind=0):
    """Whether one waits for the bucket, and so many for their turn."""
    turn = bandwidth._turns[way]
    return turn._free == 0 and len(turn._waiting) == behind and bool(bandwidth._changed._waiters)


def test_without_a_cap_nothing_waits_for_a_lock():
    """Every file asks: while another thread holds every lock, an unlimited one goes on."""
    bandwidth = Bandwidth(Timetable(), clock=Clock())
    assert bandwidth.rate("up") is None
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with bandwidth._changed, bandwidth._turns["up"].hold(1):
            held.set()
            let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    takers = Takers()
    takers.start(bandwidth, "up", 10**9)
    wait_until(lambda: takers.done)

    let_go.set()
    holder.join(10)
    takers.join()


def test_take_waits_for_its_share():
    """A body behind a full second's worth waits the time that its bytes take."""
    bandwidth = Bandwidth(Timetable.parse("10MiB/s"))
    bandwidth.take("up", 10 * MIB)
    began_s = time.monotonic()

    bandwidth.take("up", 2 * MIB)

    assert 0.15 <= time.monotonic() - began_s < 5


def test_ways_have_caps_of_their_own():
    """What is sent does not wait for what is fetched."""
    bandwidth = Bandwidth(Timetable.parse("1KiB/s:unlimited"))
    bandwidth.take("up", 64 * KIB)

    bandwidth.take("down", 10**9)

    assert (bandwidth.rate("up"), bandwidth.rate("down")) == (KIB, None)


def test_first_come_first_served(takers):
    """A small body does not pass a large one that waits."""
    bandwidth = Bandwidth(Timetable.parse("4MiB/s"))
    bandwidth.take("up", 4 * MIB)
    takers.start(bandwidth, "up", MIB)
    wait_until(lambda: is_waiting(bandwidth, "up"))
    for behind in (1, 2):
        takers.start(bandwidth, "up", 1)
        wait_until(lambda behind=behind: is_waiting(bandwidth, "up", behind=behind))

    takers.join()

    assert takers.done == [0, 1, 2]


@pytest.mark.usefixtures("_asleep")
def test_another_timetable_is_in_force_at_once(takers):
    """Who waits under the old caps goes under the new ones."""
    bandwidth = standing()
    for _ in range(3):
        takers.start(bandwidth, "up", 64 * KIB)
    wait_until(lambda: is_waiting(bandwidth, "up", behind=2))

    bandwidth.replace(Timetable.parse("else unlimited"))
    takers.join()

    assert sorted(takers.done) == [0, 1, 2]
    assert bandwidth.rate("up") is None


def test_passing_into_another_rule_wakes_who_waits(takers):
    """Nobody sleeps through the end of the office hours: the clock is looked at about every second."""
    local = Local(hour=12)
    bandwidth = standing("08:00-18:00 1KiB/s, else unlimited", local=local)
    takers.start(bandwidth, "down", 64 * KIB)
    wait_until(lambda: is_waiting(bandwidth, "down"))

    local.hour = 18
    takers.join()

    assert takers.done == [0]


@pytest.mark.usefixtures("_asleep")
def test_closing_wakes_all_who_wait(takers):
    """At the end of the drain nobody is left waiting, in either way, and nobody begins to."""
    bandwidth = standing()
    for way in ("up", "up", "up", "down"):
        takers.start(bandwidth, way, 64 * KIB)
    wait_until(lambda: is_waiting(bandwidth, "up", behind=2) and is_waiting(bandwidth, "down"))

    bandwidth.close()
    takers.join()

    assert sorted(takers.stopped) == [0, 1, 2, 3]
    with pytest.raises(Stopping):
        bandwidth.take("up", 1)


def test_closing_does_not_hinder_what_has_no_cap():
    """What need not wait is sent while the process drains."""
    bandwidth = Bandwidth(Timetable())
    bandwidth.close()

    bandwidth.take("up", 10**9)


def test_empty_body_costs_nothing():
    """No bytes need no cap, whatever the debt."""
    bandwidth = Bandwidth(Timetable.parse("1KiB/s"))
    bandwidth.take("up", 10 * MIB)

    bandwidth.take("up", 0)


def test_rate_is_that_of_the_rule_in_force(clock):
    """The caps follow local time, and it is asked once a second at most."""
    local = Local(hour=17)
    bandwidth = Bandwidth(Timetable.parse("mon 08:00-18:00 1MiB/s:2MiB/s"), clock=clock, local=local)
    assert [(bandwidth.rate("up"), bandwidth.rate("down")) for _ in range(10)] == [(MIB, 2 * MIB)] * 10
    assert local.asked == 1

    local.hour = 18
    assert bandwidth.rate("up") == MIB
    clock.now_s += 1.0
    assert bandwidth.rate("up") is None


# What the link achieves


def test_nothing_is_measured_before_anything_moved():
    """Unknown is not zero; a cap is known."""
    assert Bandwidth(Timetable()).measured_bytes_s("up") is None
    assert Bandwidth(Timetable.parse("1MiB/s")).measured_bytes_s("up") == MIB


def test_small_bodies_tell_nothing_of_the_link(clock):
    """A thousand small files at 20 ms each do not make a fast link look slow."""
    bandwidth = Bandwidth(Timetable(), clock=clock)
    bandwidth.moved("up", 8 * MIB, 1.0)
    for _ in range(1000):
        bandwidth.moved("up", 4096, 0.02)

    assert bandwidth.measured_bytes_s("up") == 8 * MIB
    assert bandwidth.measured_bytes_s("down") is None


def test_what_moved_lately_counts_most(clock):
    """A link that became slow is known to be slow within a minute, and remembered over a pause."""
    bandwidth = Bandwidth(Timetable(), clock=clock)
    bandwidth.moved("up", 80 * MIB, 10.0)
    clock.now_s += 60
    bandwidth.moved("up", 10 * MIB, 10.0)
    measured = bandwidth.measured_bytes_s("up") or 0.0

    assert MIB <= measured <= 1.2 * MIB
    clock.now_s += DAY_S
    assert bandwidth.measured_bytes_s("up") == measured


def test_no_transfer_is_faster_than_the_cap(clock):
    """What was achieved yesterday without a cap is no forecast under one."""
    bandwidth = Bandwidth(Timetable(), clock=clock)
    bandwidth.moved("up", 80 * MIB, 10.0)

    bandwidth.replace(Timetable.parse("1MiB/s"))

    assert bandwidth.measured_bytes_s("up") == MIB


# The data budget


class Memory:
    """A journal's usage in a dictionary."""

    def __init__(self):
        self.sent: Counter[int] = Counter()
        self.received: Counter[int] = Counter()
        self.writes = 0
        self.error = None

    def add_usage(self, hour: int, *, sent: int, received: int) -> None:
        if self.error:
            raise self.error
        self.writes += 1
        self.sent[hour] += sent
        self.received[hour] += received

    def usage_since(self, hour: int) -> tuple[int, int]:
        sent, received = (sum(size for at, size in side.items() if at >= hour) for side in (self.sent, self.received))
        return sent, received


@pytest.fixture
def usage():
    return Memory()


@pytest.fixture
def wall():
    """A wall clock at the beginning of an hour: 2024-05-06 12:00 UTC."""
    return Clock(1_714_996_800.0)


@pytest.fixture
def budget(usage, wall):
    """Ten million bytes a day."""
    return DataBudget(Allowance.parse("10MB/1d"), usage, clock=wall)


def is_spent(budget):
    try:
        budget.check()
    except BudgetSpent:
        return True
    return False


def test_without_a_budget_nothing_is_counted(usage):
    """No limit writes nothing, refuses nothing and shows nothing."""
    budget = DataBudget(Allowance(), usage)

    budget.spend(sent=10**15)
    budget.check()
    budget.flush()

    assert (usage.writes, budget.view()) == (0, None)


def test_budget_is_both_ways_together(budget):
    """What is sent and what is received count alike, up to the last byte."""
    budget.spend(sent=6_000_000, received=3_999_999)
    budget.check()
    budget.spend(received=1)

    with pytest.raises(BudgetSpent):
        budget.check()


def test_spent_budget_says_when_it_goes_on(budget, wall):
    """The message names setting and time; it is asked again now and then, because clocks get set."""
    budget.spend(sent=10_000_000)

    with pytest.raises(BudgetSpent) as caught:
        budget.check()

    assert "10MB/1d (REPLICATOR_DATA_BUDGET) is used up; transfers go on at 2024-05-07 13:00 UTC" in str(caught.value)
    assert caught.value.retry_after_s == 300
    wall.now_s += DAY_S + HOUR_S - 20
    with pytest.raises(BudgetSpent) as caught:
        budget.check()
    assert caught.value.retry_after_s == 20


def test_another_budget_is_in_force_at_once(budget, wall):
    """A larger one lets transfers go on, a shorter period has its own hours, and without one nothing is refused."""
    budget.spend(sent=10_000_000)
    budget.replace(Allowance.parse("11MB/1d"))
    assert not is_spent(budget)
    wall.now_s += 2 * HOUR_S
    budget.spend(sent=1_000_000)
    assert is_spent(budget)

    budget.replace(Allowance.parse("1MB/1h"))
    assert budget.view() == BudgetView(1_000_000, 1_000_000, HOUR_S, wall.now_s + 2 * HOUR_S)

    budget.replace(Allowance())
    assert not is_spent(budget)
    assert budget.view() is None


def test_relief_comes_when_enough_hours_have_left(budget, wall):
    """Not the whole budget has to come back, only so much that there is room."""
    for _ in range(5):
        budget.spend(sent=3_000_000)
        wall.now_s += HOUR_S
    began_s = wall.now_s - 5 * HOUR_S

    # 15 MB in five hours: there is room once two of them have left the day.
    assert budget.view().relief_ts == began_s + 1 * HOUR_S + DAY_S + HOUR_S
    wall.now_s = budget.view().relief_ts - 1
    assert is_spent(budget)
    wall.now_s += 1
    assert not is_spent(budget)
    assert budget.view() == BudgetView(9_000_000, 10_000_000, DAY_S, None)


@given(
    st.lists(st.tuples(st.integers(0, 3 * HOUR_S), st.integers(1, 4_000_000)), min_size=1, max_size=40),
    st.sampled_from([1, 3, 24]),
)
def test_no_period_ever_holds_more_than_the_budget(steps, hours):
    """Whenever a period begins: what `check` let pass in it is within the limit, but for the last body."""
    wall, passed = Clock(1_714_996_800.0), []
    budget = DataBudget(Allowance.parse(f"10MB/{hours}h"), Memory(), clock=wall)
    for pause_s, size in steps:
        wall.now_s += pause_s
        if not is_spent(budget):
            budget.spend(sent=size)
            passed.append((wall.now_s, size))

    for end, (end_s, _) in enumerate(passed):
        before = sum(size for at_s, size in passed[:end] if at_s > end_s - hours * HOUR_S)
        assert before < 10_000_000


def test_usage_survives_a_restart(budget, usage, wall):
    """What was written counts for the next process."""
    budget.spend(sent=10_000_000)
    budget.flush()

    assert is_spent(DataBudget(Allowance.parse("10MB/1d"), usage, clock=wall))


def test_usage_is_written_every_few_seconds(budget, usage, wall):
    """Many small bodies cost one commit in five seconds, and none is forgotten."""
    for _ in range(1000):
        budget.spend(sent=1, received=2)
        wall.now_s += 0.01

    assert usage.writes == 1
    budget.flush()
    assert (usage.sent.total(), usage.received.total()) == (1000, 2000)
    budget.flush()
    assert usage.writes == 2


def test_bytes_belong_to_the_hour_in_which_they_went(budget, usage, wall):
    """What waits to be written is not moved into the hour of its writing."""
    wall.now_s += HOUR_S - 1
    budget.spend(sent=7)
    budget.flush()
    budget.spend(sent=1)
    wall.now_s += 2
    budget.spend(sent=2)
    budget.flush()

    hour = int(wall.now_s // HOUR_S)
    assert usage.sent == {hour - 1: 8, hour: 2}


def test_usage_that_cannot_be_written_is_kept(budget, usage, wall):
    """A full disk is told to the caller and forgets nothing."""
    usage.error = JournalFull("full")
    wall.now_s += 10
    with pytest.raises(JournalFull):
        budget.spend(sent=10_000_000)

    usage.error = None
    budget.flush()

    assert usage.sent.total() == 10_000_000
    assert is_spent(budget)


@pytest.mark.fault("H1")
def test_clock_that_is_set_back_still_writes(budget, usage, wall):
    """A device that began without the time and jumps to it goes on accounting."""
    wall.now_s -= 40 * DAY_S
    budget.spend(sent=5)

    assert usage.sent.total() == 5


@pytest.mark.fault("H1")
def test_usage_from_the_future_does_not_block(usage, wall):
    """A clock that was wrong once must not stop a device until that day comes."""
    usage.add_usage(int(wall.now_s // HOUR_S) + 1000 * 24, sent=10**12, received=0)
    budget = DataBudget(Allowance.parse("10MB/1d"), usage, clock=wall)

    budget.check()

    assert budget.view().used_bytes == 0


def test_view_is_what_people_ask(budget):
    """Used, limit and period; the relief only when it is needed."""
    budget.spend(sent=1, received=2)

    assert budget.view() == BudgetView(used_bytes=3, limit_bytes=10_000_000, period_s=DAY_S, relief_ts=None)


@pytest.fixture
def _restless():
    """Threads take turns as often as they can."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("_restless")
def test_many_threads_are_all_counted(budget, usage):
    """Not a byte is lost between threads."""

    def work():
        for _ in range(500):
            budget.spend(sent=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    budget.flush()

    assert usage.sent.total() == budget.view().used_bytes == 4000
