"""The whole chain: a cluster, `replicator edge-api`, a device's `replicator run`, and a bucket."""

import contextlib
import signal
import socket
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest

from tests.apiserver.server import ApiServer
from tests.edge import BASE, Pki, b64, config_map, device, secret, workload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # two processes have to start

FINALIZER = "replicator.project-flotta.io/storage"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


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


def is_ready(port: int) -> bool:
    with contextlib.suppress(OSError, urllib.error.HTTPError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200
    return False


@pytest.fixture
async def edge_port(bare, cluster, tmp_path, until):
    """`replicator edge-api` as its Deployment runs it, stopped as its Deployment stops it."""
    pki = Pki.at(tmp_path / "pki")
    pki.device()
    port, http_port = free_port(), free_port()
    words = {
        "edge_listen": f"127.0.0.1:{port}",
        "http_listen": f"127.0.0.1:{http_port}",
        "edge_drain_s": "0",
        "ca_secret": "",
        "log_level": "debug",
        **{name: str(path) for name, path in pki.settings().items()},
    }
    process = await bare.start(
        "edge-api",
        KUBECONFIG=str(cluster.kubeconfig(tmp_path / "kubeconfig")),
        **{f"REPLICATOR_CONTROL_{name.upper()}": text for name, text in words.items()},
    )
    try:
        await until(lambda: is_ready(http_port), within_s=60)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
    assert process.returncode == 0, log
    assert b"edge API ends" in log
    for word in ("testing", b64("testing")):
        assert word.encode() not in log, "a key of the bucket"


@pytest.fixture
def on_device(bare, edge_port, tmp_path):
    """The command as a device runs it, with heartbeats."""
    cert = next((tmp_path / "pki").glob("gateway-7-*.crt"))
    words = {
        "source": "edge-api",
        "device": "gateway-7",
        "edge_api_url": f"https://127.0.0.1:{edge_port}{BASE}",
        "edge_api_cert": str(cert),
        "edge_api_key": str(cert.with_suffix(".key")),
        "edge_api_ca": str(tmp_path / "pki/ca.crt"),
        "edge_api_poll_s": "1",
        "edge_api_heartbeat_s": "1",
        "s3_scheme": "http",
        "volumes_dir": str(tmp_path / "volumes"),
        "state_dir": str(tmp_path / "state"),
    }
    bare.env |= {f"REPLICATOR_{name.upper()}": text for name, text in words.items()}
    bare.env.pop("REPLICATOR_EXPORT_DIR", None)
    return bare


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
