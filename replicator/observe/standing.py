"""What the control plane is told of a device's replication: each workload's standing, and a report of them all. Pure.

Owns: the three words for where a workload stands, their rule, and the two forms in which a report travels: the
extension `replication` of a heartbeat, and a merge patch of an EdgeDevice's status. Never: free text of a store, an
endpoint, a key: what leaves the device are names of workloads, numbers, and words of closed sets.
Source: Kubernetes API conventions for conditions: lastTransitionTime moves only with the status.
"""

import datetime as dt
import enum
import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from replicator.model import Direction
from replicator.observe.status import Snapshot, State, TargetView

_MOST_WORKLOADS = 1000
"""Of one device's report: many times what a device runs, and a bound on what a stranger can make us hold."""
_NAMED = 5
"""Workloads that a condition names."""

Word = Annotated[str, Field(pattern=r"^([a-z][a-z0-9-]{0,31})?$")]
Name = Annotated[str, Field(min_length=1, max_length=253)]
Size = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""A length of time, or a moment since the epoch."""


class Stand(enum.StrEnum):
    """Where a workload's replication stands, the worst of its targets."""

    SYNCED = "synced"
    """Nothing is pending."""
    LAGGING = "lagging"
    """Something is pending, and nothing is known to be in its way; or nothing has been compared yet."""
    BLOCKED = "blocked"
    """All, or some files, do not get through until somebody acts; `reason` says why."""


_GRAVITY = (Stand.SYNCED, Stand.LAGGING, Stand.BLOCKED)


@dataclass(frozen=True, slots=True)
class Standing:
    """One workload, both directions together."""

    workload: Name
    state: Stand
    reason: Word = ""
    """Closed-set word: the error's where it is blocked, `starting` before the first comparison."""
    pending_files: Size = 0
    pending_bytes: Size = 0
    oldest_pending_s: Seconds = 0.0
    last_upload_ts: Seconds | None = None
    """When a file of it was last confirmed in the bucket; None when this is not known."""


@dataclass(frozen=True, slots=True)
class Report:
    """All workloads of a device at one moment."""

    standings: Annotated[tuple[Standing, ...], Field(max_length=_MOST_WORKLOADS)]
    is_drained: bool
    """Whether nothing runs any more, and all that ran is proven to be in the bucket.

    Told until it is answered well, and not again: whoever limits the rate of reports lets this one pass.
    """
    at_ts: Seconds

    @property
    def state(self) -> Stand:
        """The worst of all."""
        return max((one.state for one in self.standings), key=_GRAVITY.index, default=Stand.SYNCED)

    @property
    def pending_files(self) -> int:
        return sum(one.pending_files for one in self.standings)

    @property
    def pending_bytes(self) -> int:
        return sum(one.pending_bytes for one in self.standings)

    @property
    def oldest_pending_s(self) -> float:
        return max((one.oldest_pending_s for one in self.standings), default=0.0)

    @property
    def last_upload_ts(self) -> float | None:
        return max((one.last_upload_ts for one in self.standings if one.last_upload_ts is not None), default=None)


def standings(snapshot: Snapshot) -> tuple[Standing, ...]:
    """Where each workload stands, by name."""
    by_workload: dict[str, list[TargetView]] = {}
    for view in snapshot.targets:
        by_workload.setdefault(view.workload, []).append(view)
    return tuple(functools.reduce(merged, map(of_target, views)) for _, views in sorted(by_workload.items()))


def merged(one: Standing, other: Standing) -> Standing:
    """Both as one standing of the workload: sums, the worse state, the later upload."""
    worse = max(one, other, key=lambda standing: _GRAVITY.index(standing.state))
    uploads = [ts for ts in (one.last_upload_ts, other.last_upload_ts) if ts is not None]
    return replace(
        worse,
        pending_files=one.pending_files + other.pending_files,
        pending_bytes=one.pending_bytes + other.pending_bytes,
        oldest_pending_s=max(one.oldest_pending_s, other.oldest_pending_s),
        last_upload_ts=max(uploads, default=None),
    )


def of_target(view: TargetView) -> Standing:
    """Where its workload stands, as far as this one target goes."""
    state, reason = _state(view)
    return Standing(
        workload=view.workload,
        state=state,
        reason=reason,
        pending_files=view.pending_files,
        pending_bytes=view.pending_bytes,
        oldest_pending_s=max(0.0, view.oldest_pending_s),
        last_upload_ts=view.last_success_ts if view.direction is Direction.EGRESS else None,
    )


def _state(view: TargetView) -> tuple[Stand, str]:
    match view.state:
        case State.BLOCKED:
            return Stand.BLOCKED, view.cause or "error"
        case State.FAILING:
            ((reason, _),) = Counter(view.failing_by_reason).most_common(1) or (("error", 0),)
            return Stand.BLOCKED, reason
        case State.STARTING:
            return Stand.LAGGING, "starting"
        case _:
            is_behind = view.state is State.BEHIND or view.pending_files > 0
            return (Stand.LAGGING if is_behind else Stand.SYNCED), ""


# As part of a heartbeat


@functools.cache
def _reports() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def to_json(report: Report) -> dict[str, Any]:
    """Plain values for `json.dumps`: the field names above."""
    plain: dict[str, Any] = _reports().dump_python(report, mode="json")
    return plain


def from_json(plain: object) -> Report:
    """The report that `to_json` was given. Raises ValueError, which quotes nothing, for anything that is none."""
    try:
        return _reports().validate_python(plain)
    except ValidationError as exc:
        fields = ", ".join(sorted({".".join(map(str, error["loc"])) or "itself" for error in exc.errors()})[:_NAMED])
        raise ValueError(f"not a report of replication: {fields}") from None


# As an EdgeDevice's status


def as_status(report: Report, previous: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch of an EdgeDevice's status, which is `previous` now.

    A merge patch replaces lists as a whole. So what others keep in them is in it, and a list without a change is left
    out: send it as `{"status": ...}` with the resourceVersion that `previous` was read from. Entries of `workloads` are
    Flotta's to make: those that are there get their `lastDataUpload`. What is not known leaves what is there, and so
    does `drainedAt`: whoever waits for it compares it with the deletionTimestamp.
    """
    now = _time(report.at_ts)
    replication: dict[str, Any] = {
        "pendingFiles": report.pending_files,
        "pendingBytes": report.pending_bytes,
        "oldestPendingSeconds": int(report.oldest_pending_s),
        "reportedAt": now,
    }
    if report.last_upload_ts is not None:
        replication["lastUpload"] = _time(report.last_upload_ts)
    if report.is_drained:
        replication["drainedAt"] = now
    patch: dict[str, Any] = {"replication": replication}
    workloads = _uploaded(report, previous.get("workloads") or ())
    if workloads != list(previous.get("workloads") or ()):
        patch["workloads"] = workloads
    conditions = _with(_conditions(report), previous.get("conditions") or (), now)
    if conditions != list(previous.get("conditions") or ()):
        patch["conditions"] = conditions
    return patch


def _uploaded(report: Report, workloads: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    uploads = {one.workload: _time(one.last_upload_ts) for one in report.standings if one.last_upload_ts is not None}
    return [
        {**workload, "lastDataUpload": uploads[workload["name"]]} if workload.get("name") in uploads else {**workload}
        for workload in workloads
    ]


def _conditions(report: Report) -> list[dict[str, str]]:
    """One condition a state, of which one is true, without its time."""
    state = report.state
    worst = [one for one in report.standings if one.state is state]
    reason = next((_camel(one.reason) for one in worst if one.reason), _camel(state))
    return [
        {
            "type": _camel(one),
            "status": "True" if one is state else "False",
            "reason": reason,
            "message": _message(report, worst),
        }
        for one in _GRAVITY
    ]


def _message(report: Report, worst: Sequence[Standing]) -> str:
    if report.is_drained:
        return "all that ran is in the bucket, and nothing runs any more"
    if not worst:
        return "nothing is mapped"
    named = [f"{one.workload} ({one.reason})" if one.reason else one.workload for one in worst[:_NAMED]]
    more = f" and {len(worst) - _NAMED} more" if len(worst) > _NAMED else ""
    return f"{report.state}: {', '.join(named)}{more}"


def _with(ours: Sequence[Mapping[str, str]], previous: Iterable[Mapping[str, Any]], now: str) -> list[dict[str, Any]]:
    """`previous` with our conditions in their places, or behind it. The time stays where the status does."""
    wanted = {one["type"]: one for one in ours}
    found: list[dict[str, Any]] = []
    for old in previous:
        new = wanted.pop(str(old.get("type")), None)
        if new is None:
            found.append({**old})
            continue
        is_kept = old.get("status") == new["status"] and old.get("lastTransitionTime")
        found.append({**old, **new, "lastTransitionTime": old["lastTransitionTime"] if is_kept else now})
    return found + [{**new, "lastTransitionTime": now} for new in wanted.values()]


def _camel(word: str) -> str:
    """`access-denied` as Kubernetes writes reasons: AccessDenied."""
    return "".join(part.capitalize() for part in word.split("-"))


def _time(ts: float) -> str:
    """RFC 3339 in UTC, whole seconds, as Kubernetes writes times. The bound of `Seconds` is the year 5138."""
    return dt.datetime.fromtimestamp(ts, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
