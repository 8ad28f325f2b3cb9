"""A device that is unregistered: the whole process, an Edge API over TLS, and a slow store."""

import json
from urllib.parse import urlsplit

import pytest

from tests.certificates import issue
from tests.edge_api import EdgeApi, b64, message, server_context, words_of, write_identity

pytestmark = pytest.mark.slow

FILES = 200


@pytest.fixture
def api(start_stub, tmp_path, reply, storage, proxy):
    """The device's Edge API: one workload, and the test's bucket behind the proxy."""
    authority = issue("authority", is_authority=True)
    write_identity(tmp_path / "pki", authority)
    stub = start_stub(server_context(tmp_path, authority))
    stub.default = EdgeApi(reply)
    endpoint = urlsplit(proxy.endpoint)
    s3 = {
        "bucket_host": endpoint.hostname,
        "bucket_port": endpoint.port,
        "bucket_name": storage.bucket,
        "bucket_region": storage.region,
        "aws_access_key_id": b64(storage.access_key_id.get_secret_value()),
        "aws_secret_access_key": b64(storage.secret_access_key.get_secret_value()),
    }
    stub.default.says(message(s3=s3))
    return stub


@pytest.fixture
def on_device(bare, api, tmp_path):
    """The command as a device runs it, with heartbeats; only a sweep that somebody asks for looks at files."""
    words = words_of(api.endpoint, tmp_path / "pki", tmp_path) | {
        "edge_api_poll_s": "1",
        "edge_api_heartbeat_s": "60",
        "drain_timeout_s": "120",
        "s3_scheme": "http",
        "watcher": "off",
        "sweep_interval_s": "3600",
    }
    bare.env |= {f"REPLICATOR_{name.upper()}": text for name, text in words.items()}
    del bare.env["REPLICATOR_EXPORT_DIR"]
    return bare


async def test_disconnected_device_drains_a_slow_store_and_says_so(on_device, api, proxy, witness, until, tmp_path):
    """200 files that nobody has looked at yet, a store that takes its time: told drained once all are in the bucket."""
    stats = tmp_path / "volumes/os-stats/stats"
    stats.mkdir(parents=True)
    told = api.default
    async with on_device.running() as service:
        await until(service.is_in_step)
        await until(told.reports)
        for number in range(FILES):
            (stats / f"{number:03}").write_bytes(b"%d" % number)
        proxy.delay_s = 0.1
        told.disconnects()
        await until(lambda: any(report["is_drained"] for report in told.reports()), within_s=120)

        assert len(await witness.keys("statistics/")) == FILES
        assert len(list(stats.iterdir())) == FILES
        assert not (tmp_path / "state/edge-api.json").exists()
        report = told.reports()[-1]
        (standing,) = report["standings"]
        assert (standing["workload"], standing["state"], standing["pending_files"]) == ("os-stats", "synced", 0)
        assert told.heard[-1]["content"]["workloads"][0]["last_data_upload"].endswith("Z")

    assert service.process.returncode == 0
    assert told.reports()[-1] == report, "once it is taken, nothing more is told"
    assert not any(storage_word in json.dumps(told.heard) for storage_word in ("aws_", "bucket"))
