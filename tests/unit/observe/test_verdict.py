"""The one sentence: is my data safe, and if not, why."""

import dataclasses

import pytest

from replicator.model import Direction
from replicator.observe.status import ConfigView, MovingFile, State, readiness, verdict

MIB = 1024**2


def test_everything_in_step(snapshot, view):
    """Numbers of targets and files, and nothing else."""
    told = verdict(snapshot(view("a"), view("b"), view("c", Direction.INGRESS)))

    assert told == "in step: 3 targets, 120 files"


def test_failing_files_say_how_many_how_long_and_why(snapshot, view):
    """The number, the volume, the age, the target and the reason."""
    late = view(
        state=State.FAILING,
        pending_files=4,
        pending_bytes=12 * MIB,
        oldest_pending_s=190,
        failing_by_reason={"throttled": 1, "access-denied": 3},
    )

    assert verdict(snapshot(late, view("ok"))) == (
        "not safe: 4 files (12 MiB) are not in the bucket, the oldest for 3 min: "
        "os-stats/egress/stats has files that fail: 3 access-denied, 1 throttled"
    )


def test_one_file_on_its_way(snapshot, view):
    """Also a file that is being sent now is not safe yet, and the sentence says that it moves."""
    late = view(
        state=State.BEHIND, pending_files=1, pending_bytes=10, oldest_pending_s=0.2, in_flight=(MovingFile("a.txt"),)
    )

    assert verdict(snapshot(late)) == (
        "not safe: 1 file (10 B) is not in the bucket, the oldest for under 1 s: "
        "os-stats/egress/stats is moving them now"
    )


def test_blocked_target_makes_the_number_a_floor(snapshot, view):
    """What cannot be read may hold more than was last seen: never a number that is too good."""
    blocked = view(
        state=State.BLOCKED, reason="the export directory is missing", pending_files=2, oldest_pending_s=7500
    )
    behind = view("logs", state=State.BEHIND, pending_files=1, oldest_pending_s=9000)

    assert verdict(snapshot(behind, blocked)) == (
        "not safe: at least 3 files (0 B) are not in the bucket, the oldest for 2 h 30 min: "
        "os-stats/egress/stats is blocked: the export directory is missing (and 1 more target)"
    )


@pytest.mark.parametrize("state", [State.BLOCKED, State.FAILING, State.BEHIND])
def test_egress_that_is_not_in_step_is_never_called_safe(snapshot, view, state):
    """A state that is not in step counts, even when no pending file is known."""
    told = verdict(snapshot(view("ok"), view(state=state)))

    assert told.startswith("not safe: os-stats/egress/stats is ")


def test_pending_file_outweighs_a_good_state(snapshot, view):
    """A target that claims to be in step while a file is pending is not."""
    assert verdict(snapshot(view(pending_files=1))).startswith("not safe: 1 file")


def test_before_the_first_comparison_nothing_is_claimed(snapshot, view):
    """Unknown is not safe, and not unsafe either."""
    told = verdict(snapshot(view("a"), view("b", state=State.STARTING, last_sweep_ts=None)))

    assert told == "not known yet: 1 of 2 targets not compared with the bucket so far"


def test_ingress_alone_is_behind_not_unsafe(snapshot, view):
    """What waits in the bucket is not lost: the device is behind."""
    late = view("in", Direction.INGRESS, state=State.BEHIND, pending_files=3, pending_bytes=MIB, oldest_pending_s=20)

    assert verdict(snapshot(view(), late)) == (
        "behind: 3 files (1 MiB) are not on the device, the oldest for 20 s: os-stats/ingress/in is about to move them"
    )


def test_gravest_finding_comes_first(snapshot, view):
    """First what may be lost, then what is not known, then what is late."""
    told = verdict(
        snapshot(
            view("in", Direction.INGRESS, state=State.BEHIND, pending_files=1),
            view("new", state=State.STARTING),
            view("out", state=State.BEHIND, pending_files=1),
        )
    )

    assert [told.index(head) for head in ("not safe:", "not known yet:", "behind:")] == sorted(
        told.index(head) for head in ("not safe:", "not known yet:", "behind:")
    )
    assert told.startswith("not safe:")


def test_no_targets(snapshot):
    """An empty configuration is not reported as success."""
    assert verdict(snapshot()) == "nothing to keep in step: no targets are configured"


def test_files_left_out_and_refused_configuration_and_stopping_are_told(snapshot, view, config):
    """In step within the rules and the configuration in force: the sentence says which."""
    invalid = dataclasses.replace(config, valid=False, error="a.yaml: no")
    left_out = view(skipped_by_reason={"hard-link": 2, "unsafe-name": 1})

    assert verdict(snapshot(left_out, config=invalid, is_draining=True)) == (
        "in step: 1 target, 40 files; 3 files left out by rule (2 hard-link, 1 unsafe-name); "
        "the new configuration is invalid, the last good one is in force; stopping"
    )


def test_verdict_is_one_printable_line(snapshot, view, hostile_names):
    """Whatever a reason holds, the answer stays one line that a terminal can print."""
    for name in hostile_names:
        told = verdict(snapshot(view(name, state=State.BLOCKED, reason=name)))

        assert told.isprintable()
        told.encode("utf-8")


def test_before_the_first_configuration_nothing_is_claimed(snapshot):
    """Right after the start there are no targets: that is neither nothing to do nor a refused configuration."""
    new = ConfigView(source="env", generation=0, valid=False)

    assert verdict(snapshot(config=new)) == "not known yet: no configuration is in force so far"
    assert readiness((), new, is_draining=False, now_ts=0, max_age_s=60) == ("no configuration is in force yet",)
