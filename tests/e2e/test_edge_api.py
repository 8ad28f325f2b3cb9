"""The whole chain: a cluster, `replicator edge-api`, a device's `replicator run`, and a bucket."""

import time
from urllib.parse import urlsplit

import pytest

from tests.agent import container_in, environment, pod_on_device
from tests.apiserver.server import ApiServer
from tests.e2e.chain import edge_api
from tests.edge import asked_until, b64, config_map, device, secret, workload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # two processes have to start

FINALIZER = "replicator.project-flotta.io/storage"


@pytest.fixture
def cluster(storage):
    """A device whose external storage is the test's bucket, and a workload for it."""
    endpoint = urlsplit(storage.endpoint)
    words = config_map(
        BUCKET_NAME=storage.bucket,
        BUCKET_HOST=endpoint.hostname,
        BUCKET_PORT=str(endpoint.port),
        BUCKET_REGION=storage.region,
    )
    keys = secret(
        AWS_ACCESS_KEY_ID=b64(storage.access_key_id.get_secret_value()),
        AWS_SECRET_ACCESS_KEY=b64(storage.secret_access_key.get_secret_value()),
    )
    data = {
        "egress": [{"source": "stats", "target": "statistics"}],
        "ingress": [{"source": "remote/data", "target": "download"}],
    }
    with ApiServer() as server:
        for one in (words, keys, workload(data=data), device()):
            server.put(one)
        yield server


@pytest.fixture
async def on_device(bare, cluster, tmp_path, until):
    """The command as a device runs it, with heartbeats, beside the Edge API of its cluster."""
    async with edge_api(bare, cluster, tmp_path / "edge", until=until) as edge:
        bare.env |= edge.words_of("gateway-7", unit="fleet")
        yield bare


async def test_files_move_until_the_device_leaves_and_has_drained(on_device, cluster, witness, until, tmp_path):
    """From manifests in a cluster to files in a bucket and back; deleted, it drains, says so, and may go."""
    export = tmp_path / "volumes/os-stats"
    (export / "stats").mkdir(parents=True)
    (export / "stats/first").write_text("1")
    await witness.put("remote/data/model", b"weights")
    cluster.edit("edgedevices", "fleet", "gateway-7", {"metadata": {"finalizers": [FINALIZER]}})

    def replication() -> dict:
        return (cluster.get("edgedevices", "fleet", "gateway-7").get("status") or {}).get("replication") or {}

    async with on_device.running() as service:
        await until(service.is_in_step, within_s=30)
        assert await witness.get("statistics/first") == b"1"
        assert (export / "download/model").read_bytes() == b"weights"
        await until(lambda: "pendingFiles" in replication(), within_s=30)
        assert "drainedAt" not in replication()

        cluster.edit("edgeworkloads", "fleet", "os-stats", {"spec": {"data": {"ingress": None}}})
        await until(lambda: not_of(service, "ingress"), within_s=30)
        (export / "stats/last").write_text("2")
        began = int(time.time())
        cluster.delete("edgedevices", "fleet", "gateway-7")
        await until(lambda: replication().get("drainedAt"), within_s=60)

        assert await witness.get("statistics/last") == b"2"
        assert (export / "stats/last").exists()
        assert (replication()["pendingFiles"], "lastUpload" in replication()) == (0, True)
        assert replication()["drainedAt"] >= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
        assert not (tmp_path / "state/edge-api.json").exists()


async def not_of(service, direction) -> bool:
    return await service.target(direction) is None


async def test_sidecar_of_a_message_moves_files_as_podman_starts_it(bare, cluster, witness, until, tmp_path):
    """From the message over mutual TLS to a process that has nothing but its container's words: both ways, and no data.

    Only what a device gives otherwise is put in its place: the directories of its mounts, and a bucket without TLS.
    """
    words = {"sidecar": "container", "sidecar_image": "registry.example/replicator:1"}
    async with edge_api(bare, cluster, tmp_path / "edge", until=until, **words) as edge:
        asking = edge.pki.device("gateway-7", unit="fleet")
        asking.port = edge.port
        content = (await asked_until(asking, lambda said: said.status == 200)).content
        asking.hang_up()
    assert ["data" in one for one in content["workloads"]] == [False]
    pod = pod_on_device(content, volumes_dir=str(tmp_path / "volumes"))
    sidecar = container_in(pod)
    assert sidecar["image"] == "registry.example/replicator:1"
    hosts = {one["name"]: one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
    mounts = {one["mountPath"]: hosts.get(one["name"]) for one in sidecar["volumeMounts"]}
    assert mounts.keys() == {"/export", "/var/lib/replicator", "/tmp"}
    (tmp_path / "volumes/os-stats/stats").mkdir(parents=True)
    (tmp_path / "volumes/os-stats/stats/cpu").write_text("7")
    await witness.put("remote/data/model", b"weights")

    bare.env = environment(content, sidecar) | {
        "REPLICATOR_EXPORT_DIR": mounts["/export"],
        "REPLICATOR_STATE_DIR": str(tmp_path / "journal"),
        "REPLICATOR_S3_SCHEME": "http",
    }
    async with bare.running() as service:
        await until(service.is_in_step, within_s=30)

    assert await witness.get("statistics/cpu") == b"7"
    assert (tmp_path / "volumes/os-stats/download/model").read_bytes() == b"weights"
