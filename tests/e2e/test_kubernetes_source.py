"""Device mode from a cluster's objects: they are applied, files move; they change, the running process follows."""

from urllib.parse import urlsplit

import pytest

from tests import fleet
from tests.apiserver.server import ApiServer

BOTH_WAYS = {
    "egress": [
        {"source": "local/upload/log", "target": "remote/log"},
        {"source": "local/upload/telemetry", "target": "remote/telemetry"},
    ],
    "ingress": [{"source": "remote/data", "target": "local/download/data"}],
}


@pytest.fixture
def cluster(storage):
    """A cluster with a device, two workloads for it, and external storage."""
    endpoint = urlsplit(storage.endpoint)
    keys = {"AWS_ACCESS_KEY_ID": storage.access_key_id, "AWS_SECRET_ACCESS_KEY": storage.secret_access_key}
    device = fleet.device()
    device["metadata"]["finalizers"] = ["device-finalizer"]
    with ApiServer() as server:
        for one in (
            device,
            fleet.workload("os-stats"),
            fleet.workload("telemetry", data=BOTH_WAYS),
            fleet.config_map(bucket=storage.bucket, BUCKET_HOST=str(endpoint.hostname), BUCKET_PORT=str(endpoint.port)),
            fleet.secret(**{word: key.get_secret_value() for word, key in keys.items()}),
        ):
            server.put(one)
        yield server


@pytest.fixture
def device(bare, cluster, storage):
    """The command as a device process that knows its cluster and nothing else."""
    bare.env |= {
        "KUBECONFIG": str(cluster.kubeconfig(bare.home / "kubeconfig", namespace=fleet.NAMESPACE)),
        "REPLICATOR_SOURCE": "kubernetes",
        "REPLICATOR_DEVICE": fleet.DEVICE,
        "REPLICATOR_VOLUMES_DIR": str(bare.home / "volumes"),
        "REPLICATOR_S3_SCHEME": urlsplit(storage.endpoint).scheme,
        "REPLICATOR_SWEEP_INTERVAL_S": "1",
    }
    for path in ("os-stats/stats", "telemetry/local/upload/log", "telemetry/local/upload/telemetry"):
        (bare.home / "volumes" / path).mkdir(parents=True)
    return bare


@pytest.mark.slow
@pytest.mark.fault("E2")
async def test_device_lives_by_its_objects_in_the_cluster(device, cluster, witness, until):
    """Both ways, beside an API server that goes and a restart without it, up to the device's deletion."""
    volumes = device.home / "volumes"
    (volumes / "os-stats/stats/a").write_bytes(b"1")
    (volumes / "telemetry/local/upload/log/b").write_bytes(b"2")
    await witness.put("remote/data/model", b"3")
    async with device.running() as service:
        await until(lambda: witness.keys("statistics/a"))
        await until(lambda: witness.keys("remote/log/b"))
        fetched = volumes / "telemetry/local/download/data/model"
        await until(lambda: fetched.exists() and fetched.read_bytes() == b"3")
        assert (await service.get("/readyz"))[0] == 200

        cluster.stop()
        (volumes / "os-stats/stats/c").write_bytes(b"4")
        await until(lambda: witness.keys("statistics/c"))

    async with device.running() as service:
        (volumes / "os-stats/stats/d").write_bytes(b"5")
        await until(lambda: witness.keys("statistics/d"))

        async def tells_the_silence():
            config = (await service.status())["config"]
            return "in force is what it said on" in config["error"]

        await until(tells_the_silence)
        cluster.start()
        (volumes / "telemetry/local/upload/telemetry/e").write_bytes(b"6")
        cluster.delete("edgedevices", fleet.NAMESPACE, fleet.DEVICE)

        async def has_left():
            status = await service.status()
            return not status["targets"] and status["config"]["valid"]

        await until(has_left)
        assert await witness.keys("remote/telemetry/e")

        def is_told():
            leaving = cluster.get("edgedevices", fleet.NAMESPACE, fleet.DEVICE)
            return leaving["status"]["replication"].get("drainedAt", "") >= leaving["metadata"]["deletionTimestamp"]

        await until(is_told)
        assert not (device.home / "state/kubernetes.json").exists()
        assert (volumes / "telemetry/local/upload/telemetry/e").exists()
    assert service.process.returncode == 0
    assert not any(fleet.b64(fleet.SECRET_TEXT) in line for line in service.log)
