"""The heartbeat: what the control plane is told of this device, in its rhythm, at a change of state, and at the end.

Owns: when something is told, and what is remembered of targets that ended, so that `is_drained` is a proof. Never: how
it is told (the source's), or that anything waits for it: who cannot be told stops no transfer.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping

from replicator.config.sources.source import Source
from replicator.errors import ReplicatorError
from replicator.observe import logs
from replicator.observe.metrics import Metrics
from replicator.observe.standing import Report, Stand, Standing, merged, standings
from replicator.observe.status import Snapshot

log = logs.get("heartbeat")

_LOOK_S = 5.0
"""Between looks at whether the state is another one."""
_SOONEST = 0.25
"""Of the period: a state that comes and goes makes no more than four times as many reports."""
_RETRY_S = 30.0
"""After a report that could not be told: an outage costs no more than a poll."""
_JITTER = 0.2
_LAST_S = 2.0
"""For the report at the end, when the grace period is nearly over."""


class Heartbeat:
    """Reports to the control plane. `run` is for a task of its own."""

    def __init__(
        self, source: Source, snapshot: Callable[[], Snapshot], metrics: Metrics, *, look_s: float = _LOOK_S
    ) -> None:
        self._source = source
        self._snapshot = snapshot
        self._metrics = metrics
        self._look_s = min(look_s, source.heartbeat_s or look_s)
        self._parted: dict[str, Standing] = {}
        """Egress targets that ended, by id, as their drain left them."""
        self._is_due = asyncio.Event()
        self._is_failing = False

    def part(self, left: Mapping[str, Standing]) -> None:
        """Remember how targets ended that are no longer wanted."""
        self._parted |= left

    def applied(self, wanted: Iterable[str]) -> None:
        """Another configuration runs. Those of `wanted` are alive again; of those that are gone only debts are kept."""
        alive = set(wanted)
        self._parted = {
            id_: standing
            for id_, standing in self._parted.items()
            if id_ not in alive and not (alive and standing.state is Stand.SYNCED)
        }
        self._is_due.set()

    def report(self) -> Report:
        """All workloads as they stand. Drained is proven: nothing runs, and of all that ran nothing is left."""
        snapshot = self._snapshot()
        running = {view.id for view in snapshot.targets}
        parted = [standing for id_, standing in self._parted.items() if id_ not in running]
        found: dict[str, Standing] = {}
        for standing in (*standings(snapshot), *parted):
            before = found.get(standing.workload)
            found[standing.workload] = merged(before, standing) if before else standing
        is_drained = not running and all(standing.state is Stand.SYNCED for standing in parted)
        return Report(tuple(found[name] for name in sorted(found)), is_drained=is_drained, at_ts=snapshot.now_ts)

    async def run(self) -> None:
        """Tell until cancelled: every period, and before that when the state or the configuration is another one."""
        period_s = self._source.heartbeat_s
        told: Report | None = None
        told_s = 0.0
        while True:
            is_applied = self._is_due.is_set()
            self._is_due.clear()
            report, age_s, pause_s = self.report(), time.monotonic() - told_s, self._look_s
            is_news = told is None or (report.state, report.is_drained) != (told.state, told.is_drained)
            if told is None or is_applied or age_s >= period_s or (is_news and age_s >= period_s * _SOONEST):
                is_told = await self._tell(report)
                told, told_s = (report if is_told else None), time.monotonic()
                pause_s = self._look_s if is_told else min(period_s, _RETRY_S)
            await self._pause(pause_s if period_s else None)

    async def last(self) -> None:
        """One more report, if there is time: the process is about to end."""
        if self._source.heartbeat_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    await self._tell(self.report())

    async def _tell(self, report: Report) -> bool:
        """Whether it was told. An outage is one warning."""
        try:
            await self._source.tell(report)
        except ReplicatorError as error:
            if not self._is_failing:
                log.warning("control plane cannot be told, data goes on moving", error=error)
            self._is_failing = True
        else:
            if self._is_failing:
                log.info("control plane is told again")
            self._is_failing = False
        if self._source.heartbeat_s:
            self._metrics.heartbeats.labels("failed" if self._is_failing else "told").inc()
        return not self._is_failing

    async def _pause(self, seconds: float | None) -> None:
        """So long, at random a little less or more so that a fleet does not fall into step; or until `applied`."""
        part = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds is None else seconds * part):
                await self._is_due.wait()
