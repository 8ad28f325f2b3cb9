"""Bytes of the last ten minutes, on a clock of the test's."""

import pytest

from replicator.transfer.throughput import SPAN_S, SPANS, Throughput

MIB = 2**20


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throughput(clock) -> Throughput:
    return Throughput(clock=clock)


def test_nothing_moved_is_ten_minutes_of_nought(throughput):
    """Both ways have all their spans from the start."""
    view = throughput.view()

    assert (view.up, view.down) == ((0,) * 60, (0,) * 60)
    assert (view.span_s, len(view.up) * view.span_s) == (SPAN_S, 600)


def test_each_way_has_its_own_spans(throughput, clock):
    """What goes up is not told as down, and what goes later stands further on."""
    throughput.add("up", 5)
    clock.now_s += SPAN_S
    throughput.add("up", 7)
    throughput.add("down", 1)
    throughput.add("down", 2)

    assert throughput.view().up[-2:] == (5, 7)
    assert throughput.view().down[-2:] == (0, 3)


def test_last_span_tells_how_much_of_it_is_over(throughput, clock):
    """A rate can be told from the very first second of a span."""
    clock.now_s += 3.5

    assert throughput.view().last_s == 3.5


def test_slow_body_is_spread_over_the_time_it_took(throughput, clock):
    """A part that took 25 s shows as a steady rate, and not as a peak at its end."""
    clock.now_s = 1005.0
    throughput.add("up", 25 * MIB, 25.0)

    assert throughput.view().up[-4:] == (0, 10 * MIB, 10 * MIB, 5 * MIB)


def test_body_that_took_longer_than_there_are_spans_fills_all_of_them(throughput, clock):
    """What went before the ten minutes is left out, and nothing is kept for it."""
    clock.now_s = 10_000.0
    throughput.add("down", 1200 * MIB, 1200.0)

    assert throughput.view().down == (10 * MIB,) * (SPANS - 1) + (0,)
    assert len(throughput._spans["down"]) == SPANS


@pytest.mark.parametrize(("later_s", "left"), [((SPANS - 1) * SPAN_S, 9), (SPANS * SPAN_S, 0), (1e6, 0)])
def test_old_spans_go(throughput, clock, later_s, left):
    """Ten minutes later a byte is forgotten, however long nobody asked, and so is its place in memory."""
    throughput.add("up", 9)
    clock.now_s += later_s

    assert throughput.view().up[0] == left
    assert sum(throughput.view().up) == left
    assert len(throughput._spans["up"]) == bool(left)
