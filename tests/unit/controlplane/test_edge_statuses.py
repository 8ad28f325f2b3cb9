"""Heartbeats: what becomes of them in the cluster, and what of an API server that refuses them."""

import asyncio
import logging
import math
from dataclasses import dataclass

import pytest

from replicator.cluster.client import Cluster
from replicator.controlplane.edge_api.heartbeat import Heartbeat, Heartbeats
from replicator.observe.edge_metrics import EdgeMetrics
from replicator.observe.standing import Report, Stand, Standing, to_json
from tests.apiserver.server import ApiServer
from tests.edge import device
from tests.waiting import eventually

KEY = ("fleet", "gateway-7")
NOW = 1_795_435_200.0
"""2026-11-23T12:00:00Z"""


def report(*, pending=0, is_drained=False, at_ts=0.0) -> dict:
    state = Stand.LAGGING if pending else Stand.SYNCED
    standing = Standing("os-stats", state, pending_files=pending, last_upload_ts=NOW - 60)
    return to_json(Report((standing,), is_drained, at_ts))


class Clock:
    """Time as the test has it; whoever sleeps wakes when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []
        self.go = asyncio.Event()

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.go.wait()


@dataclass(frozen=True)
class Taking:
    cluster: ApiServer
    all: Heartbeats

    async def __call__(self, **content) -> bool:
        """Tell one heartbeat."""
        (device,) = self.cluster.list("edgedevices")
        return await self.all.take(device, Heartbeat.of(content))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def taking(cluster, clock):
    """Heartbeats of one device, with a way to tell one."""
    async with Cluster(cluster.access()) as client:
        heartbeats = Heartbeats(client, EdgeMetrics(), clock=clock, now=lambda: NOW, sleep=clock.sleep)

        yield Taking(cluster, heartbeats)
        await heartbeats.finish()


def status(cluster) -> dict:
    return cluster.get("edgedevices", *KEY).get("status") or {}


def patches(cluster) -> int:
    return cluster.count("patch", "edgedevices")


async def test_report_becomes_the_status(cluster, taking):
    """Pending work, the last upload and the conditions, at our time: a device's clock may be off by years."""
    assert await taking(replication=report(pending=3, at_ts=5.0))

    replication = status(cluster)["replication"]
    assert (replication["pendingFiles"], replication["reportedAt"]) == (3, "2026-11-23T12:00:00Z")
    assert replication["lastUpload"] == "2026-11-23T11:59:00Z"
    conditions = {one["type"]: one["status"] for one in status(cluster)["conditions"]}
    assert conditions == {"Synced": "False", "Lagging": "True", "Blocked": "False"}


async def test_heartbeat_of_flottas_agent_moves_the_last_upload(cluster, taking):
    """Of workloads that are listed; others are Flotta's to enter, and the rest of the status is not touched."""
    listed = {"name": "os-stats", "phase": "Running", "lastTransitionTime": "2026-11-23T10:00:00Z"}
    cluster.edit("edgedevices", *KEY, {"status": {"phase": "up", "workloads": [listed]}}, subresource="status")
    uploads = [
        {"name": "os-stats", "status": "Running", "last_data_upload": "2026-11-23T12:59:00.123+01:00"},
        {"name": "unknown", "last_data_upload": "2026-11-23T11:59:00Z"},
        {"name": "never", "last_data_upload": "0001-01-01T00:00:00.000Z"},
    ]
    assert await taking(status="up", version="1", workloads=uploads, events=[])

    assert status(cluster)["workloads"] == [listed | {"lastDataUpload": "2026-11-23T11:59:00Z"}]
    assert status(cluster)["phase"] == "up"


async def test_same_content_is_written_once_and_as_a_sign_of_life(cluster, taking, clock):
    """What says the same costs the API server nothing for five minutes."""
    for _ in range(20):
        clock.now_s += 14
        assert await taking(replication=report())

    assert patches(cluster) == 1
    clock.now_s += 40
    await taking(replication=report())
    assert patches(cluster) == 2


async def test_news_in_a_hurry_are_put_together(cluster, taking, clock):
    """At most one patch in ten seconds; the last word is written."""
    for pending in range(5):
        assert await taking(replication=report(pending=pending))
    await eventually(lambda: clock.waits == [10.0])
    assert patches(cluster) == 1

    clock.go.set()
    await eventually(lambda: patches(cluster) == 2)
    assert status(cluster)["replication"]["pendingFiles"] == 4


async def test_word_of_a_drain_is_written_at_once(cluster, taking):
    """Its bucket waits for it: no rhythm stands in its way, and once is enough."""
    await taking(replication=report())
    for _ in range(3):
        assert await taking(replication=report(is_drained=True))

    assert status(cluster)["replication"]["drainedAt"] == "2026-11-23T12:00:00Z"
    assert patches(cluster) == 2


async def test_drain_of_a_device_made_again_is_written_again(cluster, taking):
    """Another uid is another device, which has said nothing yet."""
    await taking(replication=report(is_drained=True))
    cluster.delete("edgedevices", *KEY)
    cluster.put(device())

    assert await taking(replication=report(is_drained=True))
    assert "drainedAt" in status(cluster)["replication"]


@pytest.mark.fault("E5")
@pytest.mark.parametrize("code", [403, 409, 422, 429, 500])
async def test_status_that_cannot_be_written_is_told_and_dropped(cluster, taking, clock, caplog, code):
    """One line, no crash, and the next heartbeat has it; the word of a drain is asked for again."""
    fault = cluster.answer(code, plural="edgedevices", verb="patch", times=math.inf)
    with caplog.at_level(logging.WARNING):
        assert await taking(replication=report(pending=1))
        assert not await taking(replication=report(is_drained=True))

    assert "status not written" in caplog.text
    fault.times = 0
    clock.now_s += 11
    assert await taking(replication=report(is_drained=True))
    assert "drainedAt" in status(cluster)["replication"]


@pytest.mark.fault("E5")
async def test_conflict_is_tried_again_on_the_fresh_object(cluster, taking):
    """Somebody else entered a workload in between: a list is replaced as a whole, and his entry stays."""
    one, other = ({"name": name, "phase": "Running", "lastTransitionTime": None} for name in ("os-stats", "other"))
    cluster.edit("edgedevices", *KEY, {"status": {"workloads": [one]}}, subresource="status")
    stale = cluster.get("edgedevices", *KEY)
    cluster.edit("edgedevices", *KEY, {"status": {"workloads": [one, other]}}, subresource="status")

    assert await taking.all.take(stale, Heartbeat.of({"replication": report(pending=2)}))
    assert [workload["name"] for workload in status(cluster)["workloads"]] == ["os-stats", "other"]
    assert status(cluster)["replication"]["pendingFiles"] == 2
    assert patches(cluster) == 2


async def test_device_that_vanished_meanwhile_is_no_fault(cluster, taking):
    """Its heartbeat has nowhere to go."""
    gone = cluster.get("edgedevices", *KEY)
    cluster.delete("edgedevices", *KEY)

    await taking.all.take(gone, Heartbeat.of({"replication": report()}))


@pytest.mark.fault("E5")
async def test_devices_are_served_while_no_status_can_be_written(cluster, edge):
    """A right that is missing costs the status and nothing else."""
    cluster.answer(403, plural="edgedevices", verb="patch", times=math.inf)
    one = edge.device()

    assert (await asyncio.to_thread(one.tell, {"replication": report(pending=1)})).status == 200
    assert (await asyncio.to_thread(one.tell, {"replication": report(is_drained=True)})).status == 503
    assert (await asyncio.to_thread(one.ask)).status == 200
    assert edge.metric('replicator_edge_heartbeats_total{outcome="failed"}') == 2


@pytest.mark.parametrize(
    "content", [None, [], "x", {"workloads": [{}]}, {"replication": 7}, {"workloads": [{"name": 7}]}]
)
def test_what_is_no_heartbeat_is_refused(content):
    """One error, which quotes nothing."""
    with pytest.raises(ValueError, match=r"^not a "):
        Heartbeat.of(content)
