"""The running Edge API server: mirrors, sockets and signals, from start to end.

Stateless: every replica answers any device. SIGTERM makes it unready first, so that no new device is sent here, then
stops listening, finishes what is under way, and ends.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from replicator import __version__
from replicator.cluster import access
from replicator.cluster.client import Cluster
from replicator.controlplane.edge_api.app import EdgeApi
from replicator.controlplane.edge_api.server import LOOKED_AT_S, Door, observed
from replicator.controlplane.edge_api.world import World
from replicator.controlplane.settings import EdgeApiSettings
from replicator.observe import logs
from replicator.observe.edge_metrics import EdgeMetrics

_log = logs.get("edge-api")


@dataclass(slots=True)
class Serving:
    """What runs, for whoever started it."""

    world: World
    metrics: EdgeMetrics
    port: int = 0
    http_port: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    is_ending: bool = False
    has_failed: bool = False

    @property
    def is_ready(self) -> bool:
        return self.world.is_complete and not self.is_ending

    def render(self) -> bytes:
        self.metrics.ready.set(self.is_ready)
        self.metrics.heard.set(self.world.devices.age_s())
        return self.metrics.render()


def main(settings: EdgeApiSettings) -> bool:
    """Serve until SIGTERM or SIGINT; whether nothing failed. Raises ConfigError for what cannot work at all."""
    return asyncio.run(_main(settings, access.find()))


async def _main(settings: EdgeApiSettings, where: access.Access) -> bool:
    async with served(settings, where) as serving:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, serving.stop.set)
        _log.info("edge API serves", address=settings.edge_listen, endpoint=where.server, version=__version__)
        await serving.stop.wait()
        _log.info("edge API ends", seconds=settings.edge_drain_s)
        serving.is_ending = True
        if not serving.has_failed:
            await asyncio.sleep(settings.edge_drain_s)
        return not serving.has_failed


@contextlib.asynccontextmanager
async def served(
    settings: EdgeApiSettings, where: access.Access, *, files_pause_s: float = LOOKED_AT_S
) -> AsyncIterator[Serving]:
    """Serve meanwhile. Devices are answered once the mirrors are complete."""
    metrics = EdgeMetrics()
    async with contextlib.AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(Cluster(where))
        world = World(cluster, settings)
        api = EdgeApi(cluster, world, settings, metrics)
        door = Door(api.app, settings, metrics)
        serving = Serving(world, metrics)
        pages = observed(settings.http_listen, is_ready=lambda: serving.is_ready, render=serving.render)
        serving.http_port = await stack.enter_async_context(pages)
        stack.push_async_callback(api.heartbeats.finish)
        stack.push_async_callback(door.close)
        serving.port = await door.open()
        tasks = {f"mirror {number}": mirror.run() for number, mirror in enumerate(world.mirrors)}
        tasks["certificates"] = door.watch_files(pause_s=files_pause_s)
        await stack.enter_async_context(_running(tasks, serving))
        yield serving


@contextlib.asynccontextmanager
async def _running(coroutines: Mapping[str, Coroutine[Any, Any, None]], serving: Serving) -> AsyncIterator[None]:
    """Run meanwhile what never ends by itself; one that does ends the program."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            _log.error("task ended", task=task.get_name(), error=task.exception() or "without a reason")
            serving.has_failed = True
            serving.stop.set()

    tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in coroutines.items()]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.remove_done_callback(ended)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
