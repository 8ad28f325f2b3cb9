"""Device mode from mounted manifests: words change on disk, the running process follows."""

import base64
from pathlib import Path
from urllib.parse import urlsplit

import pytest

DEVICE = """
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeDevice
metadata: {name: gateway-7, namespace: factory, labels: {dc: home}}
spec: {storage: {s3: {configMapName: external, secretName: external}}}
"""

WORKLOAD = """
apiVersion: management.project-flotta.io/v1alpha1
kind: EdgeWorkload
metadata: {name: %s, namespace: factory}
spec:
  deviceSelector: {matchLabels: {dc: home}}
  data: {egress: [{source: %s, target: %s}]}
  type: pod
  pod: {spec: {containers: [{name: one, image: example/one}]}}
"""

STORAGE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: external, namespace: factory}
data: {BUCKET_HOST: "%s", BUCKET_PORT: "%s", BUCKET_NAME: "%s", BUCKET_REGION: us-east-1}
---
apiVersion: v1
kind: Secret
metadata: {name: external, namespace: factory}
data: {AWS_ACCESS_KEY_ID: %s, AWS_SECRET_ACCESS_KEY: %s}
"""


@pytest.fixture
def manifests(tmp_path, storage) -> Path:
    """A directory as an operator would mount it: one device, one workload, its storage."""
    directory = tmp_path / "manifests"
    directory.mkdir()
    endpoint = urlsplit(storage.endpoint)
    keys = [
        base64.b64encode(key.get_secret_value().encode()).decode()
        for key in (storage.access_key_id, storage.secret_access_key)
    ]
    (directory / "device.yaml").write_text(DEVICE)
    (directory / "stats.yaml").write_text(WORKLOAD % ("os-stats", "stats", "statistics"))
    (directory / "storage.yaml").write_text(STORAGE % (endpoint.hostname, endpoint.port, storage.bucket, *keys))
    return directory


@pytest.mark.fault("D2")
@pytest.mark.slow
async def test_changed_manifests_retarget_the_running_process(bare, manifests, storage, witness, until):
    """A workload is added, a mapping moves, a file breaks and is mended; the rest goes on and nothing restarts."""
    bare.env |= {
        "REPLICATOR_SOURCE": "files",
        "REPLICATOR_MANIFESTS_DIR": str(manifests),
        "REPLICATOR_VOLUMES_DIR": str(bare.home / "volumes"),
        "REPLICATOR_S3_SCHEME": urlsplit(storage.endpoint).scheme,
        "REPLICATOR_SWEEP_INTERVAL_S": "1",
    }
    stats = bare.home / "volumes/os-stats/stats"
    stats.mkdir(parents=True)
    (bare.home / "volumes/logger/log").mkdir(parents=True)
    async with bare.running() as service:
        await until(service.is_in_step)
        started = (await service.status())["started_ts"]
        (stats / "a").write_bytes(b"1")
        await until(lambda: witness.keys("statistics/a"))

        (manifests / "logger.yaml").write_text(WORKLOAD % ("logger", "log", "logs"))
        (bare.home / "volumes/logger/log/b").write_bytes(b"2")
        await until(lambda: witness.keys("logs/b"))

        (manifests / "logger.yaml").write_text(WORKLOAD % ("logger", "../os-stats", "logs"))

        async def is_rejected():
            config = (await service.status())["config"]
            return config["error"] if not config["valid"] else None

        error = await until(is_rejected)
        assert "logger.yaml" in error
        assert "spec.data.egress[0]" in error
        assert (await service.get("/readyz"))[0] == 503
        (stats / "c").write_bytes(b"3")
        await until(lambda: witness.keys("statistics/c"))

        (manifests / "logger.yaml").write_text(WORKLOAD % ("logger", "log", "elsewhere"))
        await until(lambda: witness.keys("elsewhere/b"))
        await until(service.is_in_step)
        status = await service.status()

        assert sorted(view["id"] for view in status["targets"]) == [
            "logger/egress/elsewhere",
            "os-stats/egress/statistics",
        ]
        assert status["config"]["valid"]
        assert status["started_ts"] == started
    started_lines = [line for line in service.log if "target started" in line and "os-stats" in line]
    assert len(started_lines) == 1
