"""A real Prometheus watches what really runs: faults make their alerts fire, and every panel has something to show."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.observe.edge_metrics import EdgeMetrics
from replicator.observe.http import serve_pages
from replicator.observe.operator_metrics import OperatorMetrics
from replicator.observe.request import Answer
from tests.faults.wire import error, lost, refused
from tests.prometheus.server import Prometheus, prometheus, queries

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="needs prometheus"),
]

FLOOR_BYTES = 8 * 2**20
SILENT = {
    ("Reports to the control plane", "A"): "with source env nobody is told",
}
"""Queries that have nothing to show in this run, and why."""
WATCHES = 12
"""Of inotify, in a user namespace of the process's own."""


def set_watches(number: int) -> str:
    """What to do there for so many watches."""
    return f"echo {number} >/proc/sys/user/max_inotify_watches"


@pytest.fixture
def disk(bare) -> Iterator[Path]:
    """A small file system where the export is."""
    path = bare.home / "export"
    words = ("mount", "-t", "tmpfs", "-o", "size=48m", "none", str(path))
    if os.geteuid() or subprocess.run(words, check=False).returncode:
        pytest.skip("mounts a small file system, which needs root")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


class Gateway:
    """A replicator with a small disk, few watches, a data budget and a link of its own, and its faults."""

    def __init__(self, command, disk: Path, proxy, witness) -> None:
        self.command, self.disk, self.proxy, self.witness = command, disk, proxy, witness
        self.out = disk / "out"
        self.key = command.home / "key"
        self.key.write_text(command.env.pop("OBC_AWS_SECRET_ACCESS_KEY"))
        self.budget("1GiB/1h")
        few = f'{set_watches(WATCHES)} && exec "$@"'
        command.before = ("unshare", "--user", "--map-root-user", "sh", "-c", few, "sh")
        command.env |= {
            "REPLICATOR_CONFIG": str(command.home / "settings.yaml"),
            "REPLICATOR_INGRESS": "incoming=in,sets=sets",
            "REPLICATOR_FREE_SPACE_FLOOR_BYTES": str(FLOOR_BYTES),
            "REPLICATOR_TARGET_OPTIONS": """{
                "*/ingress/incoming": {"quota_bytes": 100000},
                "*/ingress/sets": {"ingress_publish": "generation", "ingress_marker": "_manifest"}
            }""",
            "REPLICATOR_RETRY_MAX_S": "1",
            "REPLICATOR_PARKED_RETRY_S": "1",
            "REPLICATOR_READY_MAX_AGE_S": "3",
            "OBC_BUCKET_PORT": proxy.endpoint.rpartition(":")[2],
            "OBC_AWS_SECRET_ACCESS_KEY_FILE": str(self.key),
        }

    def budget(self, text: str) -> None:
        (self.command.home / "settings.yaml").write_text(f"data_budget: {text}\nbandwidth: 1GiB/s:1GiB/s\n")

    async def work(self) -> None:
        """Data both ways, and a set that belongs together; one request is never answered."""
        self.proxy.on("put", lost(), key="sent/4")
        self.out.mkdir()
        (self.out / "large").write_bytes(bytes(3 * 2**20))
        for number in range(5):
            (self.out / f"{number}").write_bytes(b"content")
            await self.witness.put(f"incoming/{number}", b"content")
        await self.witness.put("sets/one", b"content")
        await self.witness.put("sets/_manifest", b"one\n")

    async def seed_faults(self) -> None:
        """Of the device, all at once: none of them stops the others."""
        self.secret = self.key.read_text()
        self.key.write_text("")
        for number in range(30):
            (self.out / f"directory-{number}").mkdir()
        os.link(self.out / "0", self.out / "twin")
        self.proxy.on("put", error(403, "AccessDenied"), key="sent/refused", times=None)
        (self.out / "refused").write_bytes(b"the policy has something against this key")
        await self.witness.put("incoming/huge", bytes(200_000))
        (self.disk / "ballast").write_bytes(bytes(30 * 2**20))
        self.budget("3300KB/1h")

    async def mend(self, pid: int) -> None:
        self.key.write_text(self.secret)
        words = ("nsenter", "--user", "--target", str(pid), "sh", "-c", set_watches(1000))
        assert await (await asyncio.create_subprocess_exec(*words)).wait() == 0
        (self.out / "twin").unlink()
        self.proxy.calm()
        await self.witness.delete("incoming/huge")
        (self.disk / "ballast").unlink()
        self.budget("1GiB/1h")


@pytest.fixture
def gateway(replicator, disk, proxy, witness) -> Gateway:
    if subprocess.run(["unshare", "--user", "--map-root-user", "true"], check=False).returncode:
        pytest.skip("limits watches in a user namespace, which may not be made here")
    return Gateway(replicator, disk, proxy, witness)


OF_THE_DEVICE = {
    "ReplicatorConfigurationRejected",
    "ReplicatorWatcherDegraded",
    "ReplicatorFilesLeftOut",
    "ReplicatorFilesFailing",
    "ReplicatorDeviceFull",
    "ReplicatorDiskNearFloor",
    "ReplicatorDataBudgetNearlyUsed",
    "ReplicatorDataLate",
}


@pytest.mark.timeout(300)
async def test_faults_fire_their_alerts_and_no_others(gateway, tmp_path, until):
    """Each seeded fault is told by its alert while it lasts, by no other, and by none once it is mended."""
    async with prometheus(tmp_path / "prometheus", ["replicator.rules.yaml"]) as watching:

        async def fires(*alerts: str) -> None:
            seen: list[set[str]] = []

            async def is_so() -> bool:
                seen.append(await watching.firing())
                return seen[-1] == set(alerts)

            try:
                await until(is_so, within_s=40)
            except AssertionError:
                raise AssertionError(f"{sorted(alerts)} should fire, {sorted(seen[-1])} do") from None

        await fires("ReplicatorAbsent")
        await gateway.work()
        async with gateway.command.running() as service:
            watching.scrape(replicator=f"127.0.0.1:{service.port}")
            await until(service.is_in_step)
            await fires()

            await gateway.seed_faults()
            await fires(*OF_THE_DEVICE)
            await gateway.mend(service.process.pid)
            await fires()

            gateway.proxy.on("", error(403, "InvalidAccessKeyId"), times=None)
            for name in ("a", "b", "c"):  # fewer could be refused for their names
                (gateway.out / name).write_bytes(b"waits")
            await fires("ReplicatorCredentialsRefused", "ReplicatorDataLate")
            gateway.proxy.calm()
            gateway.proxy.on("", refused(), times=None)
            await fires("ReplicatorEndpointAway", "ReplicatorDataLate")
            gateway.proxy.calm()
            await fires()

            gateway.out.rename(gateway.disk / "away")
            await fires("ReplicatorTargetBlocked", "ReplicatorWatcherDegraded")
            (gateway.disk / "away").rename(gateway.out)
            await fires()
        await fires("ReplicatorDown")

        assert await silent(watching, "replicator") == set(SILENT)


async def silent(watching: Prometheus, board: str) -> set[tuple[str, str]]:
    """The queries of a dashboard that gave nothing since the start; a query that is none fails."""
    return {where for where, query in queries(board).items() if not await watching.series(query)}


class ControlPlane:
    """What an operator and an Edge API server expose, with a fleet at work; `is_sound` is whether all goes well."""

    def __init__(self) -> None:
        self.operator, self.edge = OperatorMetrics(), EdgeMetrics()
        self.is_sound = True

    def of_operator(self) -> Answer:
        one, sound = self.operator, self.is_sound
        one.looks.labels("done").inc()
        one.looks.labels("refused").inc(not sound)
        one.look_seconds.observe(0.02)
        one.actions.labels("claim").inc()
        one.devices.set(100)
        one.waiting.set(1)
        one.without_bucket.labels("NoStorage").set(3)
        one.without_bucket.labels("OBCPending").set(not sound)
        one.leaving.labels("draining").set(not sound)
        one.leaving.labels("going").set(not sound)
        one.leader.set(sound)
        return Answer(200, one.render(), one.content_type)

    def of_edge(self) -> Answer:
        one, sound = self.edge, self.is_sound
        one.requests.labels("configuration", "304" if sound else "500").inc(20)
        for counter in (one.accepted, one.established, one.renderings, one.heartbeats.labels("written")):
            counter.inc()
        one.accepted.inc(0 if sound else 100)
        one.turned_away.inc(not sound)
        one.heartbeats.labels("failed").inc(not sound)
        one.connections.set(100)
        one.ready.set(sound)
        one.heard.set(20 if sound else 7200)
        return Answer(200, one.render(), one.content_type)


OF_THE_FLEET = {
    "ReplicatorOperatorIdle",
    "ReplicatorDevicesWithoutBucket",
    "ReplicatorDrainWaits",
    "ReplicatorClaimStays",
    "ReplicatorLooksFailing",
    "ReplicatorEdgeApiNotReady",
    "ReplicatorEdgeApiStale",
    "ReplicatorEdgeApiFull",
    "ReplicatorEdgeHandshakesFail",
    "ReplicatorEdgeApiErrors",
    "ReplicatorEdgeHeartbeatsFail",
}


async def test_control_plane_is_watched(tmp_path, until):
    """The dashboard understands what the operator and the Edge API expose, and the alerts fire; gauges' ones end."""
    fleet = ControlPlane()
    doors = [await serve_pages("127.0.0.1:0", {"/metrics": page}) for page in (fleet.of_operator, fleet.of_edge)]
    async with prometheus(tmp_path / "prometheus", ["controlplane.rules.yaml"]) as watching:

        async def fires(alerts: set[str], *, of: set[str]) -> None:
            async def is_so() -> bool:
                return await watching.firing() & of == alerts

            await until(is_so, within_s=40)

        await fires(ABSENT, of=ABSENT)
        watching.scrape(replicator_operator=doors[0].address, replicator_edge_api=doors[1].address)
        await fires(set(), of=ABSENT | OF_THE_FLEET)
        fleet.is_sound = False
        await fires(OF_THE_FLEET, of=ABSENT | OF_THE_FLEET)
        fleet.is_sound = True
        await fires(set(), of=ABSENT | OF_THE_FLEET - LASTING)

        assert await silent(watching, "controlplane") == set()
    for door in doors:
        await door.close()


ABSENT = {"ReplicatorOperatorAbsent", "ReplicatorEdgeApiAbsent"}
LASTING = {
    "ReplicatorLooksFailing",
    "ReplicatorEdgeApiFull",
    "ReplicatorEdgeHandshakesFail",
    "ReplicatorEdgeApiErrors",
    "ReplicatorEdgeHeartbeatsFail",
}
"""Of rates over minutes: they end later than a test may last. tests/prometheus has their ends."""
