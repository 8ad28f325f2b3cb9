"""One full pass: the same engine without a watcher, until everything is in step or cannot be brought there.

`plan` is the pass that moves nothing: what each side's difference would lead to.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from replicator import report
from replicator.config.settings import Settings
from replicator.detect.patrol import Patrol, sweep_of
from replicator.engine import Engine
from replicator.model import Action, Hint, RemoteObject, Target
from replicator.observe.metrics import Metrics
from replicator.observe.status import ConfigView, Snapshot
from replicator.observe.tally import Tally
from replicator.reconcile.classify import classify_egress, classify_ingress
from replicator.stores.files.export import ignore_lease_signals
from replicator.stores.lane import Lane
from replicator.transfer.job import Job

_ATTEMPTS = 4
"""A path or an endpoint that failed this often in one pass is reported and left to the next."""

_LOOK_S = 0.25
_POLL_S = 0.02

_PACE = {"watcher": "off", "retry_max_s": 4.0, "parked_retry_s": 0.5}
"""Somebody is waiting for the pass to end: it fails after seconds where the service would wait for minutes."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a plan. `size` in bytes."""

    target: Target
    action: Action
    relpath: str
    size: int


async def sync(settings: Settings, targets: tuple[Target, ...], *, tally: Tally | None = None) -> Snapshot:
    """Bring all targets in step once; the snapshot tells what came of it. Raises ConfigError or JournalError.

    `tally` is kept up to date meanwhile, as well as that is known: sweeps find more as they go.
    """
    ignore_lease_signals()
    settings = settings.model_copy(update=_PACE)
    config = ConfigView(source=settings.source, generation=1, valid=True, applied_ts=time.time())
    async with Engine(settings, Metrics()) as engine:
        working = asyncio.create_task(engine.workers.run(), name="workers")
        try:
            patrols = [await engine.open(target) for target in targets]
            pass_over = asyncio.create_task(_pass(engine, patrols, tally or Tally()), name="pass")
            await asyncio.wait({working, pass_over}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
            await pass_over
            return report.snapshot(engine, config, is_draining=False)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def _pass(engine: Engine, patrols: list[Patrol], tally: Tally) -> None:
    await asyncio.gather(*map(_sweep, patrols))
    while any(_is_worth_waiting(engine, job) for job in _counted(engine, tally)):
        with contextlib.suppress(TimeoutError):  # a look at every job is dear, one at their number is not
            await asyncio.wait_for(engine.queue.wait_until(at_most=0), _LOOK_S)
    for patrol in patrols:
        engine.publisher.wake(patrol.lane)
    while any(engine.publisher.is_busy(patrol.lane) for patrol in patrols):  # noqa: ASYNC110 - a thread publishes
        await asyncio.sleep(_POLL_S)


def _is_worth_waiting(engine: Engine, job: Job) -> bool:
    return job.attempts < _ATTEMPTS and engine.gate(job.lane.target).failures < _ATTEMPTS


def _counted(engine: Engine, tally: Tally) -> list[Job]:
    """The jobs that are left; what they are and what has moved stands in the tally then."""
    jobs, moved = engine.queue.jobs(), engine.settling.moved
    under_way = sum(job.moved_bytes for job in jobs)
    tally.files, tally.size_bytes = moved.files, moved.size_bytes + under_way
    tally.expect(files=moved.files + len(jobs), size_bytes=moved.size_bytes + sum(job.size for job in jobs))
    return jobs


async def _sweep(patrol: Patrol) -> None:
    for pause_s in (0.5, 1.0, 2.0, 0.0):
        await patrol.sweep()
        if patrol.report is not None:
            return
        await asyncio.sleep(pause_s)


async def plan(settings: Settings, targets: tuple[Target, ...]) -> AsyncIterator[Step]:
    """What `sync` would do now. Lists the bucket where sync would; moves and writes nothing."""
    async with Engine(settings, Metrics()) as engine:
        patrols = [await engine.open(target) for target in targets]
        for lane in (patrol.lane for patrol in patrols):
            hints: list[Hint] = []

            async def found(more: list[Hint], hints: list[Hint] = hints) -> None:
                hints += more

            await sweep_of(lane).run(found)
            for hint in hints:
                step = await asyncio.to_thread(_step, lane, hint)
                if step.action is not Action.SKIP:
                    yield step


def _step(lane: Lane, hint: Hint) -> Step:
    relpath = hint.relpath or ""
    local, row = lane.export.stat(relpath), lane.row(relpath)
    if lane.is_egress:
        action = classify_egress(local, hint.remote, row)
        size = local.fingerprint.size if local else 0
    else:
        remote = hint.remote if isinstance(hint.remote, RemoteObject) else None
        action = classify_ingress(remote, local, row, restore_deleted=lane.target.options.restore_deleted)
        size = remote.size if remote else 0
    return Step(lane.target, action, relpath, size)
