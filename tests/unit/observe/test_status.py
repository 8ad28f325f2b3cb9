"""The JSON contract of a status, and the rule when a process is ready."""

import dataclasses
import json

import pytest

from replicator.model import Direction
from replicator.observe.status import (
    ConfigView,
    FailingFile,
    LinkView,
    MovingFile,
    SkippedFile,
    State,
    TargetView,
    ThroughputView,
    WatcherView,
    from_json,
    readiness,
    to_json,
)


@pytest.fixture
def full_view(view, hostile_names):
    return view(
        state=State.FAILING,
        reason="one file\nis refused",
        fix="look at it",
        pending_files=3,
        pending_bytes=1 << 40,
        oldest_pending_s=0.25,
        in_flight=tuple(map(MovingFile, hostile_names)),
        failing=tuple(FailingFile(name, "refused", name, 4, 1.5, 90.0) for name in hostile_names),
        failing_by_reason={"refused": len(hostile_names), "throttled": 1},
        skipped=tuple(SkippedFile(name, "hard-link") for name in hostile_names),
        skipped_by_reason={"hard-link": len(hostile_names)},
        last_success_ts=None,
        last_sweep_ts=None,
        watcher=WatcherView(source="watchfiles", watches=3, degraded="no events\x1b arrive"),
        free_bytes=None,
        blocked_bytes=9,
    )


def test_json_round_trip_is_exact(snapshot, view, full_view):
    """What a reader gets is what was there, hostile names, absent values and fractions included."""
    before = snapshot(
        view(),
        full_view,
        view("in", Direction.INGRESS),
        is_ready=False,
        not_ready=("a\nb",),
        link=LinkView(up_limit=1, down_achieved=2.5, budget_bytes=3, budget_used_bytes=2, budget_relief_ts=4.5),
        throughput=ThroughputView(last_s=1.5, up=(1, 2), down=(3, 4)),
    )

    wire = json.dumps(to_json(before), allow_nan=False)

    assert from_json(json.loads(wire)) == before


def test_json_carries_no_character_that_needs_care(snapshot, full_view):
    """A consumer may print any string of the status on a terminal, and encode it."""

    def strings(plain):
        if isinstance(plain, dict):
            return [text for key, value in plain.items() for text in [key, *strings(value)]]
        if isinstance(plain, list):
            return [text for value in plain for text in strings(value)]
        return [plain] if isinstance(plain, str) else []

    found = strings(to_json(snapshot(full_view)))

    assert len(found) > 60
    assert all(text.isprintable() for text in found)


def test_json_field_names_are_those_of_the_values(snapshot, view):
    """The contract is readable from the classes: same names, nothing renamed, nothing left out."""
    plain = to_json(snapshot(view()))

    assert set(plain["targets"][0]) == {field.name for field in dataclasses.fields(TargetView)}
    assert plain["targets"][0]["state"] == "in-step"
    assert plain["targets"][0]["direction"] == "egress"


def test_fields_of_a_newer_version_are_ignored(snapshot, view):
    """An older command line reads a newer server's status."""
    plain = to_json(snapshot(view()))
    plain["surprise"] = plain["targets"][0]["surprise"] = 1

    assert from_json(plain) == snapshot(view())


def test_fields_that_an_older_version_does_not_know_may_be_missing(snapshot, view):
    """A newer command line reads an older server's status."""
    plain = to_json(snapshot(view()))
    del plain["throughput"], plain["targets"][0]["quota_bytes"], plain["free_space_floor_bytes"]

    assert from_json(plain) == snapshot(view())


@pytest.mark.parametrize("broken", [None, [], {}, {"version": "1"}, "text"])
def test_something_else_than_a_status_is_a_value_error(broken):
    """A wrong server's answer is told apart from a status."""
    with pytest.raises(ValueError, match="Snapshot"):
        from_json(broken)


class TestReadiness:
    """`readiness` says why not ready; empty means ready."""

    @pytest.fixture
    def reasons(self, config):
        def ask(*targets, config=config, is_draining=False, now_ts=1_800_000_000.0):
            return readiness(targets, config, is_draining=is_draining, now_ts=now_ts, max_age_s=60)

        return ask

    def test_all_compared_and_fresh_is_ready(self, reasons, view):
        """In step, or behind for less than the bound: ready."""
        assert reasons(view(), view("logs", state=State.BEHIND, pending_files=3, oldest_pending_s=59)) == ()

    def test_no_target_at_all_is_ready(self, reasons):
        """A device without workloads has nothing to wait for."""
        assert reasons() == ()

    def test_first_sweep_not_done(self, reasons, view):
        """Before the first comparison nobody knows what is pending."""
        starting = view(state=State.STARTING, last_sweep_ts=None)

        assert reasons(view("ok"), starting) == ("os-stats/egress/stats: the first sweep is not done",)

    def test_configuration_invalid_says_why(self, reasons, view):
        """The last good configuration works on, but an operator's change did not arrive."""
        refused = ConfigView(source="files", generation=3, valid=False, error="a.yaml: spec.data: unknown key")

        assert reasons(view(), config=refused) == ("configuration invalid: a.yaml: spec.data: unknown key",)

    def test_oldest_pending_above_the_bound(self, reasons, view):
        """Fresh is part of ready."""
        late = view(state=State.BEHIND, pending_files=2, oldest_pending_s=61)

        assert reasons(late) == ("os-stats/egress/stats: the oldest of 2 pending files has waited for 1 min",)

    def test_blocked_targets_say_their_reason(self, reasons, view):
        """What cannot move is not ready, whatever its age."""
        blocked = view(state=State.BLOCKED, reason="the bucket is missing")

        assert reasons(blocked, view("logs", state=State.BLOCKED)) == (
            "os-stats/egress/stats: blocked: the bucket is missing",
            "os-stats/egress/logs: blocked",
        )

    def test_single_failing_file_counts_only_when_old(self, reasons, view):
        """One bad file does not take a pod out of service, until its age says that somebody must look."""
        failing = {"state": State.FAILING, "failing_by_reason": {"refused": 1}, "pending_files": 1}

        assert reasons(view(**failing, oldest_pending_s=59)) == ()
        assert reasons(view(**failing, oldest_pending_s=61)) != ()

    def test_sweep_that_no_longer_ends_is_not_ready(self, reasons, view):
        """Without its safety net a target is not fresh, even when nothing seems pending."""
        assert reasons(view(last_sweep_ts=1_800_000_000.0 - 61)) == (
            "os-stats/egress/stats: the last sweep ended 1 min ago",
        )

    def test_long_sweep_is_given_its_own_duration(self, reasons, view):
        """A tree that takes a minute to walk is not called stale while it is walked."""
        assert reasons(view(last_sweep_ts=1_800_000_000.0 - 110, last_sweep_s=55)) == ()

    def test_interval_in_force_is_given_to_the_next_sweep(self, reasons, view):
        """Where sweeps come less often than the bound, three of their intervals may pass."""
        assert reasons(view(last_sweep_ts=1_800_000_000.0 - 179, sweep_interval_s=60)) == ()
        assert reasons(view(last_sweep_ts=1_800_000_000.0 - 181, sweep_interval_s=60)) != ()

    def test_draining_is_not_ready(self, reasons, view):
        """A process that stops takes no new work."""
        assert reasons(view(), is_draining=True) == ("stopping: new changes are not taken up",)
