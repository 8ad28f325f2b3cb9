"""The retry policy and the gate before an endpoint."""

import pytest

from replicator.errors import (
    AccessDenied,
    BucketMissing,
    BudgetSpent,
    IntegrityFailed,
    JournalFull,
    KeyUnsafe,
    SourceChanged,
    Throttled,
    Unavailable,
)
from replicator.transfer.concurrency import Concurrency
from replicator.transfer.gate import Gate
from replicator.transfer.retry import RetryPolicy

POLICY = RetryPolicy(max_s=60, parked_s=300)


@pytest.fixture
def gate():
    return Gate(POLICY, Concurrency(16))


def longest(error, attempts):
    return max(POLICY.delay_s(error, attempts) for _ in range(300))


@pytest.mark.fault("B1")
def test_transient_errors_back_off_with_jitter_up_to_the_cap():
    """Waits grow with the attempts, differ from device to device, and never pass the cap."""
    assert longest(Unavailable("x"), 1) <= 0.5
    assert 4 < longest(Unavailable("x"), 5) <= 16
    assert 45 < longest(Unavailable("x"), 50) <= 60
    assert len({POLICY.delay_s(Unavailable("x"), 5) for _ in range(20)}) > 10


@pytest.mark.parametrize("error", [KeyUnsafe("x"), AccessDenied("x"), BucketMissing("x")])
def test_permanent_errors_are_parked(error):
    """What a person must mend is looked at again at the slow pace, not hammered."""
    assert POLICY.delay_s(error, 1) == 300


def test_file_in_motion_is_looked_at_again_soon():
    """However often a file moved, it waits no longer than two seconds."""
    assert longest(SourceChanged("x"), 40) <= 2


def test_file_that_must_be_quiet_a_little_longer_is_looked_at_exactly_then():
    """Where only quiet time tells that a writer is done, chance adds nothing to the latency."""
    assert POLICY.delay_s(SourceChanged("x", retry_after_s=0.3), 1) == 0.3
    assert POLICY.delay_s(SourceChanged("x", retry_after_s=0.3), 9) == 0.3


@pytest.mark.fault("B6")
def test_store_that_says_when_to_come_back_is_believed():
    """Retry-After is a floor."""
    assert POLICY.delay_s(Throttled("x", retry_after_s=20), 1) >= 20


def test_gate_stays_open_for_one_bad_key(gate):
    """A key that fails again and again says nothing about the endpoint."""

    for _ in range(20):
        gate.failed("poison", Unavailable("500"), 0.0)

    assert gate.admits(0.0)


def test_gate_closes_when_several_keys_fail_in_a_row(gate):
    """Three different keys without a success between them: the endpoint is away."""
    for key in "abc":
        assert gate.admits(0.0)
        gate.failed(key, Unavailable("down"), 0.0)

    assert not gate.admits(0.0)
    assert isinstance(gate.error, Unavailable)


def test_success_between_failures_keeps_the_gate_open(gate):
    """Only failures in a row count."""
    for key in "abcdef":
        gate.failed(key, Unavailable("down"), 0.0)
        gate.succeeded()

    assert gate.admits(0.0)


@pytest.mark.fault("B1")
def test_closed_gate_admits_one_probe_at_a_time_and_opens_on_success(gate):
    """While the probe is on its way nobody else asks."""
    gate.failed("a", BucketMissing("none"), 0.0)

    assert not gate.admits(0.0)
    assert gate.admits(100.0)
    assert not gate.admits(100.0)
    gate.succeeded()

    assert gate.admits(100.0)
    assert gate.error is None


def test_probe_that_made_no_request_proves_nothing(gate):
    """A job that had nothing to do leaves the gate as it is, and lets the next one probe."""
    gate.failed("a", BucketMissing("none"), 0.0)
    assert gate.admits(100.0)

    gate.released()

    assert gate.error is not None
    assert gate.admits(100.0)


def test_what_one_target_is_refused_stops_no_other(gate):
    """Credentials that may not write one prefix close the gate of that target; the others go on. It is probed alone."""
    refused, other = gate.of("a"), gate.of("b")
    for key in "abc":
        refused.failed(key, AccessDenied("no"), 0.0)

    assert str(refused.error) == "no"
    assert not refused.enter(0.0, is_bulk=False)
    assert other.error is None
    assert other.enter(0.0, is_bulk=False)
    assert refused.admits(100.0)
    assert not refused.admits(100.0)
    refused.succeeded()
    assert refused.error is None
    assert gate.of("a") is refused


def test_endpoint_that_is_away_is_probed_once_for_all_its_targets(gate):
    """One target's failures close all; a probe of one lets no other ask, and its success opens all."""
    one, other = gate.of("a"), gate.of("b")
    for number, target in enumerate((one, other, one)):
        target.failed(f"f{number}", Unavailable("down"), 0.0)

    assert isinstance(one.error, Unavailable)
    assert isinstance(other.error, Unavailable)
    assert not other.admits(0.0)
    assert one.admits(100.0)
    assert other.opens_s() is None
    assert not other.enter(100.0, is_bulk=False)
    one.failed("f3", AccessDenied("no"), 100.0)  # an answer: it is there again
    assert other.admits(100.0)
    assert one.error is None


def test_refused_target_waits_for_the_endpoint_as_well(gate):
    """Both gates closed: the later opening counts, and a probe that the endpoint does not admit is none."""
    target = gate.of("a")
    for key in "abc":
        target.failed(key, AccessDenied("no"), 0.0)
    gate.failed("x", BucketMissing("none"), 500.0)

    assert isinstance(target.error, BucketMissing)
    assert target.opens_s() >= 500.0
    assert not target.admits(500.0)
    assert target.admits(1000.0)
    assert not gate.admits(1000.0)


@pytest.mark.parametrize("error", [IntegrityFailed("x"), SourceChanged("x"), KeyUnsafe("x")])
def test_errors_about_the_item_never_close_the_gate(gate, error):
    """One endpoint's health is not judged by its objects' contents."""
    for key in "abcdef":
        gate.failed(key, error, 0.0)

    assert gate.admits(0.0)


def test_full_journal_closes_the_gate_at_once(gate):
    """What cannot be recorded must not be sent again and again over a metered link."""

    gate.failed("a", JournalFull("no room"), 0.0)

    assert not gate.admits(0.0)


def test_throttling_closes_the_gate_at_once(gate):
    """The store asked for less: everybody waits."""

    gate.failed("a", Throttled("slow down", retry_after_s=7), 10.0)

    assert not gate.admits(16.9)


def test_spent_budget_closes_the_gate_and_is_asked_again_within_the_cap(gate):
    """Everybody waits for the budget, but a budget that is raised meanwhile helps soon."""
    gate.failed("a", BudgetSpent("spent", retry_after_s=3600), 0.0)

    assert not gate.admits(59.0)
    assert gate.admits(61.0)


@pytest.mark.fault("B6")
def test_throttling_halves_the_slots(gate):
    """Less is asked for, so fewer files move at a time once the gate opens again."""
    before = gate.concurrency.limit

    gate.failed("a", Throttled("slow down"), 0.0)

    assert gate.concurrency.limit == before // 2


def test_slots_are_limited_and_come_back(gate):
    """So many small files at a time as the endpoint bears, a quarter as many large ones beside them."""
    limit = gate.concurrency.limit
    small = [gate.enter(0.0, is_bulk=False) for _ in range(limit + 1)]
    large = [gate.enter(0.0, is_bulk=True) for _ in range(limit // 4 + 1)]

    gate.leave(is_bulk=False)

    assert small == [True] * limit + [False]
    assert large == [True] * (limit // 4) + [False]
    assert gate.enter(0.0, is_bulk=False)
    assert not gate.enter(0.0, is_bulk=False)


def test_closed_gate_gives_out_no_slot(gate):
    """A slot that nobody may use must not be taken."""
    gate.failed("a", BucketMissing("none"), 0.0)

    refused = [gate.enter(0.0, is_bulk=False) for _ in range(50)]
    gate.succeeded()

    assert not any(refused)
    assert gate.enter(0.0, is_bulk=False)


@pytest.mark.fault("B17")
def test_new_credentials_open_a_gate_that_refusals_closed(gate):
    """Whatever its wait; a throttled endpoint is as throttled as before."""
    for error, is_open in ((AccessDenied("no"), True), (Unavailable("no"), True), (Throttled("slower"), False)):
        for key in ("a", "b", "c"):
            gate.failed(key, error, 0.0)
        assert not gate.admits(0.0)

        gate.renewed()

        assert gate.admits(0.0) is is_open


def test_each_time_that_the_bucket_was_missing_is_counted(gate):
    """Of the endpoint, so that every target behind it hears of what one of them met; other errors lose nothing."""
    one, other = gate.of("one"), gate.of("other")
    assert other.losses == 0

    one.failed("key", Unavailable("no route"), 0)
    one.failed("key", AccessDenied("no"), 0)
    assert other.losses == 0
    one.failed("key", BucketMissing("none"), 0)
    one.succeeded()

    assert (one.losses, other.losses, other.error) == (1, 1, None)
