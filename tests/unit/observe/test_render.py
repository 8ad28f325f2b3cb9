"""The terminal's text of a status."""

import dataclasses
import io
import itertools

import pytest
from rich.console import Console

from replicator.model import Direction
from replicator.observe.render import render_status
from replicator.observe.status import (
    FailingFile,
    GenerationView,
    LinkView,
    MovingFile,
    SkippedFile,
    State,
    WatcherView,
    verdict,
)


@pytest.fixture
def show():
    """The text as it comes out of a pipe or a terminal of this encoding."""

    def render(snapshot, *, encoding="utf-8", is_terminal=False, width=120):
        raw = io.BytesIO()
        out = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="")
        console = Console(
            file=out, width=width, force_terminal=is_terminal, color_system="standard" if is_terminal else None
        )
        console.print(render_status(snapshot))
        out.flush()
        return raw.getvalue().decode(encoding)

    return render


def test_first_line_is_the_verdict(show, snapshot, view):
    """The answer stands first."""
    now = snapshot(view())

    assert show(now).splitlines()[0] == verdict(now)


def test_table_has_a_line_for_each_target(show, snapshot, view):
    """State, lag, pending, failing and last success of each."""
    late = view(
        "logs",
        state=State.FAILING,
        pending_files=3,
        pending_bytes=2048,
        oldest_pending_s=190,
        failing_by_reason={"throttled": 2},
    )

    lines = show(snapshot(view(), late, view("in", Direction.INGRESS, last_success_ts=None))).splitlines()

    cells = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("os-stats/") and "  " in line}
    assert cells["os-stats/egress/stats"] == ["in-step", "-", "0", "0", "12", "s", "ago"]
    assert cells["os-stats/egress/logs"] == ["failing", "3", "min", "3", "(2", "KiB)", "2", "12", "s", "ago"]
    assert cells["os-stats/ingress/in"] == ["in-step", "-", "0", "0", "never"]


def test_large_files_on_their_way_show_how_far_they_are(show, snapshot, view):
    """A file that takes long has a line with its progress; one that is gone at once has none."""
    moving = (MovingFile("big.bin", 40 * 2**20, 10 * 2**20), MovingFile("small.txt", 100))

    text = show(snapshot(view(state=State.BEHIND, pending_files=2, in_flight=moving)))

    assert "  moving: big.bin: 10 MiB of 40 MiB" in text
    assert "small.txt" not in text


def test_generation_that_readers_see_is_told(show, snapshot, view):
    """Its id and its age; a target that waits for its first has none to show."""
    published = view("in", Direction.INGRESS, generation=GenerationView("20260101T000000Z-0", since_ts=0.0))
    waiting = view("new", Direction.INGRESS, generation=GenerationView(waits="of 2 files 1 is not here yet"))

    lines = show(snapshot(published, waiting, now_ts=60.0)).splitlines()

    assert "  readers see generation 20260101T000000Z-0, published 1 min ago" in lines
    assert sum("readers see" in line for line in lines) == 1


def test_caps_and_data_budget_are_told_where_there_are_any(show, snapshot, view):
    """Why it is slow, or stands still, is no riddle; an unlimited link needs no line."""
    link = LinkView(
        up_limit=2**20, budget_bytes=2**30, budget_used_bytes=2**30, budget_relief_ts=snapshot().now_ts + 60
    )

    assert "link: " not in show(snapshot(view()))
    text = show(snapshot(view(), link=link))
    assert "link: up at most 1 MiB/s, 1 GiB of 1 GiB data budget used, nothing moves for 1 min" in text


def test_every_reason_to_act_is_told(show, snapshot, view, config):
    """Failing files with reason and next attempt, what is left out, blocked, degraded, refused or not ready."""
    bad = view(
        state=State.BLOCKED,
        reason="the export directory is missing",
        fix="put it back; nothing is deleted meanwhile",
        failing=(FailingFile("a/b.txt", "access-denied", "the store refuses", 4, 30.0, 190.0),),
        failing_by_reason={"access-denied": 9},
        skipped=(SkippedFile("linked", "hard-link"),),
        skipped_by_reason={"hard-link": 2},
        blocked_bytes=1 << 20,
        quota_bytes=1 << 21,
        watcher=WatcherView(source="inotify", watches=0, degraded="the watch limit is reached"),
    )
    invalid = dataclasses.replace(config, valid=False, error="a.yaml: spec: unknown key")

    text = show(snapshot(bad, config=invalid, is_ready=False, not_ready=("one thing", "another")))

    for sentence in (
        "blocked: the export directory is missing",
        "next step: put it back; nothing is deleted meanwhile",
        "failing: a/b.txt: access-denied: the store refuses",
        "4 attempts, next in 30 s, pending for 3 min",
        "8 more failing; in all 9 access-denied",
        "left out by rule: 2 hard-link, such as linked",
        "does not fit on the device: 1 MiB, 1 GiB free, quota 2 MiB",
        "events (inotify) are incomplete, sweeps go on: the watch limit is reached",
        "configuration: env, generation 1, applied 5 min ago",
        "refused: a.yaml: spec: unknown key",
        "from REPLICATOR_EGRESS",
        "not ready: one thing; another",
        "replicator 1.2.3, up 6 min, 2 of 16 transfers, 5 queued",
    ):
        assert sentence in text


def test_target_in_step_has_no_details(show, snapshot, view):
    """What is well takes one line."""
    assert show(snapshot(view())).count("os-stats/egress/stats") == 1


def test_pipe_gets_plain_text_and_a_terminal_colours(show, snapshot, view):
    """No escape sequence in a file."""
    assert "\x1b" not in show(snapshot(view()))
    assert "\x1b[" in show(snapshot(view()), is_terminal=True)


@pytest.mark.parametrize("output", list(itertools.product(["utf-8", "ascii", "latin-1"], [40, 200])))
def test_hostile_names_are_shown_and_break_nothing(show, snapshot, view, hostile_names, output):
    """Any name prints in any encoding: no control sequence, no markup, no exception, nothing cut off."""
    encoding, width = output
    files = tuple(FailingFile(name, "refused", name, 1, 0, 0) for name in hostile_names)
    targets = [view(name, state=State.BLOCKED, reason=name, failing=files) for name in hostile_names]

    text = show(snapshot(*targets), encoding=encoding, width=width)

    assert all(line.isprintable() for line in text.split("\n"))
    assert text.isascii() or encoding == "utf-8"
    assert "[bold]markup[/bold][/]" in "".join(text.split())


def test_own_text_is_ascii(show, snapshot, view):
    """A serial console shows every character of a status without strange names."""
    late = view("a-very-long-target-name" * 5, state=State.BEHIND, pending_files=1)

    assert show(snapshot(view(), late), width=60).isascii()
