"""`replicator explain`: one path, wherever it is mapped, from the device to the journal to the queue.

Looks in two steps: what the event loop and the queue know, at once; then, on a thread of the caller's choice, what
only the disk and the journal tell. Looks only, and makes no request of the store. Decides nothing: `transfer` does,
by the same functions that are asked here.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from replicator.detect.patrol import Patrol
from replicator.engine import Engine
from replicator.errors import (
    AccessDenied,
    BucketMissing,
    BudgetSpent,
    HeldBack,
    JournalFull,
    KeyUnsafe,
    LeftOut,
    Throttled,
    TransferError,
    Unavailable,
)
from replicator.model import Direction, LocalFile, Target
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
)
from replicator.reconcile.filters import leaving_out
from replicator.reconcile.keys import check_size, key_of, relpath_of
from replicator.reconcile.naming import relpaths_named
from replicator.report import block_of, fix_of, path_of, refusal_of, url_of
from replicator.stores.lane import Lane
from replicator.transfer.barrier import check_barrier, is_barrier
from replicator.transfer.job import Job
from replicator.transfer.late import endangers
from replicator.transfer.outcome import Means
from replicator.transfer.push import quiet_left_s

_OF_THE_ENDPOINT = (AccessDenied, BucketMissing, BudgetSpent, JournalFull, Throttled, Unavailable)
"""Errors whose next step stands in the report; every other one names its own."""

_ECHO = "ingress fetched this very version, and sending it would echo"


@dataclass(frozen=True, slots=True)
class _Spot:
    """One path of one lane, with what is known of it without looking at disk or journal."""

    lane: Lane
    relpath: str
    is_sure: bool
    """Whether the question names this target; else it counts only when something is here."""
    is_skipped: bool
    """Whether the last sweep met it and left it out."""
    means: Means
    view: PlaceView


def explain(engine: Engine, asked: str) -> Callable[[], Explanation]:
    """Where `asked` stands. Call on the event loop; call what it returns on a thread, for it looks at the disk."""
    spots = [spot for patrol in engine.patrols.values() for spot in _spots(engine, patrol, asked)]

    def look() -> Explanation:
        seen = [(spot, _looked_at(spot)) for spot in spots]
        known = [view for _, view in seen if _is_something(view)]
        return Explanation(asked, time.time(), tuple(known or (view for spot, view in seen if spot.is_sure)))

    return look


def _is_something(view: PlaceView) -> bool:
    has_traces = any((view.file, view.row, view.job, view.obstacle))
    return view.verdict is not Verdict.UNKNOWN and (has_traces or not view.rule)


def _spots(engine: Engine, patrol: Patrol, asked: str) -> Iterator[_Spot]:
    lane = patrol.lane
    named = relpaths_named(asked, lane.target)
    jobs = {job.relpath: job for job in engine.queue.jobs(lane) if job.relpath in named} if named else {}
    skipped = patrol.report.skipped if patrol.report else {}
    for relpath, is_sure in named.items():
        view = _place(engine, patrol, relpath, jobs.get(relpath))
        yield _Spot(lane, relpath, is_sure, relpath in skipped, engine.means, view)


def _place(engine: Engine, patrol: Patrol, relpath: str, job: Job | None) -> PlaceView:
    target = patrol.lane.target
    standing = engine.publisher.standing(patrol.lane)
    due_s = None if patrol.swept_s is None else max(0.0, patrol.swept_s + patrol.interval_s - time.monotonic())
    return PlaceView(
        target=target.id,
        direction=target.direction,
        path=f"{path_of(target)}/{relpath}",
        url=f"{url_of(target)}{relpath}",
        job=_job_view(job) if job else None,
        block=_block_view(engine, patrol),
        next_sweep_s=due_s,
        restores=target.options.restore_deleted and not patrol.lane.is_egress,
        readers_wait=str(standing.error or standing.waits) if standing else "",
    )


def _job_view(job: Job) -> JobView:
    now_s, error = time.monotonic(), job.error
    return JobView(
        is_running=job.is_running,
        size=job.size,
        moved_bytes=job.moved_bytes,
        attempts=job.attempts,
        next_attempt_s=max(0.0, job.due_s - now_s),
        waited_s=now_s - job.changed_s,
        reason=error.reason if error else "",
        message=str(error or ""),
        is_failing=job.is_failing,
        fix=fix_of(error) if isinstance(error, _OF_THE_ENDPOINT) else "",
    )


def _block_view(engine: Engine, patrol: Patrol) -> BlockView | None:
    lane, now_s = patrol.lane, time.monotonic()
    jobs, gate = engine.queue.jobs(lane), engine.gate(lane.target)
    block, opens_s = block_of(engine, patrol, jobs), gate.opens_s()
    if gate.error is None and refusal_of(engine, lane, jobs):
        opens_s = min(job.due_s for job in jobs)
    return BlockView(*block, None if opens_s is None else max(0.0, opens_s - now_s)) if block else None


def _looked_at(spot: _Spot) -> PlaceView:
    """The place as disk and journal have it now, with its conclusion."""
    lane, relpath, local = spot.lane, spot.relpath, None
    view = dataclasses.replace(spot.view, rule=_rule_of(lane.target, relpath))
    try:
        local, gate = _look(spot)
    except KeyUnsafe as error:
        view = dataclasses.replace(view, rule=view.rule or str(error))
    except LeftOut as error:
        view = _instead(spot, view, error)
    except TransferError as error:
        view = dataclasses.replace(view, obstacle=str(error))
    else:
        view = _found(lane, view, local, gate) if local else view
    view = dataclasses.replace(view, row=_row_view(lane, relpath, local), late_look_s=_late_look_s(lane, relpath))
    return concluded(view)


def _instead(spot: _Spot, view: PlaceView, error: LeftOut) -> PlaceView:
    """With what stands in the file's place. A directory is what was asked for, unless an object needs its name."""
    if error.reason == "directory" and not spot.is_skipped:
        return dataclasses.replace(view, is_directory=True)
    return dataclasses.replace(view, rule=view.rule or str(error), obstacle=str(error))


def _found(lane: Lane, view: PlaceView, local: LocalFile, gate: GateView | None) -> PlaceView:
    """With what is on the device."""
    rule, barrier = view.rule, ""
    if lane.is_egress and not rule:
        rule, barrier = (_ECHO, "") if lane.is_echo(local) else (_excess(local), _barrier(lane, local.relpath))
    return dataclasses.replace(view, rule=rule, barrier=barrier, close_gate=gate, file=_file_view(local))


def _excess(local: LocalFile) -> str:
    try:
        check_size(local.fingerprint.size)
    except LeftOut as error:
        return str(error)
    return ""


def _rule_of(target: Target, relpath: str) -> str:
    """What the name alone says: a filter, or that there can be no such key, or no such file."""
    if rule := leaving_out(relpath, target.options):
        return rule
    try:
        key = key_of(target.prefix, relpath)
        if target.direction is Direction.INGRESS:
            relpath_of(target.prefix, key, subdir=target.subdir)
    except KeyUnsafe as error:
        return str(error)
    return ""


def _look(spot: _Spot) -> tuple[LocalFile | None, GateView | None]:
    """What is on the device, and, for egress, whether it is closed. Raises TransferError for what is no plain file."""
    lane, means, job = spot.lane, spot.means, spot.view.job
    if not lane.is_egress:
        return lane.export.stat(spot.relpath, is_wanted=spot.is_skipped), None
    file = lane.export.open_if_there(spot.relpath)
    if file is None:
        return None, None
    policy = lane.target.options.open_files
    with file:
        has_writer = file.has_writer()
    left_s = max(0.0, means.open_file_ceiling_s - (job.waited_s if job else 0.0))
    gate = GateView(
        has_writer=has_writer,
        open_files=policy,
        quiet_left_s=quiet_left_s(file.fingerprint, means.quiet_s) if has_writer is None else 0.0,
        ceiling_left_s=left_s if policy == "snapshot" else None,
    )
    return LocalFile(spot.relpath, file.fingerprint), gate


def _file_view(local: LocalFile) -> FileView:
    version = local.fingerprint
    return FileView(version.size, max(0.0, time.time() - max(version.mtime_ns, version.ctime_ns) / 1e9))


def _row_view(lane: Lane, relpath: str, local: LocalFile | None) -> RowView | None:
    row = lane.row(relpath)
    if row is None:
        return None
    return RowView(
        size=row.fingerprint.size,
        modified_ts=row.fingerprint.mtime_ns / 1e9,
        etag=row.etag,
        is_verified=row.is_verified,
        is_current=local is not None and row.fingerprint.matches(local.fingerprint),
    )


def _late_look_s(lane: Lane, relpath: str) -> float | None:
    row = lane.row(relpath)
    late = endangers(lane, row) if row else None
    return max(0.0, late.due_s - time.time()) if late else None


def _barrier(lane: Lane, relpath: str) -> str:
    if not is_barrier(lane, relpath):
        return ""
    try:
        check_barrier(lane, relpath)
    except HeldBack as error:
        return str(error)
    return ""
