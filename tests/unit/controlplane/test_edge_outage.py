"""The Edge API beside an API server that is away for an hour, by the clocks that its beliefs go by."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from replicator.cluster.client import Cluster
from replicator.controlplane.edge_api.cache import Renderings
from replicator.controlplane.edge_api.heartbeat import Heartbeat, Heartbeats
from replicator.controlplane.edge_api.sidecars import Rules as Sidecars
from replicator.controlplane.edge_api.world import World
from replicator.controlplane.settings import EdgeApiSettings
from replicator.observe.edge_metrics import EdgeMetrics
from replicator.observe.standing import Report, Stand, Standing, to_json
from tests.edge import b64, secret
from tests.waiting import eventually

pytestmark = pytest.mark.fault("E2")

KEY = ("fleet", "gateway-7")
HOUR_S, POLL_S, HEARTBEAT_S = 3600, 30, 60


class Clock:
    """Time as the test has it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def hour(self, step_s: int):
        """One step after the other."""
        for _ in range(HOUR_S // step_s):
            self.now_s += step_s
            yield


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(cluster) -> AsyncIterator[Cluster]:
    async with Cluster(cluster.access()) as one:
        yield one


async def test_every_poll_of_an_hour_gets_what_is_known(client, cluster, clock, caplog):
    """Watched objects and those read by name alike; one warning; what changed meanwhile is told at the next poll."""
    settings = EdgeApiSettings(ca_secret="")
    world = World(client, settings, clock=clock)
    renderings = Renderings(world, settings.rules, Sidecars(), EdgeMetrics())
    tasks = [asyncio.create_task(mirror.run()) for mirror in world.mirrors]
    await eventually(lambda: world.is_complete)
    device = world.devices.objects[KEY]
    before = await renderings.of(device)

    cluster.stop()
    with caplog.at_level(logging.WARNING):
        for _ in clock.hour(POLL_S):
            assert await renderings.of(device) == before
    assert [record.getMessage() for record in caplog.records].count("object cannot be read") == 1
    cluster.put(secret(AWS_SECRET_ACCESS_KEY=b64("an0ther")))
    cluster.start()
    clock.now_s += POLL_S

    assert await renderings.of(device) != before
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_heartbeats_of_an_hour_are_taken_and_the_next_one_is_written(client, cluster, clock, caplog):
    """Devices are told that all is well, one warning says that it is not; the status is current soon after."""
    heartbeats = Heartbeats(client, EdgeMetrics(), clock=clock, now=clock)
    device = cluster.get("edgedevices", *KEY)
    pending = Standing("os-stats", Stand.LAGGING, pending_files=3)
    one = Heartbeat.of({"replication": to_json(Report((pending,), False, 0.0))})

    cluster.stop()
    with caplog.at_level(logging.WARNING):
        for _ in clock.hour(HEARTBEAT_S):
            assert await heartbeats.take(device, one)
    assert [record.getMessage() for record in caplog.records] == ["status not written"]
    cluster.start()
    clock.now_s += HEARTBEAT_S
    assert await heartbeats.take(device, one)

    assert cluster.get("edgedevices", *KEY)["status"]["replication"]["pendingFiles"] == 3
    await heartbeats.finish()
