"""The patrol of one lane: its watcher through the debounce, and its sweeps in their rhythm.

Turns everything that was noticed into hints for the queue. Decides nothing, moves nothing, and never ends by itself.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from replicator.detect.debounce import Debounce
from replicator.detect.egress_sweep import EgressSweep
from replicator.detect.ingress_sweep import IngressSweep
from replicator.detect.sweep import Report, Sweep
from replicator.detect.watcher import Kind, Watcher
from replicator.errors import TransferError
from replicator.model import Hint
from replicator.observe import logs
from replicator.observe.metrics import Metrics, who
from replicator.stores.lane import Lane

log = logs.get("patrol")

_SOONEST_S = 1.0
"""Sweeps that are asked for out of turn keep this distance, so that a flood of doubts costs no flood of sweeps."""


_FULL_JOBS = 10_000
"""Above this many jobs a sweep waits, so that a first sync of a million files stays small."""


def sweep_of(lane: Lane) -> Sweep:
    """The sweep that fits the lane's direction."""
    return EgressSweep(lane) if lane.is_egress else IngressSweep(lane)


class Admission(Protocol):
    """Whether the lane's endpoint is worth a listing now; told how it went. `transfer.gate.Gate` is one."""

    @property
    def losses(self) -> int: ...
    @property
    def error(self) -> TransferError | None: ...
    def admits(self, now_s: float) -> bool: ...
    def released(self) -> None: ...
    def succeeded(self) -> None: ...
    def failed(self, key: str, error: TransferError, now_s: float) -> object: ...


class Intake(Protocol):
    """Where hints go: `put` tells whether the path was not queued yet. `transfer.queue.Queue` is one."""

    def put(self, lane: Lane, hint: Hint, *, is_event: bool = False) -> bool: ...
    def wait_until(self, *, at_most: int) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Settings of detection. Times in seconds."""

    watcher: Kind
    sweep_interval_s: float
    sweep_cpu_share: float
    """Of one core; a sweep that costs more has a longer interval, while events are proven to arrive."""
    quiet_s: float
    ceiling_s: float


class Patrol:
    """Finds what changed in one lane for as long as `run` runs; `sweep` may also be called alone."""

    def __init__(self, lane: Lane, *, rhythm: Rhythm, intake: Intake, admission: Admission, metrics: Metrics) -> None:
        self.lane = lane
        self.report: Report | None = None
        """Of the last complete sweep; None before the first."""
        self.swept_s: float | None = None
        """When that was, by the monotonic clock."""
        self.error: TransferError | None = None
        """Why the last sweep could not be completed; None when it was."""
        self._rhythm = rhythm
        self._intake = intake
        self._admission = admission
        self._metrics = metrics
        self._known_losses = admission.losses
        self._sweep = sweep_of(lane)
        self._debounce = Debounce(quiet_s=rhythm.quiet_s, ceiling_s=rhythm.ceiling_s)
        self._is_hinted = asyncio.Event()
        self._is_sweep_wanted = asyncio.Event()
        self._sweeping = asyncio.Lock()
        labels = who(lane.target)
        self.watcher = Watcher(
            rhythm.watcher if lane.is_egress else "off",
            root=lane.target.root,
            subdir=lane.target.subdir,
            emit=self._take,
            on_restart=lambda cause: metrics.watcher_restarts.labels(*labels, cause).inc(),
            on_overflow=metrics.watcher_overflows.labels(*labels).inc,
        )

    @property
    def interval_s(self) -> float:
        """Seconds between sweeps as things stand now: the setting's, or longer while a sweep costs too much for it."""
        health, least_s = self.watcher.health, self._rhythm.sweep_interval_s
        if self.report is None or not health.is_proven or health.degraded:
            return least_s
        return max(least_s, self.report.cpu_s / self._rhythm.sweep_cpu_share)

    async def run(self) -> None:
        """Watch and sweep until cancelled."""
        name = self.lane.target.id
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watcher.run(), name=f"watcher {name}")
            group.create_task(self._release(), name=f"debounce {name}")
            group.create_task(self._sweep_in_rhythm(), name=f"sweep {name}")

    def hint(self, relpath: str) -> None:
        """Somebody outside told that this path may have changed. Call on the event loop."""
        self._take(Hint(relpath))

    def doubt(self) -> None:
        """More changed than was told: the next poll has to list, whatever a marker says."""
        self._sweep.doubt()

    def hurry(self) -> None:
        """Sweep at once: what the last one met may have changed."""
        self._is_sweep_wanted.set()

    async def sweep(self) -> None:
        """Look at everything once, now; `report` or `error` tells the result.

        Ingress lists, so it asks the gate first. Egress looks at the disk, whatever the endpoint does: what waits to
        be sent must be known most of all while nothing can be sent. Two at once follow each other.
        """
        async with self._sweeping:
            await self._look_at_everything()

    async def _look_at_everything(self) -> None:
        is_egress = self.lane.is_egress
        if not is_egress and not self._admission.admits(time.monotonic()):
            return
        for relpath in self.lane.late_due(time.time()):
            self._intake.put(self.lane, Hint(relpath))
        labels, losses = who(self.lane.target), self._admission.losses
        if is_doubted := losses > self._known_losses and not self._admission.error:
            self._sweep.doubt()
        try:
            report = await self._sweep.run(self._found)
        except TransferError as error:
            self.error = error
            self._admission.failed("", error, time.monotonic())
            log.warning("sweep failed", target=self.lane.target.id, reason=error.reason, error=error)
            error.forget_trace()
            return
        except BaseException:
            self._admission.released()
            raise
        if not is_egress:
            self._admission.released() if report.blocked else self._admission.succeeded()
        if report.blocked and (self.report is None or not self.report.blocked):
            log.error("target stands still", target=self.lane.target.id, reason=report.blocked, fix=report.fix)
        if is_doubted and not (report.blocked or report.is_doubtful):
            self._known_losses = losses
        self.error, self.report, self.swept_s = None, report, time.monotonic()
        self.watcher.swept(report.directories)
        self._metrics.sweeps.labels(*labels).inc()
        self._metrics.sweep_seconds.labels(str(self.lane.target.direction)).observe(report.busy_s)

    async def _found(self, hints: list[Hint]) -> None:
        """Hints of a sweep. Those that no event announced are counted: the running proof of the watcher."""
        missed = []
        for hint in hints:
            is_announced = hint.relpath is not None and self._debounce.knows(hint.relpath)
            if self._intake.put(self.lane, hint) and not is_announced:
                missed.append(hint.relpath or "")
        if self.watcher.health.is_armed and self.report is not None:
            self._metrics.sweep_found.labels(*who(self.lane.target)).inc(len(missed))
            self.watcher.promote(missed)
        await self._intake.wait_until(at_most=_FULL_JOBS)

    def _take(self, hint: Hint) -> None:
        """A hint of the watcher. Called on the event loop."""
        if hint.relpath is None:
            self._is_sweep_wanted.set()
        elif self._debounce.hint(hint.relpath, time.monotonic()):
            self._intake.put(self.lane, hint, is_event=True)
            self._is_hinted.set()

    async def _release(self) -> None:
        while True:
            self._is_hinted.clear()
            due_s = self._debounce.next_due_s()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due_s is None else max(0.0, due_s - time.monotonic())):
                    await self._is_hinted.wait()
                    continue
            for relpath in self._debounce.due(time.monotonic()):
                self._intake.put(self.lane, Hint(relpath), is_event=True)

    async def _sweep_in_rhythm(self) -> None:
        while True:
            self._is_sweep_wanted.clear()
            began_s = time.monotonic()
            await self.sweep()
            await self._pause(began_s)

    async def _pause(self, began_s: float) -> None:
        """Until the next sweep is due, or a doubt asks for one. A flood of doubts costs half a core at most."""
        busy_s = self.report.busy_s if self.report else 0.0
        soonest_s = max(began_s + _SOONEST_S, time.monotonic() + busy_s)
        # A little less than the interval, at random, so that a fleet's polls do not fall into step.
        part = random.uniform(0.9, 1.0)  # noqa: S311
        while (pause_s := max(began_s + self.interval_s * part, soonest_s) - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                # A long pause is looked at again in between: the events that allow it may have ceased.
                async with asyncio.timeout(min(pause_s, self._rhythm.sweep_interval_s * part)):
                    await self._is_sweep_wanted.wait()
                    await asyncio.sleep(soonest_s - time.monotonic())
                    return
