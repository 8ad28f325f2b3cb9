"""From what runs to what people see: the engine's state as one status snapshot. Looks, and changes nothing."""

import time
from collections import Counter
from collections.abc import Sequence

from replicator import __version__
from replicator.detect.patrol import Patrol
from replicator.engine import Engine
from replicator.errors import (
    AccessDenied,
    BucketMissing,
    BudgetSpent,
    CredentialsRefused,
    DiskFull,
    JournalFull,
    Permanent,
    TransferError,
    Unanswered,
)
from replicator.model import CURRENT, INCOMING_DIR, Storage, Target
from replicator.observe.status import (
    ConfigView,
    FailingFile,
    GenerationView,
    LinkView,
    MovingFile,
    SkippedFile,
    Snapshot,
    State,
    TargetView,
    WatcherView,
    readiness,
)
from replicator.stores.kernel import watch_limit
from replicator.stores.lane import Lane
from replicator.transfer.gate import KEYS_TO_CLOSE
from replicator.transfer.generation import Standing
from replicator.transfer.job import Job

_LISTED_FILES = 20
"""Failing and skipped files that are named; the counts beside them are whole."""

_FIXES: tuple[tuple[type[TransferError], str], ...] = (
    (AccessDenied, "Check the access key, its permissions and the device's clock; nothing is lost meanwhile."),
    (BucketMissing, "Create the bucket or correct BUCKET_NAME; nothing is lost meanwhile."),
    (BudgetSpent, "Wait, or raise REPLICATOR_DATA_BUDGET; nothing is lost meanwhile."),
    (JournalFull, "Free space where the state directory is; nothing is lost, and it goes on by itself."),
    (TransferError, "Check endpoint, network and certificate; it is tried again by itself, nothing is lost."),
)


def snapshot(engine: Engine, config: ConfigView, *, is_draining: bool) -> Snapshot:
    """Everything at this moment."""
    now_ts = time.time()
    targets = tuple(target_view(engine, patrol) for patrol in engine.patrols.values())
    # A bound below a few sweeps would call a healthy target stale.
    max_age_s = max(engine.settings.ready_max_age_s, 3 * engine.settings.sweep_interval_s)
    reasons = readiness(targets, config, is_draining=is_draining, now_ts=now_ts, max_age_s=max_age_s)
    return Snapshot(
        version=__version__,
        now_ts=now_ts,
        started_ts=engine.started_ts,
        is_draining=is_draining,
        is_ready=not reasons,
        not_ready=reasons,
        config=config,
        transfers_in_flight=engine.queue.running(),
        transfers_limit=engine.concurrency,
        queue_jobs=len(engine.queue),
        watch_limit=watch_limit(),
        targets=targets,
        link=_link_view(engine),
        max_age_s=max_age_s,
        free_space_floor_bytes=engine.settings.free_space_floor_bytes,
        throughput=engine.means.throughput.view(),
    )


def _link_view(engine: Engine) -> LinkView:
    bandwidth, budget = engine.means.bandwidth, engine.means.data.view()
    return LinkView(
        up_limit=bandwidth.rate("up"),
        down_limit=bandwidth.rate("down"),
        up_achieved=bandwidth.measured_bytes_s("up"),
        down_achieved=bandwidth.measured_bytes_s("down"),
        budget_bytes=budget.limit_bytes if budget else 0,
        budget_used_bytes=budget.used_bytes if budget else 0,
        budget_relief_ts=budget.relief_ts if budget else None,
    )


def target_view(engine: Engine, patrol: Patrol) -> TargetView:
    """One target at this moment."""
    lane, now_s = patrol.lane, time.monotonic()
    target = lane.target
    jobs = engine.queue.jobs(lane)
    refusal = refusal_of(engine, lane, jobs)
    # While the endpoint is away every path fails in the same way: that is one fault, and it is the target's.
    shared = refusal.reason if refusal else ""
    failing = [job for job in jobs if job.is_failing and job.error and job.error.reason != shared]
    failing_names = {job.relpath for job in failing}  # told once, as failing: a sweep may have met them as well
    left_out = patrol.report.skipped if patrol.report else {}
    skipped = {name: why for name, why in left_out.items() if name not in failing_names}
    state, reason, fix = _state(engine, patrol, jobs, failing)
    rows, row_bytes = lane.journal.totals(lane.number)
    return TargetView(
        id=target.id,
        workload=target.workload,
        direction=target.direction,
        prefix=target.prefix.text,
        path=path_of(target),
        url=url_of(target),
        endpoint=target.storage.endpoint,
        origin=target.origin,
        state=state,
        reason=reason,
        cause=_cause(engine, patrol, jobs) if state is State.BLOCKED else "",
        fix=fix,
        pending_files=len(jobs),
        pending_bytes=sum(job.size for job in jobs),
        oldest_pending_s=max((now_s - job.changed_s for job in jobs), default=0.0),
        in_flight=tuple(MovingFile(job.relpath, job.size, job.moved_bytes) for job in jobs if job.is_running),
        failing=tuple(_failing_file(job, now_s) for job in failing[:_LISTED_FILES]),
        failing_by_reason=Counter(job.error.reason for job in failing if job.error),
        skipped=tuple(SkippedFile(name, why) for name, why in list(skipped.items())[:_LISTED_FILES]),
        skipped_by_reason=Counter(skipped.values()),
        last_success_ts=engine.settling.last_success_ts.get(lane),
        # As today's clock would have told it then: its age is right, however the clock was set since.
        last_sweep_ts=None if patrol.swept_s is None else time.time() - (now_s - patrol.swept_s),
        last_sweep_s=patrol.report.busy_s if patrol.report else 0.0,
        sweep_interval_s=patrol.interval_s,
        journal_rows=rows,
        journal_bytes=row_bytes,
        late_writes=len(lane.journal.late_writes(lane.number)),
        watcher=_watcher_view(patrol),
        generation=_generation_view(engine.publisher.standing(lane)),
        free_bytes=lane.export.free_bytes(),
        blocked_bytes=0 if lane.is_egress else sum(job.size for job in failing if isinstance(job.error, DiskFull)),
        quota_bytes=0 if lane.is_egress else target.options.quota_bytes,
    )


def _state(engine: Engine, patrol: Patrol, jobs: list[Job], failing: list[Job]) -> tuple[State, str, str]:
    """The state, and where it needs one, its reason and the safe next step."""
    if block := block_of(engine, patrol, jobs):
        return State.BLOCKED, *block
    if patrol.report is None:
        return State.STARTING, "", ""
    if failing:
        return State.FAILING, "", ""  # the failing files say it themselves
    return _visibility(engine, patrol.lane, has_jobs=bool(jobs))


def block_of(engine: Engine, patrol: Patrol, jobs: Sequence[Job]) -> tuple[str, str] | None:
    """Why nothing of the target moves, and the safe next step; None while nothing is in its way. `jobs`: all of it."""
    report, error = patrol.report, refusal_of(engine, patrol.lane, jobs) or patrol.error
    if report and report.blocked:
        return report.blocked, report.fix
    if error:
        return f"{_whence(error, patrol.lane.target.storage)}{error}", fix_of(error)
    return None


def refusal_of(engine: Engine, lane: Lane, jobs: Sequence[Job]) -> TransferError | None:
    """What stands between the target and its endpoint: a closed gate, or what all of a few files met."""
    closed = engine.gate(lane.target).error
    # Three files close the gate, and ingress' listing tells by itself of an endpoint that is away.
    if closed or not lane.is_egress or not 0 < len(jobs) < KEYS_TO_CLOSE:
        return closed
    errors = [job.error for job in jobs if isinstance(job.error, CredentialsRefused | Unanswered)]
    if len(errors) < len(jobs):
        return None
    refused = next((error for error in errors if isinstance(error, CredentialsRefused)), None)
    if refused is None and sum(job.attempts for job in jobs) < KEYS_TO_CLOSE:
        return None  # a connection may be cut once or twice
    # Had anything passed since these changed, the fault would be theirs.
    oldest_ts = time.time() - (time.monotonic() - min(job.changed_s for job in jobs))
    has_passed = engine.settling.last_success_ts.get(lane, 0.0) > oldest_ts
    return None if has_passed else refused or errors[0]


def _cause(engine: Engine, patrol: Patrol, jobs: Sequence[Job]) -> str:
    """The closed-set word for what `block_of`, or the publisher, tells in a sentence."""
    if patrol.report and patrol.report.blocked:
        return "source-missing" if patrol.lane.is_egress else "directory-missing"
    standing = engine.publisher.standing(patrol.lane)
    error = refusal_of(engine, patrol.lane, jobs) or patrol.error or (standing.error if standing else None)
    return error.reason if error else ""


def _whence(error: TransferError, storage: Storage) -> str:
    """Whose word it is: the endpoint's, and where it refuses, to which key. The device's own needs none."""
    if isinstance(error, JournalFull | BudgetSpent):
        return ""
    hint = storage.key_hint if isinstance(error, AccessDenied) else ""
    key = f", access key {hint}" if hint else ""
    return f"{storage.endpoint}{key}: "


def fix_of(error: TransferError) -> str:
    """The safe next step for what an endpoint, or the means behind it, refuses."""
    return next(fix for kind, fix in _FIXES if isinstance(error, kind))


def _visibility(engine: Engine, lane: Lane, *, has_jobs: bool) -> tuple[State, str, str]:
    """As `_state`, for a target whose files are well on their way, or here: whether readers see them."""
    standing = engine.publisher.standing(lane)
    if standing is not None and isinstance(standing.error, Permanent):
        return State.BLOCKED, str(standing.error), "Readers keep the generation they have; it is tried again by itself."
    if standing is not None and not has_jobs and (waits := _waits(standing)):
        return State.BEHIND, waits, "Complete the set in the bucket, its manifest last."
    return (State.BEHIND if has_jobs or engine.publisher.is_busy(lane) else State.IN_STEP), "", ""


def _waits(standing: Standing) -> str:
    return str(standing.error or standing.waits)


def _generation_view(standing: Standing | None) -> GenerationView | None:
    if standing is None:
        return None
    now = standing.in_force
    return GenerationView(now.id if now else "", now.since_ts if now else None, _waits(standing))


def _failing_file(job: Job, now_s: float) -> FailingFile:
    return FailingFile(
        relpath=job.relpath,
        reason=job.error.reason if job.error else "",
        message=str(job.error),
        attempts=job.attempts,
        next_attempt_s=max(0.0, job.due_s - now_s),
        age_s=now_s - job.changed_s,
    )


def _watcher_view(patrol: Patrol) -> WatcherView | None:
    if not patrol.lane.is_egress:
        return None
    health = patrol.watcher.health
    return WatcherView(
        source=health.source,
        watches=health.watches if health.is_armed else 0,
        needed=health.needed,
        degraded=health.degraded,
        is_proven=health.is_proven,
        overflows=health.overflows,
        restarts=health.restarts,
    )


def path_of(target: Target) -> str:
    """Where the target's files are on the device, for those who read or write them."""
    if target.has_generations:
        return f"{target.root}/{target.subdir}".removesuffix(INCOMING_DIR) + CURRENT
    return f"{target.root}/{target.subdir}" if target.subdir else target.root


def url_of(target: Target) -> str:
    """Where the target's objects are, in the form that S3 clients read."""
    return f"s3://{target.storage.bucket}/{target.prefix}"
