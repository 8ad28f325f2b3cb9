"""The terminal's text of an explanation: for each place the conclusion and the next step, then what they rest on.

Plain lines, as in `render`: names are escaped, and their letters too where the output's encoding is not UTF. Never:
markup from names, looking anything up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from replicator.model import Direction
from replicator.observe import words
from replicator.observe.explanation import Explanation, GateView, JobView, PlaceView, RowView, Verdict

_STYLES = {
    Verdict.IN_STEP: "green",
    Verdict.LEFT_OUT: "dim",
    Verdict.UNKNOWN: "yellow",
    Verdict.WAITING: "yellow",
    Verdict.FAILING: "red",
}


def render_explanation(explanation: Explanation) -> RenderableType:
    """What `replicator explain` prints."""
    return _ExplanationText(explanation)


@dataclass(frozen=True, slots=True)
class _ExplanationText:
    explanation: Explanation

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        def say(text: str) -> str:
            return words.escape(text, ascii_only=options.ascii_only)

        told = self.explanation
        if not told.places:
            yield Text(say(f"{told.asked}: not known here, no target takes such a path or key"), "bold")
            yield Text("  next step: `replicator targets` lists what is mapped")
        for number, place in enumerate(told.places):
            if number:
                yield Text("")
            arrow = "->" if place.direction is Direction.EGRESS else "<-"
            yield Text(say(f"{place.path} {arrow} {place.url}"), "bold")
            yield Text(say(f"  {place.summary}"), _STYLES[place.verdict])
            yield from (Text(say(f"  {name}: {fact}")) for name, fact in _facts(place, told.now_ts) if fact)


def _facts(place: PlaceView, now_ts: float) -> Iterator[tuple[str, str]]:
    yield "next step", place.fix
    yield "target", place.target
    if place.file:
        yield "on the device", f"{words.size(place.file.size)}, changed {words.age(place.file.age_s)} ago"
    else:
        yield "on the device", "no file that can be used" if place.rule or place.obstacle else "no file"
    yield "last in step", _row(place.row)
    yield "close gate", _close_gate(place.close_gate)
    # What the conclusion says already is not said again.
    yield "sent last", "" if place.barrier in place.summary else place.barrier
    yield "job", _job(place.job, now_ts, place.summary)
    yield "target is blocked", place.block.message if place.block and place.block.message not in place.summary else ""


def _row(row: RowView | None) -> str:
    if row is None:
        return "never"
    proof = "verified" if row.is_verified else "not verified: the store's ETag is no checksum of the bytes"
    still = "the version on the device" if row.is_current else "another version"
    return f"{still}, {words.size(row.size)} of {_time(row.modified_ts)}, ETag {row.etag}, {proof}"


def _close_gate(gate: GateView | None) -> str:
    if gate is None:
        return ""
    told = {
        True: "a program has it open for writing, says the kernel",
        False: "nobody has it open for writing, says the kernel",
        None: "the kernel does not tell who writes it, so quiet time decides",
    }[gate.has_writer]
    left = f", quiet for {gate.quiet_left_s:.1f} s more" if gate.quiet_left_s else ""
    ceiling = "" if gate.ceiling_left_s is None else f", sent open in {words.age(gate.ceiling_left_s)}"
    return f"{told}{left}; open_files is {gate.open_files}{ceiling if gate.has_writer else ''}"


def _job(job: JobView | None, now_ts: float, summary: str) -> str:
    if job is None:
        return ""
    message = "" if job.message in summary else f": {job.message}"
    because = f" after {job.reason}{message}" if job.message else ""
    if job.is_running:
        progress = f"{words.size(job.moved_bytes)} of {words.size(job.size)}"
        return f"attempt {job.attempts + 1} runs, {progress}{because}"
    return f"attempt {job.attempts + 1} at {_time(now_ts + job.next_attempt_s)}{because}"


def _time(ts: float) -> str:
    try:
        return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):  # a file's time can be any 64 bits
        return "an impossible time"
