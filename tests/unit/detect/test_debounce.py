"""Quiet time per path, with the clock passed in."""

from itertools import pairwise

import pytest

from replicator.detect.debounce import Debounce


def drive(debounce: Debounce, hints: list[float], until_s: float) -> list[float]:
    """The times at which path 'f' is looked at when it is hinted at `hints`."""
    looks, now_s = [], 0.0
    while now_s <= until_s:
        if any(abs(hint - now_s) < 1e-9 for hint in hints) and debounce.hint("f", now_s):
            looks.append(round(now_s, 3))
        looks += [round(now_s, 3) for _ in debounce.due(now_s)]
        now_s = round(now_s + 0.01, 3)
    return looks


def test_first_hint_passes_at_once():
    """An idle system adds no latency: the leading edge does not wait."""
    assert drive(Debounce(quiet_s=0.5, ceiling_s=2), [1.0], 5) == [1.0]


@pytest.mark.fault("G2")
def test_last_hint_is_never_lost():
    """Whatever comes inside a window is looked at when the window ends."""
    assert drive(Debounce(quiet_s=0.5, ceiling_s=2), [1.0, 1.1, 1.2], 5) == [1.0, 1.5]


@pytest.mark.fault("G2")
def test_path_that_keeps_changing_is_looked_at_once_a_growing_window():
    """A file rewritten all the time still ships, at most once every `ceiling_s`."""
    hints = [round(n * 0.01, 2) for n in range(100, 1100)]

    looks = drive(Debounce(quiet_s=0.5, ceiling_s=2), hints, 13)

    gaps = [round(b - a, 2) for a, b in pairwise(looks)]
    assert gaps[:3] == [0.5, 1.0, 2.0]
    assert max(gaps) <= 2.01
    assert looks[-1] >= hints[-1]


def test_silent_path_is_forgotten():
    """Memory is bounded by what changed of late, and the next change passes at once again."""
    debounce = Debounce(quiet_s=0.5, ceiling_s=2)

    looks = drive(debounce, [1.0, 20.0], 30)

    assert looks == [1.0, 20.0]
    assert not debounce.knows("f")
    assert debounce.next_due_s() is None


def test_paths_do_not_wait_for_each_other():
    """One busy path holds back no other."""
    debounce = Debounce(quiet_s=0.5, ceiling_s=2)

    assert debounce.hint("a", 1.0)
    assert not debounce.hint("a", 1.1)
    assert debounce.hint("b", 1.2)
