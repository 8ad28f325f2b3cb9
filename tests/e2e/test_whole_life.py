"""A device's whole life in a cluster: operator, provisioner, the device's own process and a real store, end to end."""

import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import SecretStr

from replicator.cluster.client import Cluster
from tests.apiserver.server import ApiServer
from tests.provisioner import Provisioner, running

MANIFESTS = Path(__file__).parents[1] / "unit/config/manifests"
NAMESPACE = "edgedevice-namespace"
DEVICE = "242e48d0-286b-4170-9b97-95502066e6ae"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def manifest(name: str) -> dict[str, Any]:
    """One that people apply, in the device's namespace."""
    found: dict[str, Any] = yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())
    found["metadata"].setdefault("namespace", NAMESPACE)
    return found


def registered() -> dict[str, Any]:
    """The device, which asks for a bucket of the cluster instead of one that it names."""
    device = manifest("edgedevice")
    device["spec"]["storage"] = {"s3": {"createOBC": True}}
    return device


class Site:
    """What stands in the cluster, in few words."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def get(self, plural: str, name: str = DEVICE) -> Any:
        return self._server.get(plural, NAMESPACE, name)

    def is_true(self, plural: str, name: str, condition: str) -> bool:
        conditions = ((self.get(plural, name) or {}).get("status") or {}).get("conditions") or ()
        return any((one["type"], one["status"]) == (condition, "True") for one in conditions)

    def is_synced(self) -> bool:
        """By the conditions that people look at, of the device and of both workloads."""
        told = [("edgedevices", DEVICE), ("edgeworkloads", "os-stats"), ("edgeworkloads", "telemetry")]
        return all(self.is_true(plural, name, "Synced") for plural, name in told)

    def order_of_departure(self) -> list[str]:
        """What the API server was asked, in its order, each step once."""
        steps = {}
        for one in self._server.requests:
            if one.verb == "delete" and one.plural == "objectbucketclaims":
                steps["claim deleted"] = True
            told = ((one.body or {}).get("status") or {}).get("replication") if one.subresource == "status" else None
            if (told or {}).get("drainedAt"):
                steps["drained"] = True
        return list(steps)

    def left(self) -> list[str]:
        """What there is of the device's storage and of the device."""
        return [plural for plural in ("edgedevices", "objectbucketclaims", "configmaps", "secrets") if self.get(plural)]


@pytest.fixture
def cluster():
    with ApiServer() as server:
        yield server


@pytest.fixture
async def provisioner(cluster, witness, storage):
    endpoint = urlsplit(storage.endpoint)
    address = {"BUCKET_HOST": str(endpoint.hostname), "BUCKET_PORT": str(endpoint.port)}
    access = cluster.access(fixed_token=SecretStr("provisioner"))
    async with Cluster(access) as client, running(Provisioner(client, witness.client, address=address)) as one:
        yield one


@pytest.fixture
async def operator(bare, cluster, provisioner, tmp_path):
    """`replicator operator` as a process, ended as its Deployment ends it."""
    words = {"endpoint": "claim", "ca_secret": "", "http_listen": "", "storage_class": "buckets", "tell_s": "1"}
    process = await bare.start(
        "operator",
        KUBECONFIG=str(cluster.kubeconfig(tmp_path / "operator", namespace="replicator")),
        **{f"REPLICATOR_CONTROL_{name.upper()}": text for name, text in words.items()},
    )
    yield process
    process.send_signal(signal.SIGTERM)
    _, log = await process.communicate()
    assert process.returncode == 0, log
    assert b"testing-key" not in log


@pytest.fixture
def device(bare, cluster, tmp_path):
    """The device's process: it knows its name and its cluster, and no bucket."""
    bare.env |= {
        "KUBECONFIG": str(cluster.kubeconfig(tmp_path / "device", namespace=NAMESPACE)),
        "REPLICATOR_SOURCE": "kubernetes",
        "REPLICATOR_DEVICE": DEVICE,
        "REPLICATOR_KUBERNETES_HEARTBEAT_S": "2",
        "REPLICATOR_VOLUMES_DIR": str(tmp_path / "volumes"),
        "REPLICATOR_S3_SCHEME": "http",
        "REPLICATOR_SWEEP_INTERVAL_S": "1",
    }
    return bare


async def test_device_is_registered_moves_files_leaves_nothing_and_comes_back_clean(
    device, operator, cluster, provisioner, until, tmp_path
):
    """From applied manifests to files both ways and conditions; deleted, all of it goes; registered anew, it is new."""
    site, volumes = Site(cluster), tmp_path / "volumes"
    (volumes / "os-stats/stats").mkdir(parents=True)
    (volumes / "os-stats/stats/cpu").write_text("1")
    for path in ("log", "telemetry"):
        (volumes / "telemetry/local/upload" / path).mkdir(parents=True)
    for one in (manifest("os-stats"), manifest("telemetry"), registered()):
        cluster.put(one)
    (bucket,) = await until(provisioner.buckets, within_s=60)

    async with device.running() as service:
        await until(lambda: provisioner.keys(bucket) == {"statistics/cpu"}, within_s=60)
        provisioner.s3.put_object(Bucket=bucket, Key="remote/data/model", Body=b"weights")
        fetched = volumes / "telemetry/local/download/data/model"
        await until(fetched.exists)
        assert fetched.read_bytes() == b"weights"
        await until(site.is_synced)

        (volumes / "telemetry/local/upload/log/last").write_text("2")
        cluster.delete("edgedevices", NAMESPACE, DEVICE)
        await until(lambda: not site.left())
        assert not provisioner.buckets()
        assert "remote/log/last" in provisioner.purged[bucket]
        assert site.order_of_departure() == ["drained", "claim deleted"]
        assert service.process.returncode is None

        cluster.put(registered())
        (again,) = await until(provisioner.buckets)
        await until(lambda: len(provisioner.keys(again)) == 2)
        await until(site.is_synced)
        assert again != bucket
        assert provisioner.keys(again) == {"statistics/cpu", "remote/log/last"}
        assert fetched.exists()
