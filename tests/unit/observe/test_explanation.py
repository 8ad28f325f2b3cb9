"""The conclusion from what is known of one path, its JSON, and its text."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from replicator.model import Direction
from replicator.observe.explanation import (
    BlockView,
    Explanation,
    FileView,
    GateView,
    JobView,
    PlaceView,
    RowView,
    Verdict,
    concluded,
    from_json,
    to_json,
)
from replicator.observe.render_explanation import render_explanation

NOW_TS = 1_800_000_000.0
FILE = FileView(size=5, age_s=12)
ROW = RowView(size=5, modified_ts=NOW_TS - 60, etag="abc", is_verified=True, is_current=True)
STALE = dataclasses.replace(ROW, is_current=False)
CLOSED = GateView(has_writer=False, open_files="wait")
WRITTEN = GateView(has_writer=True, open_files="wait")
JOB = JobView(is_running=False, size=5, moved_bytes=0, attempts=0, next_attempt_s=0, waited_s=1)
FAILING = dataclasses.replace(
    JOB, attempts=3, next_attempt_s=30, reason="disk-full", message="no room", is_failing=True, fix="Make some."
)
BLOCK = BlockView("https://s3.example: away", "Check the network.", opens_s=20)


def place(direction: Direction = Direction.EGRESS, **known) -> PlaceView:
    plain = PlaceView("w/egress/sent", direction, "/export/out/a", "s3://bucket/sent/a", next_sweep_s=9)
    return concluded(dataclasses.replace(plain, **known))


@pytest.mark.parametrize(
    ("known", "verdict", "words"),
    [
        ({}, Verdict.UNKNOWN, "not known here"),
        ({"is_directory": True}, Verdict.UNKNOWN, "a directory"),
        ({"file": FILE, "row": ROW, "close_gate": CLOSED}, Verdict.IN_STEP, "in step"),
        ({"file": FILE, "row": ROW, "close_gate": WRITTEN}, Verdict.IN_STEP, "open for writing"),
        ({"file": FILE, "row": ROW, "block": BLOCK}, Verdict.IN_STEP, "in step"),
        ({"file": FILE, "row": ROW, "job": JOB}, Verdict.IN_STEP, "in step"),
        ({"file": FILE, "row": ROW, "job": FAILING}, Verdict.FAILING, "no room"),
        ({"row": STALE}, Verdict.IN_STEP, "stays in the bucket"),
        ({"row": STALE, "block": BLOCK}, Verdict.FAILING, "away"),
        ({"job": FAILING}, Verdict.FAILING, "no room"),
        ({"file": FILE, "rule": "exclude *.tmp"}, Verdict.LEFT_OUT, "exclude *.tmp"),
        ({"file": FILE, "row": ROW, "rule": "exclude a", "block": BLOCK}, Verdict.LEFT_OUT, "exclude a"),
        ({"obstacle": "it may not be read"}, Verdict.FAILING, "may not be read"),
        ({"file": FILE, "block": BLOCK, "job": FAILING}, Verdict.FAILING, "away; asked again in 20 s"),
        ({"file": FILE, "job": FAILING, "close_gate": WRITTEN}, Verdict.FAILING, "no room; attempt 4 in 30 s"),
        ({"file": FILE, "close_gate": WRITTEN}, Verdict.WAITING, "waits for its writer"),
        (
            {"file": FILE, "close_gate": GateView(has_writer=True, open_files="snapshot", ceiling_left_s=40)},
            Verdict.WAITING,
            "sent as it is in 40 s",
        ),
        (
            {"file": FILE, "job": JOB, "close_gate": GateView(True, "snapshot", ceiling_left_s=0.0)},
            Verdict.WAITING,
            "its turn",
        ),
        (
            {"file": FILE, "close_gate": GateView(has_writer=None, open_files="wait", quiet_left_s=0.31)},
            Verdict.WAITING,
            "quiet for 0.3 s more",
        ),
        ({"file": FILE, "close_gate": CLOSED, "barrier": "it is sent last"}, Verdict.WAITING, "it is sent last"),
        (
            {"file": FILE, "job": dataclasses.replace(JOB, is_running=True, size=4096, moved_bytes=1024)},
            Verdict.WAITING,
            "is being sent now: 1 KiB of 4 KiB",
        ),
        ({"file": FILE, "job": dataclasses.replace(JOB, next_attempt_s=3)}, Verdict.WAITING, "is sent in 3 s"),
        ({"file": FILE, "row": STALE, "job": JOB}, Verdict.WAITING, "is sent as soon as it is its turn"),
        ({"file": FILE, "close_gate": CLOSED}, Verdict.WAITING, "noticed; the next look at everything is in 9 s"),
    ],
)
def test_conclusion_about_a_file_to_be_sent(known, verdict, words):
    """Of all that is known the gravest reason is told, and what is in step is in step whatever stands still."""
    told = place(**known)

    assert told.verdict is verdict
    assert words in told.summary


@pytest.mark.parametrize(
    ("known", "verdict", "words"),
    [
        ({}, Verdict.UNKNOWN, "no object of that name was seen; the next look"),
        ({"file": FILE}, Verdict.UNKNOWN, "left alone"),
        ({"file": FILE, "row": ROW}, Verdict.IN_STEP, "in step with the object"),
        ({"file": FILE, "row": STALE}, Verdict.IN_STEP, "edited on the device"),
        ({"row": STALE}, Verdict.IN_STEP, "removed from the device"),
        ({"row": STALE, "restores": True}, Verdict.WAITING, "is fetched once"),
        ({"job": JOB}, Verdict.WAITING, "is fetched as soon"),
        ({"file": FILE, "row": ROW, "job": FAILING}, Verdict.FAILING, "no room"),
        ({"file": FILE, "row": ROW, "readers_wait": "b is missing"}, Verdict.WAITING, "b is missing"),
        ({"obstacle": "is a directory", "is_directory": True, "row": STALE}, Verdict.FAILING, "is a directory"),
    ],
)
def test_conclusion_about_a_file_to_be_fetched(known, verdict, words):
    """The object owns the truth: an edit stands, a removal is mended where asked, a stray is let be."""
    told = place(Direction.INGRESS, **known)

    assert told.verdict is verdict
    assert words in told.summary


def test_fix_comes_from_what_stands_in_the_way():
    """The next step is that of the block or the error."""
    assert place(file=FILE, block=BLOCK).fix == "Check the network."
    assert place(file=FILE, job=FAILING).fix == "Make some."


def test_verdict_of_all_is_the_gravest():
    """In step in one target and failing in the other is failing; nowhere is unknown."""
    good, bad = place(file=FILE, row=ROW), place(file=FILE, job=FAILING)

    assert Explanation("a", NOW_TS, (bad, good)).verdict is Verdict.FAILING
    assert Explanation("a", NOW_TS, (good,)).verdict is Verdict.IN_STEP
    assert Explanation("a", NOW_TS).verdict is Verdict.UNKNOWN


def test_json_gives_back_what_it_was_given(hostile_names):
    """Every field, and any name."""
    places = tuple(
        place(file=FILE, row=ROW, close_gate=WRITTEN, job=FAILING, block=BLOCK, path=f"/export/out/{name}")
        for name in hostile_names
    )
    told = Explanation("asked\n", NOW_TS, places)

    assert from_json(json.loads(json.dumps(to_json(told)))) == told


@pytest.fixture
def show():
    def render(*places: PlaceView, asked="a", encoding="utf-8") -> str:
        raw = io.BytesIO()
        out = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="")
        Console(file=out, width=200).print(render_explanation(Explanation(asked, NOW_TS, places)))
        out.flush()
        return raw.getvalue().decode(encoding)

    return render


def test_text_names_mapping_conclusion_and_facts(show):
    """The mapping, the sentence, the next step, then a line a fact."""
    lines = show(place(file=FILE, row=STALE, close_gate=CLOSED, job=FAILING)).splitlines()

    assert lines == [
        "/export/out/a -> s3://bucket/sent/a",
        "  failing: disk-full: no room; attempt 4 in 30 s",
        "  next step: Make some.",
        "  target: w/egress/sent",
        "  on the device: 5 B, changed 12 s ago",
        "  last in step: another version, 5 B of 2027-01-15 07:59:00Z, ETag abc, verified",
        "  close gate: nobody has it open for writing, says the kernel; open_files is wait",
        "  job: attempt 4 at 2027-01-15 08:00:30Z after disk-full",
    ]


def test_text_says_once_what_the_conclusion_says(show):
    """Why a target is blocked, what a barrier waits for; another error of the job is told beside it."""
    blocked = show(place(file=FILE, job=FAILING, block=BlockView("no bucket", "Make it.")))
    barrier = show(place(file=FILE, close_gate=CLOSED, barrier="it is sent last"))

    assert blocked.count("no bucket") == 1
    assert "after disk-full: no room" in blocked
    assert barrier.count("it is sent last") == 1


def test_text_says_why_a_version_is_not_verified_and_how_the_gate_decides(show):
    """Where the kernel does not tell, that is told; an impossible time is no crash."""
    row = dataclasses.replace(ROW, is_verified=False, modified_ts=-9.2e9 * 1000)
    text = show(place(file=FILE, row=row, close_gate=GateView(None, "wait", 0.5), job=JOB))

    assert "not verified: the store's ETag is no checksum of the bytes" in text
    assert "the kernel does not tell who writes it, so quiet time decides, quiet for 0.5 s more" in text
    assert "an impossible time" in text


def test_text_of_nothing_says_where_to_look(show):
    """A path that no target takes is answered with the command that lists the mappings."""
    text = show(asked="/elsewhere\x1b[31m")

    assert "not known here" in text
    assert "replicator targets" in text
    assert "\x1b" not in text


def test_text_is_safe_with_any_name_and_encoding(show, hostile_names):
    """No name reaches the terminal as it is, in UTF-8 and in ASCII."""
    for name in hostile_names:
        for encoding in ("utf-8", "ascii"):
            text = show(place(file=FILE, job=dataclasses.replace(FAILING, message=name), path=name), encoding=encoding)
            assert all(line.isprintable() for line in text.split("\n"))
