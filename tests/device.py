"""A device under test: the whole engine in this process, a real directory, a real S3 server, a real journal.

Shared by the rooms whose fixtures hand it out.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replicator import once
from replicator.config.settings import load
from replicator.engine import Engine
from replicator.errors import ConfigError
from replicator.model import Direction, Prefix, Storage, Target, TargetOptions
from replicator.observe.metrics import Metrics
from replicator.observe.standing import Report
from replicator.stores.files.export import ignore_lease_signals
from replicator.supervisor import Supervisor
from tests.waiting import eventually

DEADLINE_S = 20


class Scripted:
    """A configuration source whose snapshots the test hands out."""

    def __init__(self, *targets: Target) -> None:
        self._queue: asyncio.Queue[tuple[Target, ...] | ConfigError] = asyncio.Queue()
        self.told: list[Report] = []
        self.heartbeat_s = 0.0
        self.offer(*targets)

    def offer(self, *targets: Target) -> None:
        self._queue.put_nowait(targets)

    def reject(self, error: ConfigError) -> None:
        self._queue.put_nowait(error)

    def read(self) -> tuple[Target, ...]:
        raise NotImplementedError

    async def changes(self) -> AsyncIterator[tuple[Target, ...] | ConfigError]:
        while True:
            yield await self._queue.get()

    async def tell(self, report: Report) -> None:
        self.told.append(report)


@dataclass
class Running:
    """A replicator that runs in this test's event loop."""

    engine: Engine
    supervisor: Supervisor
    source: Any
    """Scripted, unless the test has brought its own."""
    task: asyncio.Task

    def view(self, direction: str = "egress"):
        return next(view for view in self.supervisor.snapshot().targets if view.direction == direction)

    def requests(self) -> dict[str, float]:
        """S3 requests so far, by operation."""
        found: dict[str, float] = {}
        for metric in self.engine.metrics.s3_requests.collect():
            for sample in metric.samples:
                operation = sample.labels["operation"]
                found[operation] = found.get(operation, 0) + sample.value
        return found

    def count(self, outcome: str) -> float:
        """Files settled with this outcome, over all targets."""
        samples = [s for metric in self.engine.metrics.files.collect() for s in metric.samples]
        return sum(s.value for s in samples if s.labels["outcome"] == outcome)

    def retries(self, reason: str) -> float:
        """Attempts that were put off for this reason, over all targets."""
        samples = [s for metric in self.engine.metrics.retries.collect() for s in metric.samples]
        return sum(s.value for s in samples if s.labels.get("reason") == reason and s.name.endswith("_total"))

    async def watching(self, sweeps: int = 2) -> None:
        """Wait until events arrive and the sweep that arming them asks for is over: from now on only events tell.

        The first arming is followed by the second sweep, an arming after a failure by the third.
        """

        def is_watching():
            view = self.view()
            return view.watcher.watches and not view.watcher.degraded and self.sweeps("egress") >= sweeps

        await eventually(is_watching)

    def sweeps(self, direction: str) -> float:
        """Complete sweeps so far."""
        samples = [s for metric in self.engine.metrics.sweeps.collect() for s in metric.samples]
        return sum(s.value for s in samples if s.labels["direction"] == direction)

    async def swept(self) -> None:
        """Wait until every target was swept once more from now on."""
        now = time.time()
        await eventually(lambda: all((v.last_sweep_ts or 0) > now for v in self.supervisor.snapshot().targets))

    async def in_step(self) -> None:
        """Wait until every target was swept once more from now on and nothing is pending."""
        now = time.time()

        def settled():
            views = self.supervisor.snapshot().targets
            return all(v.last_sweep_ts and v.last_sweep_ts > now and v.state == "in-step" for v in views)

        await eventually(settled)


@dataclass
class Device:
    """An export directory, a state directory and a bucket."""

    home: Path
    storage: Storage
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.export.mkdir(parents=True)

    @property
    def export(self) -> Path:
        return self.home / "export"

    @property
    def outbox(self) -> Path:
        """The directory of the usual egress target."""
        return self.export / "out"

    @property
    def inbox(self) -> Path:
        """The directory of the usual ingress target."""
        return self.export / "in"

    def egress(self, subdir: str = "out", prefix: str = "sent/", **options) -> Target:
        return self._target(Direction.EGRESS, subdir, prefix, options)

    def ingress(self, subdir: str = "in", prefix: str = "incoming/", **options) -> Target:
        return self._target(Direction.INGRESS, subdir, prefix, options)

    def _target(self, direction: Direction, subdir: str, prefix: str, options: dict) -> Target:
        return Target(
            "w", direction, str(self.export), subdir, Prefix(prefix), self.storage, TargetOptions(**options), "test"
        )

    def write(self, relpath: str, content: bytes = b"content") -> Path:
        path = self.export / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def effective(self, **overrides: str):
        words = {
            "state_dir": str(self.home / "state"),
            "sweep_interval_s": "1",
            "debounce_quiet_s": "0.05",
            "debounce_ceiling_s": "0.2",
            "free_space_floor_bytes": "0",
            "retry_max_s": "1",
            "parked_retry_s": "1",
            "drain_timeout_s": "5",
            "http_listen": "",
        }
        return load(words | self.settings | {name: str(value) for name, value in overrides.items()}, {}).settings

    @contextlib.asynccontextmanager
    async def running(self, *targets: Target, source: Any = None, **overrides: str) -> AsyncIterator[Running]:
        """Replicate while the block runs; at its end as after SIGTERM. `source` in the place of given targets."""
        ignore_lease_signals()
        source = source or Scripted(*targets)
        async with Engine(self.effective(**overrides), Metrics()) as engine:
            supervisor = Supervisor(engine, source, lambda: self.effective(**overrides))
            running = Running(engine, supervisor, source, asyncio.create_task(supervisor.run()))
            ready = asyncio.create_task(
                eventually(lambda: supervisor.snapshot().targets and supervisor.snapshot().config.valid)
            )
            await asyncio.wait({ready, running.task}, return_when=asyncio.FIRST_COMPLETED)
            if running.task.done():
                ready.cancel()
                await running.task
            await ready
            try:
                yield running
            finally:
                if not running.task.done():
                    supervisor.stop()
                await running.task

    async def sync(self, *targets: Target, **overrides: str):
        """One full pass; the status at its end."""
        return await once.sync(self.effective(**overrides), targets)
