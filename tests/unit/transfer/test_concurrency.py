"""How many requests at a time: near what the endpoint bears, never collapsed by a link that is merely slow."""

import heapq
import threading

import pytest

from replicator.transfer.concurrency import Concurrency

SMALL, LARGE = 4096, 2**30


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


class Server:
    """Answers `capacity` requests at a time and refuses the others; its clients keep as many in flight as they may."""

    def __init__(self, clock, capacity, *, size=SMALL, seconds=lambda in_flight: 0.02):
        self.clock = clock
        self.capacity = capacity
        self.size = size
        self.seconds = seconds
        self.answered = self.refused = 0
        self.limits: list[int] = []

    def serve(self, concurrency, duration_s):
        """Let time pass; every request's end begins another one."""
        self.answered = self.refused = 0
        self.limits = []
        end_s = self.clock.now_s + duration_s
        in_flight: list[tuple[float, int, float, bool]] = []
        serial = served = 0
        while self.clock.now_s < end_s:
            while len(in_flight) < concurrency.limit:
                is_refused = served >= self.capacity
                seconds = 0.005 if is_refused else self.seconds(len(in_flight) + 1)
                served += not is_refused
                serial += 1
                heapq.heappush(in_flight, (self.clock.now_s + seconds, serial, seconds, is_refused))
            self.clock.now_s, _, seconds, is_refused = heapq.heappop(in_flight)
            served -= not is_refused
            self.answered += not is_refused
            self.refused += is_refused
            concurrency.throttled() if is_refused else concurrency.succeeded(seconds, self.size)
            self.limits.append(concurrency.limit)
        return self


@pytest.mark.parametrize(("maximum", "start"), [(1, 1), (4, 4), (8, 8), (64, 8)])
def test_begins_with_eight_or_the_maximum(clock, maximum, start):
    """An endpoint of which nothing is known is not met with everything."""
    assert Concurrency(maximum, clock=clock).limit == start


def test_doubles_while_throughput_grows(clock):
    """A healthy endpoint sees the maximum after a few rounds."""
    concurrency = Concurrency(64, clock=clock)

    server = Server(clock, 10**6).serve(concurrency, 0.1)

    assert concurrency.limit == 64
    assert server.answered <= 8 + 16 + 32 + 64 * 3


def test_doubling_ends_where_throughput_does_not_grow(clock):
    """Where more requests only take longer, the limit creeps instead of leaping."""
    concurrency = Concurrency(256, clock=clock)

    Server(clock, 10**6, size=LARGE, seconds=lambda in_flight: 0.01 * in_flight).serve(concurrency, 1.0)

    assert 8 <= concurrency.limit <= 32


def test_creeps_by_one_a_round_after_trouble(clock):
    """Right after trouble, each whole round of good answers allows one more."""
    concurrency = Concurrency(64, clock=clock)
    for _ in range(7):
        concurrency.succeeded(0.02, SMALL)
    concurrency.throttled()
    assert concurrency.limit == 4

    for _ in range(4):
        concurrency.succeeded(0.02, SMALL)
    assert concurrency.limit == 5
    for _ in range(4):
        concurrency.succeeded(0.02, SMALL)
    assert concurrency.limit == 5
    concurrency.succeeded(0.02, SMALL)
    assert concurrency.limit == 6


def test_never_above_the_maximum_nor_below_one(clock):
    """Whatever the answers are."""
    concurrency = Concurrency(10, clock=clock)
    for _ in range(1000):
        concurrency.succeeded(0.02, SMALL)
    assert concurrency.limit == 10

    for _ in range(1000):
        concurrency.throttled()
    assert concurrency.limit == 1


@pytest.mark.fault("B6")
def test_refusals_of_one_round_halve_once(clock):
    """Sixteen requests that were in flight together and are all refused are one piece of news."""
    concurrency = Concurrency(16, clock=clock)
    Server(clock, 10**6).serve(concurrency, 1)
    assert concurrency.limit == 16

    for _ in range(16):
        concurrency.throttled()
    assert concurrency.limit == 8
    concurrency.throttled()
    assert concurrency.limit == 4


@pytest.mark.parametrize("capacity", [2, 5, 10, 30])
def test_hovers_near_what_the_server_bears(clock, capacity):
    """Under a capacity below the maximum, most of it is used, few requests are refused, and nothing collapses."""
    concurrency = Concurrency(64, clock=clock)
    Server(clock, capacity).serve(concurrency, 5)

    server = Server(clock, capacity).serve(concurrency, 30)

    assert server.answered > 0.7 * capacity * 30 / 0.02
    assert server.refused < server.answered * max(0.1, 0.6 / capacity)
    assert capacity // 2 <= min(server.limits)
    assert max(server.limits) <= capacity + max(2, capacity // 4)


@pytest.mark.fault("B6")
@pytest.mark.parametrize("maximum", [16, 64, 256])
def test_is_back_at_the_maximum_soon_after_a_burst(clock, maximum):
    """A store that throttled for a while costs seconds, not the day, also over a long way."""
    concurrency = Concurrency(maximum, clock=clock)
    Server(clock, 1, seconds=lambda in_flight: 0.1).serve(concurrency, 10)
    assert concurrency.limit <= 2

    Server(clock, 10**6, seconds=lambda in_flight: 0.1).serve(concurrency, 5)

    assert concurrency.limit == maximum


def test_slowness_never_raises_it(clock):
    """Fewer than slowness would leave are left as they are."""
    concurrency = Concurrency(16, clock=clock)
    Server(clock, 1).serve(concurrency, 5)

    for _ in range(3):
        concurrency.succeeded(5.0, SMALL)

    assert concurrency.limit <= 3


def test_small_requests_that_take_long_lower_it_gently(clock):
    """A server that queues instead of refusing is noticed by the latency of small requests."""
    concurrency = Concurrency(64, clock=clock)
    Server(clock, 10**6).serve(concurrency, 2)
    assert concurrency.limit == 64

    server = Server(clock, 10**6, seconds=lambda in_flight: 0.02 if in_flight <= 10 else 0.2)
    server.serve(concurrency, 2)

    assert 4 <= concurrency.limit <= 40
    assert all(
        before - after <= before * 0.1 + 1 for before, after in zip(server.limits, server.limits[1:], strict=False)
    )


def test_slowness_alone_leaves_four(clock):
    """A link that others fill is slow at any concurrency: little may remain, but it does not collapse."""
    concurrency = Concurrency(16, clock=clock)
    Server(clock, 10**6).serve(concurrency, 2)

    server = Server(clock, 10**6, seconds=lambda in_flight: 2.0).serve(concurrency, 120)

    assert min(server.limits) == 4


def test_lasting_slowness_becomes_the_usual(clock):
    """Another route with a longer way is a new baseline after a while, and no lasting brake."""
    concurrency = Concurrency(16, clock=clock)
    Server(clock, 10**6).serve(concurrency, 2)

    Server(clock, 10**6, seconds=lambda in_flight: 0.4).serve(concurrency, 120)

    assert concurrency.limit == 16


def test_large_bodies_take_long_on_a_healthy_link(clock):
    """How long a large body takes says nothing: the limit only climbs."""
    concurrency = Concurrency(16, clock=clock)
    Server(clock, 10**6).serve(concurrency, 0.1)

    server = Server(clock, 10**6, size=LARGE, seconds=lambda in_flight: 60.0 * in_flight).serve(concurrency, 3600)

    assert min(server.limits) >= 8
    assert concurrency.limit == 16


def test_noise_of_a_local_network_is_no_trouble(clock):
    """From a millisecond to forty is a factor, but nobody's trouble."""
    concurrency = Concurrency(16, clock=clock)
    Server(clock, 10**6, seconds=lambda in_flight: 0.001).serve(concurrency, 1)

    server = Server(clock, 10**6, seconds=lambda in_flight: 0.04).serve(concurrency, 5)

    assert min(server.limits) == 16


def test_answers_may_come_from_any_thread():
    """Nothing is lost between threads: the limit stays in its bounds."""
    concurrency = Concurrency(16)

    def answers(number):
        for turn in range(2000):
            concurrency.throttled() if (number + turn) % 50 == 0 else concurrency.succeeded(0.01, SMALL)
            assert 1 <= concurrency.limit <= 16

    threads = [threading.Thread(target=answers, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not any(thread.is_alive() for thread in threads)
