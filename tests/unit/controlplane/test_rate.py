"""How often a device may ask."""

import pytest

from replicator.controlplane.edge_api.rate import Rates


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_burst_passes_and_then_the_rate_holds(clock):
    """As many as the bucket has at once; then one each time that a token comes."""
    rates = Rates(2.0, 5, clock=clock)

    assert [rates.take("a") for _ in range(6)] == [0, 0, 0, 0, 0, pytest.approx(0.5)]
    clock.now_s += 0.5
    assert [rates.take("a") for _ in range(2)] == [0, pytest.approx(0.5)]


def test_refused_request_costs_no_token(clock):
    """Who keeps asking is served when his time has come."""
    rates = Rates(1.0, 1, clock=clock)
    rates.take("a")
    for _ in range(100):
        assert rates.take("a") > 0

    clock.now_s += 1
    assert rates.take("a") == 0


def test_devices_do_not_share(clock):
    """Each has its own bucket, and one that is full again is forgotten."""
    rates = Rates(1.0, 1, clock=clock)
    assert [rates.take(number) for number in range(1000)] == [0] * 1000

    clock.now_s += 61
    rates.take("a")
    assert set(rates._full_at_s) == {"a"}
