"""What the control plane is told: the three words and their rule, and the two forms of a report."""

import json
from typing import Any

import pytest

from replicator.model import Direction
from replicator.observe.standing import Report, Stand, Standing, as_status, from_json, merged, standings, to_json
from replicator.observe.status import State

NOW_TS = 1_800_000_000.0
NOW = "2027-01-15T08:00:00Z"
BEFORE = "2027-01-15T07:00:00Z"
IN_STEP = Standing("os-stats", Stand.SYNCED, last_upload_ts=NOW_TS - 12)

RULES: dict[str, tuple[dict[str, Any], Stand, str]] = {
    "in step": ({}, Stand.SYNCED, ""),
    "pending": ({"state": State.BEHIND, "pending_files": 2}, Stand.LAGGING, ""),
    "readers wait for a set": ({"state": State.BEHIND}, Stand.LAGGING, ""),
    "not compared yet": ({"state": State.STARTING}, Stand.LAGGING, "starting"),
    "stands still": ({"state": State.BLOCKED, "cause": "refused", "reason": "key ...ABCD"}, Stand.BLOCKED, "refused"),
    "stands still, nobody knows why": ({"state": State.BLOCKED}, Stand.BLOCKED, "error"),
    "files fail": (
        {"state": State.FAILING, "failing_by_reason": {"refused": 1, "throttled": 3}},
        Stand.BLOCKED,
        "throttled",
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_state_and_reason_of_a_target(snapshot, view, case):
    """Pending is lagging, what somebody has to mend is blocked with a closed-set word, the rest is synced."""
    changes, state, reason = RULES[case]

    (standing,) = standings(snapshot(view(**changes)))

    assert (standing.state, standing.reason) == (state, reason)


def test_workload_is_its_targets_together(snapshot, view):
    """Sums of what waits, the oldest age, the worst state with its reason, and the last upload of egress alone."""
    found = standings(
        snapshot(
            view("a", state=State.BEHIND, pending_files=2, pending_bytes=10, oldest_pending_s=7.0, last_success_ts=5.0),
            view("b", state=State.BLOCKED, cause="bucket-missing", pending_files=1, oldest_pending_s=3.0),
            view("in", Direction.INGRESS, last_success_ts=NOW_TS),
            view("z", workload="another", last_success_ts=None),
        )
    )

    assert found == (
        Standing("another", Stand.SYNCED),
        Standing("os-stats", Stand.BLOCKED, "bucket-missing", 3, 10, 7.0, NOW_TS - 12),
    )


def test_merging_keeps_the_worse_state_whatever_the_order():
    """Either order gives the blocked one's reason and all that waits."""
    blocked = Standing("w", Stand.BLOCKED, "refused", 1, 2, 3.0, None)
    synced = Standing("w", Stand.SYNCED, last_upload_ts=9.0)

    assert merged(blocked, synced) == merged(synced, blocked) == Standing("w", Stand.BLOCKED, "refused", 1, 2, 3.0, 9.0)


def test_report_travels_whole():
    """What arrives is what was told."""
    report = Report((IN_STEP, Standing("b", Stand.BLOCKED, "refused", 1, 1 << 40, 2.5)), is_drained=True, at_ts=NOW_TS)

    assert from_json(json.loads(json.dumps(to_json(report), allow_nan=False))) == report


BAD = {
    "not an object": "x",
    "no flag": {"standings": [], "at_ts": 1},
    "a word that is a sentence": {"standings": [{"workload": "w", "state": "blocked", "reason": "S3CRET <b>"}]},
    "an unknown state": {"standings": [{"workload": "w", "state": "S3CRET"}]},
    "fewer than none": {"standings": [{"workload": "w", "state": "synced", "pending_files": -1}]},
    "no number": {"standings": [{"workload": "w", "state": "synced", "oldest_pending_s": "NaN"}]},
    "no name": {"standings": [{"workload": "", "state": "synced"}]},
    "no end": {"standings": [{"workload": "w", "state": "synced"}] * 1001},
    "beyond all calendars": {"standings": [], "at_ts": 1e300},
}


@pytest.mark.parametrize("case", BAD)
def test_report_of_a_stranger_is_refused_and_not_quoted(case):
    """What a device sends is checked field by field; the error names fields and no values."""
    plain = BAD[case]
    if isinstance(plain, dict) and case != "no flag":
        plain = {"is_drained": False, "at_ts": 1.0} | plain

    with pytest.raises(ValueError, match="not a report of replication") as caught:
        from_json(plain)
    assert "S3CRET" not in str(caught.value)


# The status


def test_status_tells_totals_times_and_one_true_condition():
    """Camel-case names, whole seconds, one condition of three true, with the reason as Kubernetes writes it."""
    blocked = Standing("w", Stand.BLOCKED, "access-denied", 3, 20, 61.9)

    patch = as_status(Report((IN_STEP, blocked), is_drained=False, at_ts=NOW_TS + 0.9), {})

    assert patch["replication"] == {
        "pendingFiles": 3,
        "pendingBytes": 20,
        "oldestPendingSeconds": 61,
        "reportedAt": NOW,
        "lastUpload": "2027-01-15T07:59:48Z",
    }
    assert [(one["type"], one["status"]) for one in patch["conditions"]] == [
        ("Synced", "False"),
        ("Lagging", "False"),
        ("Blocked", "True"),
    ]
    for condition in patch["conditions"]:
        assert condition["reason"] == "AccessDenied"
        assert condition["message"] == "blocked: w (access-denied)"
        assert condition["lastTransitionTime"] == NOW
    assert "workloads" not in patch


def test_drained_has_its_time_and_a_later_report_leaves_it():
    """`drainedAt` is written by a drained report alone; others say nothing of it, so that a merge keeps it."""
    assert as_status(Report((), is_drained=True, at_ts=NOW_TS), {})["replication"]["drainedAt"] == NOW
    assert "drainedAt" not in as_status(Report((), is_drained=False, at_ts=NOW_TS), {})["replication"]
    assert "lastUpload" not in as_status(Report((), is_drained=False, at_ts=NOW_TS), {})["replication"]


def test_transition_time_moves_with_the_status_alone():
    """The same status keeps its time, another one gets the report's; a condition of others stays as it is."""
    theirs = {"type": "StorageReady", "status": "True", "reason": "Bound", "lastTransitionTime": BEFORE}
    old = as_status(Report((IN_STEP,), is_drained=False, at_ts=NOW_TS - 3600), {"conditions": [theirs]})["conditions"]
    lagging = Standing("os-stats", Stand.LAGGING, "", 1)

    new = as_status(Report((lagging,), is_drained=False, at_ts=NOW_TS), {"conditions": old})["conditions"]

    assert new[0] == theirs
    times = {one["type"]: one["lastTransitionTime"] for one in new}
    assert times == {"StorageReady": BEFORE, "Synced": NOW, "Lagging": NOW, "Blocked": BEFORE}


def test_lists_without_a_change_are_left_out():
    """A heartbeat that says the same again patches numbers alone, and no list that somebody else may be writing."""
    workloads = [{"name": "os-stats", "phase": "Running", "lastDataUpload": "2027-01-15T07:59:48Z"}]
    conditions = as_status(Report((IN_STEP,), is_drained=False, at_ts=NOW_TS), {})["conditions"]

    patch = as_status(
        Report((IN_STEP,), is_drained=False, at_ts=NOW_TS + 60), {"workloads": workloads, "conditions": conditions}
    )

    assert patch.keys() == {"replication"}


def test_uploads_go_to_the_workloads_that_are_there():
    """Flotta's entries keep their other fields; one that it does not have is not made."""
    previous = {"workloads": [{"name": "other", "phase": "Running"}, {"name": "os-stats", "phase": "Deploying"}]}
    stranger = Standing("stranger", Stand.SYNCED, last_upload_ts=NOW_TS)

    patch = as_status(Report((IN_STEP, stranger), is_drained=False, at_ts=NOW_TS), previous)

    assert patch["workloads"] == [
        {"name": "other", "phase": "Running"},
        {"name": "os-stats", "phase": "Deploying", "lastDataUpload": "2027-01-15T07:59:48Z"},
    ]


def test_times_beyond_the_calendar_are_its_last_second():
    """A hostile time makes a wrong status and no crash."""
    assert (
        as_status(Report((), is_drained=False, at_ts=1e11), {})["replication"]["reportedAt"] == "5138-11-16T09:46:40Z"
    )


def test_many_workloads_are_counted_not_listed():
    """A condition's message stays short."""
    many = tuple(Standing(f"w{n}", Stand.LAGGING) for n in range(9))

    message = as_status(Report(many, is_drained=False, at_ts=NOW_TS), {})["conditions"][0]["message"]

    assert message == "lagging: w0, w1, w2, w3, w4 and 4 more"
