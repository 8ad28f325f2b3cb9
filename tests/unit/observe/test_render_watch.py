"""What `status --watch` shows: a picture that fits the terminal, how old it is, and a line for each change."""

import dataclasses
import io

import pytest
from rich.console import Console

from replicator.observe.paces import Paces
from replicator.observe.render_watch import Picture, changes
from replicator.observe.slope import Slope
from replicator.observe.status import MovingFile, State

MIB = 2**20


@pytest.fixture
def show():
    def render(picture, *, width=100, height=24) -> list[str]:
        out = io.StringIO()
        console = Console(file=out, width=width, height=height)
        console.print(picture)
        return out.getvalue().splitlines()

    return render


@pytest.fixture
def picture(snapshot, view):
    def build(**changes) -> Picture:
        whole = Picture(address="127.0.0.1:9477", snapshot=snapshot(view()), paces=Paces())
        return dataclasses.replace(whole, **changes)

    return build


def test_fresh_status_stands_below_its_address(show, picture):
    """Who tells it and when, then the verdict."""
    lines = show(picture())

    assert lines[0] == "replicator at 127.0.0.1:9477, as of under 1 s ago; Ctrl-C ends"
    assert lines[2].startswith("in step: 1 target")


def test_stale_status_says_how_old_it_is(show, picture):
    """What is shown is not passed off as new."""
    assert show(picture(is_late=True, age_s=12.5))[0] == (
        "replicator at 127.0.0.1:9477 DOES NOT ANSWER; what stands below is of 12 s ago"
    )


def test_nobody_there_yet_says_why(show, picture):
    """Without any status the reason is all there is."""
    lines = show(picture(snapshot=None, trouble="nobody listens"))

    assert lines[0] == "replicator at 127.0.0.1:9477: nobody listens"


def test_picture_fits_and_says_what_is_left_out(show, picture, snapshot, view):
    """On a small terminal the last line counts what does not fit; no line is longer than the terminal."""
    many = snapshot(*(view(f"target-{number}") for number in range(30)))

    lines = show(picture(snapshot=many), width=60, height=12)

    assert len(lines) == 12
    assert max(map(len, lines)) <= 60
    assert lines[-1].endswith("more lines; `replicator status` prints them all")


def test_moving_files_have_bar_rate_and_time_left(show, picture, snapshot, view):
    """From two statuses follow the rate and what is left; a file of which one is known has no rate."""
    paces, now = Paces(), snapshot()
    for second, moved in ((0, 10), (2, 14)):
        files = (MovingFile("big.bin", 40 * MIB, moved * MIB), *([MovingFile("new.bin", 9 * MIB)] if second else []))
        late = view(state=State.BEHIND, pending_files=2, pending_bytes=49 * MIB, in_flight=files)
        now = snapshot(late, now_ts=1000.0 + second)
        paces.take(now)

    text = "\n".join(show(picture(snapshot=now, paces=paces)))

    assert "  35 MiB to go, 2 MiB/s, 17 s left" in text
    assert "  moving: [#######.............]  35 % big.bin: 14 MiB of 40 MiB, 2 MiB/s, 13 s left" in text
    assert "  moving: [....................]   0 % new.bin: 0 B of 9 MiB\n" in text


def test_names_drive_no_terminal(show, picture, snapshot, view):
    """An escape sequence in a name or in the address is shown, not obeyed."""
    moving = (MovingFile("a\x1b[2Jb", 10 * MIB),)

    text = "\n".join(show(picture(address="a\x1bb", snapshot=snapshot(view(in_flight=moving)))))

    assert "\x1b" not in text
    assert r"a\x1b[2Jb" in text


def test_change_is_a_line_and_no_change_is_none(snapshot, view):
    """State, numbers and reasons count as changes; ages that merely go on do not."""
    late = view(state=State.BEHIND, pending_files=2, pending_bytes=2048, oldest_pending_s=3)
    before, after = snapshot(late), snapshot(dataclasses.replace(late, oldest_pending_s=4))

    assert list(changes(None, before)) == [
        "2027-01-15T08:00:00Z os-stats/egress/stats is behind, 2 files (2 KiB) pending"
    ]
    assert list(changes(before, after)) == []
    assert [line.split(" ", 1)[1] for line in changes(before, snapshot(view(), view("new")))] == [
        "os-stats/egress/stats is in-step",
        "os-stats/egress/new is in-step",
    ]


def test_failure_and_target_that_ended_are_lines(snapshot, view):
    """Why something fails stands in its line; a target that is gone is told once."""
    failing = view(state=State.FAILING, pending_files=1, failing_by_reason={"access-denied": 1})
    blocked = view("logs", state=State.BLOCKED, reason="the bucket is missing")

    first = list(changes(None, snapshot(failing, blocked)))

    assert first[0].endswith("is failing, 1 file (0 B) pending, failing: 1 access-denied")
    assert first[1].endswith("is blocked, the bucket is missing")
    assert [line.split(" ", 1)[1] for line in changes(snapshot(failing, blocked), snapshot(failing))] == [
        "os-stats/egress/logs is no longer mapped"
    ]
    assert [line.split(" ", 1)[1] for line in changes(None, snapshot())] == ["no targets are configured"]


def test_slope_is_of_the_last_seconds_only():
    """What was long ago does not count, and two readings at one moment tell nothing."""
    slope = Slope()
    slope.add(0, at_s=100)
    first = slope.per_s
    assert first is None
    slope.add(1000, at_s=110)
    assert slope.per_s == 100
    slope.add(1000, at_s=120)
    assert slope.per_s == 0
    slope.add(900, at_s=125)
    assert slope.per_s == -20


def test_clock_that_is_set_back_gives_no_rate():
    """A restarted replicator, or a clock that is set, makes no nonsense of a rate."""
    slope = Slope()
    slope.add(5, at_s=100)
    slope.add(7, at_s=90)

    assert slope.per_s is None
