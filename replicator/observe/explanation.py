"""Where one path stands and why: the values behind /explain and `replicator explain`, and the conclusion from them.

Owns: the JSON contract, the order in which reasons count, the sentence. Never: I/O, a clock (ages and waits come in
as seconds), looking anything up: `replicator.explain` fills a `PlaceView` in.
In JSON every string is in the escaped form of `replicator.observe.words`.
"""

import dataclasses
import enum
import functools
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from replicator.model import Direction
from replicator.observe import words
from replicator.observe.status import Text

QUERY_BYTES = 4096
"""What a question may have, percent-encoded: the longest key of plain letters three times over."""


class Verdict(enum.StrEnum):
    """Where a path stands in one target, from the best to the gravest."""

    IN_STEP = "in-step"
    LEFT_OUT = "left-out"
    """A rule leaves it out; no retry will bring it in."""
    UNKNOWN = "unknown"
    """Nothing of this name is known here."""
    WAITING = "waiting"
    """It moves by itself, once what the summary names is over."""
    FAILING = "failing"
    """Something is in its way; `fix` says what to do, where a person has to."""


@dataclass(frozen=True, slots=True)
class FileView:
    """What is on the device."""

    size: int
    age_s: float
    """Since content or attributes last changed."""


@dataclass(frozen=True, slots=True)
class RowView:
    """The version that both sides held when they were last in step."""

    size: int
    modified_ts: float
    etag: Text
    is_verified: bool
    """The store, or we, confirmed these very bytes. Else the store's ETag is no checksum of them."""
    is_current: bool
    """Whether the device still has that version."""


@dataclass(frozen=True, slots=True)
class GateView:
    """The close gate of egress: whether somebody may still be writing the file."""

    has_writer: bool | None
    """By the kernel's lease; None where the kernel does not tell and quiet time decides."""
    open_files: Text
    """The policy: `wait` for the writer, or `snapshot` after the ceiling."""
    quiet_left_s: float = 0.0
    """How long it has to be quiet yet, where the kernel does not tell."""
    ceiling_left_s: float | None = None
    """With `snapshot`: how long its writer is waited for yet. None with `wait`."""


@dataclass(frozen=True, slots=True)
class JobView:
    """What is to be done about the path. `reason` and `message` are of the last attempt, '' when it did not fail."""

    is_running: bool
    size: int
    moved_bytes: int
    attempts: int
    """Those that failed; the next is one more."""
    next_attempt_s: float
    """Seconds from now; 0 when it is due."""
    waited_s: float
    """Since the change was made, as far as known."""
    reason: Text = ""
    message: Text = ""
    is_failing: bool = False
    """False also where only the file, or the object, was in motion."""
    fix: Text = ""


@dataclass(frozen=True, slots=True)
class BlockView:
    """Why the whole target stands still."""

    message: Text
    fix: Text
    opens_s: float | None = None
    """Seconds until a closed endpoint is asked again; None where that is not what is waited for, or is under way."""


@dataclass(frozen=True, slots=True)
class PlaceView:
    """One path in one target. What is None or '' is not there, or does not apply."""

    target: Text
    direction: Direction
    path: Text
    url: Text
    rule: Text = ""
    """What leaves it out."""
    obstacle: Text = ""
    """What the device answers in place of a file that can be used."""
    is_directory: bool = False
    file: FileView | None = None
    row: RowView | None = None
    close_gate: GateView | None = None
    barrier: Text = ""
    """What a file that is sent last still waits for."""
    job: JobView | None = None
    block: BlockView | None = None
    next_sweep_s: float | None = None
    """Until everything is looked at again, at the latest; None before the first time."""
    restores: bool = False
    """Ingress: a file that was removed from the device comes back."""
    readers_wait: Text = ""
    """What keeps a newer set of files from its readers, where files become visible set by set."""
    late_look_s: float | None = None
    """Until the object is looked at again, for a request with another content may come in late; None for no reason."""
    verdict: Verdict = Verdict.UNKNOWN
    summary: Text = ""
    """One sentence without a full stop."""
    fix: Text = ""
    """The safe next step for a person; '' when none is needed."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every place that the question can mean, as it stands at one moment."""

    asked: Text
    now_ts: float
    places: tuple[PlaceView, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The gravest of all; unknown without any."""
        return max((place.verdict for place in self.places), key=list(Verdict).index, default=Verdict.UNKNOWN)


def concluded(place: PlaceView) -> PlaceView:
    """The place with verdict, summary and fix, which follow from the rest of it."""
    verdict, summary, fix = _conclusion(place)
    return dataclasses.replace(place, verdict=verdict, summary=summary, fix=fix)


_Conclusion = tuple[Verdict, str, str]


def _conclusion(place: PlaceView) -> _Conclusion:
    if place.rule:
        return Verdict.LEFT_OUT, f"left out by rule: {place.rule}", ""
    if place.is_directory and not (place.row or place.job):
        return Verdict.UNKNOWN, "a directory, and only files are replicated; ask for a file in it", ""
    if place.obstacle:
        return Verdict.FAILING, place.obstacle, ""
    return _of_egress(place) if place.direction is Direction.EGRESS else _of_ingress(place)


def _of_egress(place: PlaceView) -> _Conclusion:
    is_failing = place.job is not None and place.job.is_failing
    if place.row and place.row.is_current and not is_failing:
        writer = place.close_gate is not None and place.close_gate.has_writer
        open_now = ", and a program has it open for writing" if writer else ""
        return Verdict.IN_STEP, f"in step{open_now}{_late_look(place.late_look_s)}", ""
    if place.file is None and place.block and (place.row or place.job):
        return _blocked(place.block)
    if place.file is None and is_failing:
        return _pending(place)
    if place.file is None and place.row:
        return Verdict.IN_STEP, "gone from the device; what was sent stays in the bucket", ""
    if place.file is None:
        return Verdict.UNKNOWN, "not known here: there is no such file, and none was ever sent", ""
    return _pending(place)


def _of_ingress(place: PlaceView) -> _Conclusion:
    file, row = place.file, place.row
    if place.job:
        return _pending(place)
    if row is None:
        stray = "a file of the device for which no object is known; it is left alone"
        return Verdict.UNKNOWN, stray if file else f"not known here: no object of that name was seen{_next(place)}", ""
    if file is None and place.restores:
        return _pending(place)
    if file is None:
        return Verdict.IN_STEP, "removed from the device; it comes back when its object changes", ""
    if not row.is_current:
        return Verdict.IN_STEP, "edited on the device; the edit stands until the object changes, and is kept then", ""
    if place.readers_wait:
        fix = "Complete the set in the bucket, its manifest last"
        return Verdict.WAITING, f"on the device, but not in the set that readers see: {place.readers_wait}", fix
    return Verdict.IN_STEP, "in step with the object as it was last seen", ""


def _pending(place: PlaceView) -> _Conclusion:
    """Of a path that is known to differ, the gravest reason first."""
    job = place.job
    if place.block:
        return _blocked(place.block)
    if job and job.is_failing:
        when = f"attempt {job.attempts + 1} {_in(job.next_attempt_s)}"
        return Verdict.FAILING, f"failing: {job.reason}: {job.message}; {when}", job.fix
    if waits := _writer(place.close_gate) or place.barrier:
        return Verdict.WAITING, waits, ""
    deed = "sent" if place.direction is Direction.EGRESS else "fetched"
    if job and job.is_running:
        done = f": {words.size(job.moved_bytes)} of {words.size(job.size)}" if job.moved_bytes else ""
        return Verdict.WAITING, f"is being {deed} now{done}", ""
    if job and job.next_attempt_s > 0:
        because = f", after {job.reason}: {job.message}" if job.message else ""
        return Verdict.WAITING, f"is {deed} {_in(job.next_attempt_s)}{because}", ""
    if job:
        return Verdict.WAITING, f"is {deed} as soon as it is its turn", ""
    return Verdict.WAITING, f"is {deed} once it is noticed{_next(place)}", ""


def _blocked(block: BlockView) -> _Conclusion:
    again = "" if block.opens_s is None else f"; asked again {_in(block.opens_s)}"
    return Verdict.FAILING, f"blocked: {block.message}{again}", block.fix


def _writer(gate: GateView | None) -> str:
    if gate is None:
        return ""
    if gate.has_writer and gate.ceiling_left_s is None:
        return "waits for its writer: a program has it open for writing; it is sent once that closes it"
    if gate.has_writer and gate.ceiling_left_s:
        return f"waits for its writer, which has it open; it is sent as it is {_in(gate.ceiling_left_s)}"
    return f"waits until it has been quiet for {gate.quiet_left_s:.1f} s more" if gate.quiet_left_s else ""


def _next(place: PlaceView) -> str:
    return "" if place.next_sweep_s is None else f"; the next look at everything is {_in(place.next_sweep_s)}"


def _late_look(seconds: float | None) -> str:
    return "" if seconds is None else f"; looked at again {_in(seconds)}, for a lost request may come in late"


def _in(seconds: float) -> str:
    return f"in {words.age(seconds)}" if seconds >= 1 else "now"


@functools.cache
def _explanations() -> TypeAdapter[Explanation]:
    return TypeAdapter(Explanation)


def to_json(explanation: Explanation) -> dict[str, Any]:
    """Plain values for `json.dumps`: the field names above, every string escaped."""
    plain: dict[str, Any] = _explanations().dump_python(explanation, mode="json")
    return plain


def from_json(plain: object) -> Explanation:
    """The explanation that `to_json` was given; fields of a newer version are ignored. Raises ValueError."""
    return _explanations().validate_python(plain)
