"""What is pending and why: the values behind /status, `replicator status` and /readyz, and the one-line verdict.

Owns: the JSON contract, the rule when we are ready, the sentence that says whether the data is safe. Never: I/O,
a clock (times come in as seconds since the epoch), looking anything up: the supervisor fills in a `Snapshot`.
In JSON every string is in the escaped form of `replicator.observe.words`, so that any file name is safe to carry.
"""

import enum
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, TypeAdapter

from replicator.model import Direction
from replicator.observe import words

Text = Annotated[str, PlainSerializer(words.escape), AfterValidator(words.unescape)]
"""A string in memory, its escaped form in JSON."""


class State(enum.StrEnum):
    """Where a target stands, from its own point of view."""

    STARTING = "starting"
    """Not yet compared once: what is pending is not known."""
    IN_STEP = "in-step"
    BEHIND = "behind"
    """Something is pending, and nothing is known to stand in its way."""
    BLOCKED = "blocked"
    """Nothing moves until `fix` is done; `reason` says why."""
    FAILING = "failing"
    """At least one file does not get through; the others go on."""


@dataclass(frozen=True, slots=True)
class FailingFile:
    """A file whose last attempt failed. `reason` is the error's closed-set word, `message` is for people."""

    relpath: Text
    reason: Text
    message: Text
    attempts: int
    next_attempt_s: float
    """Seconds from now."""
    age_s: float
    """Seconds since the change that is pending was first seen."""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that a rule leaves out, and that no retry will bring in."""

    relpath: Text
    reason: Text


@dataclass(frozen=True, slots=True)
class MovingFile:
    """A file on its way. `moved_bytes` of its `size` have gone."""

    relpath: Text
    size: int = 0
    moved_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LinkView:
    """What the link may carry and carries, bytes a second each way; and the data budget, bytes."""

    up_limit: int | None = None
    """The cap in force; None is unlimited."""
    down_limit: int | None = None
    up_achieved: float | None = None
    """What one transfer achieves lately; None while not known."""
    down_achieved: float | None = None
    budget_bytes: int = 0
    """What may move in the budget's period; 0 is unlimited."""
    budget_used_bytes: int = 0
    budget_relief_ts: float | None = None
    """When a spent budget lets bytes move again; None while it does."""


@dataclass(frozen=True, slots=True)
class ThroughputView:
    """Bytes that arrived each way of late, in spans of `span_s` seconds from the oldest on; failed attempts too."""

    span_s: float = 10.0
    last_s: float = 0.0
    """So much of the last span is over."""
    up: tuple[int, ...] = ()
    """To the bucket. As long as `down`; both empty where nobody counts."""
    down: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WatcherView:
    """How changes are noticed. `degraded` is '' while events arrive, else one sentence; sweeps go on either way."""

    source: Text
    watches: int
    """Directories under watch."""
    degraded: Text = ""
    needed: int = 0
    """Directories that there are to watch, as far as is known."""
    is_proven: bool = False
    """An event that we made ourselves came back of late."""
    overflows: int = 0
    """How often the kernel threw events away; each had everything looked at."""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class GenerationView:
    """What readers of an ingress target see that publishes whole generations."""

    id: Text = ""
    """The one that `current` leads to; '' before the first."""
    since_ts: float | None = None
    """When it came into force."""
    waits: Text = ""
    """What keeps a newer one from it, one sentence; '' when nothing is known to be newer."""


@dataclass(frozen=True, slots=True)
class TargetView:
    """One target as it stands. Lists of files may be cut short; the counts beside them are whole."""

    id: Text
    workload: Text
    direction: Direction
    prefix: Text
    path: Text
    url: Text
    endpoint: Text
    origin: Text
    state: State
    reason: Text = ""
    """One sentence without a full stop; '' when there is nothing to say."""
    cause: Text = ""
    """Closed-set word for what blocks the target; '' when nothing does."""
    fix: Text = ""
    """The safe next step for a person; '' when none is needed."""
    pending_files: int = 0
    """Every file known to differ from its replica: waiting, in flight, failing and blocked ones alike."""
    pending_bytes: int = 0
    oldest_pending_s: float = 0.0
    """Age of the oldest pending change, 0 when nothing is pending."""
    in_flight: tuple[MovingFile, ...] = ()
    failing: tuple[FailingFile, ...] = ()
    failing_by_reason: Mapping[Text, int] = field(default_factory=dict)
    skipped: tuple[SkippedFile, ...] = ()
    skipped_by_reason: Mapping[Text, int] = field(default_factory=dict)
    last_success_ts: float | None = None
    """When a file was last moved or confirmed; None before the first."""
    last_sweep_ts: float | None = None
    """When the last complete comparison ended; None before the first."""
    last_sweep_s: float = 0.0
    sweep_interval_s: float = 0.0
    """Seconds between sweeps in force; longer than set while a sweep is dear and events prove to arrive."""
    journal_rows: int = 0
    """Files that both sides are known to hold; `journal_bytes` is their total size."""
    journal_bytes: int = 0
    late_writes: int = 0
    """Paths for which a request was never answered: in step, and looked at again, for it may come in late."""
    watcher: WatcherView | None = None
    """None for ingress, which has no events."""
    generation: GenerationView | None = None
    """None for targets whose files become visible one by one."""
    free_bytes: int | None = None
    """Free space where the files lie; None when it is not known."""
    blocked_bytes: int = 0
    """Part of `pending_bytes` that does not fit on the device."""
    quota_bytes: int = 0
    """What `journal_bytes` may grow to; 0 is unlimited."""


@dataclass(frozen=True, slots=True)
class ConfigView:
    """The configuration in force. When `valid` is false, `error` is about the newer one that was refused."""

    source: Text
    generation: int
    valid: bool
    error: Text = ""
    applied_ts: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment."""

    version: Text
    now_ts: float
    started_ts: float
    is_draining: bool
    is_ready: bool
    not_ready: tuple[Text, ...]
    config: ConfigView
    transfers_in_flight: int
    transfers_limit: int
    queue_jobs: int
    watch_limit: int | None
    """inotify watches the kernel allows; None when it is not known."""
    targets: tuple[TargetView, ...]
    link: LinkView = LinkView()
    max_age_s: float = 0.0
    """Seconds that a change may wait, and a sweep lie back, before it is not ready."""
    free_space_floor_bytes: int = 0
    """What ingress leaves free on the device."""
    throughput: ThroughputView = ThroughputView()


@functools.cache
def _snapshots() -> TypeAdapter[Snapshot]:
    """Made when somebody asks: it costs as much as starting up a third of the rest."""
    return TypeAdapter(Snapshot)


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Plain values for `json.dumps`: the field names above, every string escaped."""
    plain: dict[str, Any] = _snapshots().dump_python(snapshot, mode="json")
    return plain


def from_json(plain: object) -> Snapshot:
    """The snapshot that `to_json` was given; fields of a newer version are ignored. Raises ValueError."""
    return _snapshots().validate_python(plain)


def readiness(
    targets: Sequence[TargetView], config: ConfigView, *, is_draining: bool, now_ts: float, max_age_s: float
) -> tuple[str, ...]:
    """Why we are not ready, a sentence each; empty means ready. No target at all is ready.

    Ready means compared and fresh: single failing files count only once they are older than `max_age_s`, which
    has to be longer than the interval between sweeps.
    """
    reasons = ["stopping: new changes are not taken up"] if is_draining else []
    if not config.valid:
        invalid = f"configuration invalid: {config.error}"
        reasons.append(invalid if config.error else "no configuration is in force yet")
    problems = ((view.id, _unready(view, now_ts=now_ts, max_age_s=max_age_s)) for view in targets)
    return (*reasons, *(f"{name}: {problem}" for name, problem in problems if problem))


def _unready(view: TargetView, *, now_ts: float, max_age_s: float) -> str:
    if view.state is State.BLOCKED:
        return f"{view.state}: {view.reason}" if view.reason else view.state.value
    if view.last_sweep_ts is None:
        return "the first sweep is not done"
    if view.oldest_pending_s > max_age_s:
        number = words.count(view.pending_files, "pending file")
        return f"the oldest of {number} has waited for {words.age(view.oldest_pending_s)}"
    # The time is that of a sweep's end, so the next one is due only after its own duration.
    # Three intervals, for the one in force may be longer than the bound.
    if now_ts - view.last_sweep_ts > max(max_age_s, 3 * view.sweep_interval_s) + view.last_sweep_s:
        return f"the last sweep ended {words.age(now_ts - view.last_sweep_ts)} ago"
    return ""


def verdict(snapshot: Snapshot) -> str:
    """Is my data safe, and if not, why: one line, escaped.

    `not safe` when a change on the device may not be in the bucket, `behind` when only the device waits,
    `not known yet` before the first comparison, else `in step`. What could not be looked at is never called safe.
    """
    if not snapshot.targets and not snapshot.config.valid and not snapshot.config.error:
        return "not known yet: no configuration is in force so far"
    return words.escape("; ".join([*_findings(snapshot.targets), *_notes(snapshot)]))


def _findings(targets: Sequence[TargetView]) -> list[str]:
    if not targets:
        return ["nothing to keep in step: no targets are configured"]
    findings = []
    late = [view for view in targets if _is_late(view)]
    if egress := [view for view in late if view.direction is Direction.EGRESS]:
        findings.append(f"not safe: {_lateness(egress, 'in the bucket')}")
    if starting := [view for view in targets if view.state is State.STARTING]:
        number = f"{len(starting)} of {words.count(len(targets), 'target')}"
        findings.append(f"not known yet: {number} not compared with the bucket so far")
    if ingress := [view for view in late if view.direction is Direction.INGRESS]:
        findings.append(f"behind: {_lateness(ingress, 'on the device')}")
    if not findings:
        rows = sum(view.journal_rows for view in targets)
        findings.append(f"in step: {words.count(len(targets), 'target')}, {words.count(rows, 'file')}")
    return findings


def _is_late(view: TargetView) -> bool:
    return view.pending_files > 0 or view.state not in (State.IN_STEP, State.STARTING)


def _lateness(late: Sequence[TargetView], place: str) -> str:
    worst = max(late, key=lambda view: (_GRAVITY.get(view.state, 0), view.oldest_pending_s))
    files = sum(view.pending_files for view in late)
    if not files:
        return f"{_why(worst)}{_others(late)}"
    # A target that cannot be read may hold more than was last seen there.
    is_floor = any(view.state in (State.BLOCKED, State.STARTING) for view in late)
    volume = words.size(sum(view.pending_bytes for view in late))
    oldest = words.age(max(view.oldest_pending_s for view in late))
    are = "is" if files == 1 else "are"
    number = f"{'at least ' if is_floor else ''}{words.count(files, 'file')} ({volume})"
    return f"{number} {are} not {place}, the oldest for {oldest}: {_why(worst)}{_others(late)}"


_GRAVITY = {State.BLOCKED: 2, State.FAILING: 1}


def _why(view: TargetView) -> str:
    if view.reason:
        return f"{view.id} is {view.state}: {view.reason}"
    if view.failing_by_reason:
        return f"{view.id} has files that fail: {totals(view.failing_by_reason)}"
    if view.state not in (State.BEHIND, State.STARTING, State.IN_STEP):
        return f"{view.id} is {view.state}"
    return f"{view.id} is {'moving them now' if view.in_flight else 'about to move them'}"


def _others(late: Sequence[TargetView]) -> str:
    return f" (and {words.count(len(late) - 1, 'more target')})" if len(late) > 1 else ""


def _notes(snapshot: Snapshot) -> list[str]:
    notes = []
    skipped: Counter[str] = Counter()
    for view in snapshot.targets:
        skipped.update(view.skipped_by_reason)
    if skipped.total():
        notes.append(f"{words.count(skipped.total(), 'file')} left out by rule ({totals(skipped)})")
    if not snapshot.config.valid:
        notes.append("the new configuration is invalid, the last good one is in force")
    if snapshot.is_draining:
        notes.append("stopping")
    return notes


def totals(by_reason: Mapping[str, int]) -> str:
    """`3 access-denied, 1 throttled`, the most frequent first."""
    return ", ".join(f"{number} {reason}" for reason, number in sorted(by_reason.items(), key=lambda item: -item[1]))
