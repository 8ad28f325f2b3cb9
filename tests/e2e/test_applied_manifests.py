"""Manifests as people apply them, word for word but for the bucket's address: each way from them to files and back."""

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.apiserver.server import ApiServer
from tests.e2e.chain import edge_api

MANIFESTS = Path(__file__).parents[1] / "unit/config/manifests"
NAMESPACE = "edgedevice-namespace"
DEVICE = "242e48d0-286b-4170-9b97-95502066e6ae"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def documents(storage) -> Iterator[dict]:
    """Both workloads, the device, its ConfigMap and Secret, in the device's namespace as by `kubectl apply -n`."""
    endpoint = urlsplit(storage.endpoint)
    address = {"BUCKET_HOST": endpoint.hostname, "BUCKET_PORT": str(endpoint.port), "BUCKET_NAME": storage.bucket}
    keys = {"AWS_ACCESS_KEY_ID": storage.access_key_id, "AWS_SECRET_ACCESS_KEY": storage.secret_access_key}
    encoded = {word: base64.b64encode(key.get_secret_value().encode()).decode() for word, key in keys.items()}
    for name in ("edgedevice", "os-stats", "telemetry", "s3configmap", "s3secret"):
        found = yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())
        found["metadata"].setdefault("namespace", NAMESPACE)
        if found["kind"] in ("ConfigMap", "Secret"):
            found["data"] |= address if found["kind"] == "ConfigMap" else encoded
        yield found


@pytest.fixture
def cluster(storage):
    with ApiServer() as server:
        for one in documents(storage):
            server.put(one)
        yield server


@pytest.fixture(params=["kubernetes", "edge-api"])
async def device(request, bare, cluster, tmp_path, until):
    """The device's process, which knows the cluster by itself or by the Edge API."""
    for path in ("os-stats/stats", "telemetry/local/upload/log", "telemetry/local/upload/telemetry"):
        (tmp_path / "volumes" / path).mkdir(parents=True)
    if request.param == "edge-api":
        async with edge_api(bare, cluster, tmp_path / "edge", until=until) as edge:
            bare.env |= edge.words_of(DEVICE, unit=NAMESPACE)
            yield bare
        return
    bare.env |= {
        "KUBECONFIG": str(cluster.kubeconfig(tmp_path / "kubeconfig", namespace=NAMESPACE)),
        "REPLICATOR_SOURCE": "kubernetes",
        "REPLICATOR_DEVICE": DEVICE,
        "REPLICATOR_VOLUMES_DIR": str(tmp_path / "volumes"),
        "REPLICATOR_STATE_DIR": str(tmp_path / "state"),
        "REPLICATOR_S3_SCHEME": "http",
    }
    yield bare


async def test_applied_manifests_move_files(device, witness, until, tmp_path):
    """Every mapping of both workloads, through external storage: up within moments, down by the poll."""
    volumes = tmp_path / "volumes"
    sent = {
        "os-stats/stats/cpu": "statistics/cpu",
        "telemetry/local/upload/log/today": "remote/log/today",
        "telemetry/local/upload/telemetry/1": "remote/telemetry/1",
    }
    await witness.put("remote/data/model", b"weights")
    async with device.running() as service:
        for path in sent:
            (volumes / path).write_text(path)
        await until(service.is_in_step, within_s=30)
        for path, key in sent.items():
            await until(lambda key=key: witness.keys(key), within_s=30)
            assert await witness.get(key) == path.encode()
        fetched = volumes / "telemetry/local/download/data/model"
        await until(fetched.exists, within_s=30)

    assert fetched.read_bytes() == b"weights"
