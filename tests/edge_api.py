"""An Edge API for tests: what it answers on its channels over TLS, and what a device told it."""

import base64
import json
import ssl
from pathlib import Path

from replicator.config.settings import load
from tests.certificates import Certificate, issue

SECRET = "s3cr3t-0f-the-t3st"
PATH = "/api/flotta-management/v1"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def message(version="338", *, s3=(), workloads=None, **content) -> bytes:
    """A message as Flotta's Edge API sends it, with what replicator has no use for."""
    storage = {
        "bucket_host": "play.min.io",
        "bucket_port": 443,
        "bucket_name": "device-bucket-6",
        "bucket_region": "us-east-1",
        "aws_access_key_id": b64("ydayagi1369"),
        "aws_secret_access_key": b64(SECRET),
    } | dict(s3)
    data = {"egress": [{"source": "stats", "target": "statistics"}], "ingress": None}
    workload = {"name": "os-stats", "namespace": "fleet", "specification": "containers: []\n", "data": data}
    return json.dumps(
        {
            "type": "data",
            "directive": "device",
            "message_id": "7f0c",
            "version": 1,
            "sent": "2026-11-22T14:18:01.960Z",
            "content": {
                "device_id": "gateway-7",
                "version": version,
                "configuration": {"heartbeat": {"period_seconds": 60}, "mounts": [], "storage": {"s3": storage}},
                "workloads": [workload] if workloads is None else workloads,
            }
            | content,
        }
    ).encode()


DISCONNECT = json.dumps({"type": "command", "content": {"command": "disconnect", "arguments": None}}).encode()


class EdgeApi:
    """What the stub answers on the two channels, and hears from the device."""

    def __init__(self, reply) -> None:
        self._reply = reply
        self.data = reply(200, {"ETag": '"1"', "Content-Type": "application/json"}, message())
        self.control = reply()
        self.taken = reply()
        """The answer to what the device says."""
        self.heard: list[dict] = []
        """What it said, and was taken."""

    def says(self, body: bytes, status=200, **headers: str) -> None:
        self.data = self._reply(status, headers, body)

    def disconnects(self) -> None:
        self.control = self._reply(body=DISCONNECT)

    def knows_it_again(self) -> None:
        self.control = self._reply()

    def reports(self) -> list[dict]:
        """The extensions of the heartbeats that were taken."""
        return [heartbeat["content"]["replication"] for heartbeat in self.heard]

    def __call__(self, request):
        if request.method == "POST":
            if self.taken.status == 200:
                self.heard.append(json.loads(request.body))
            return self.taken
        if "/control/" in request.target:
            return self.control
        etag = self.data.headers.get("ETag")
        return self._reply(304) if etag and request.headers.get("if-none-match") == etag else self.data


def write_identity(directory: Path, authority: Certificate, **certificate) -> Path:
    """The device's certificate and key on disk, and the authority that it trusts."""
    directory.mkdir(exist_ok=True)
    device = issue("gateway-7", by=authority, **certificate)
    (directory / "cert.pem").write_text(device.pem)
    (directory / "key.pem").write_text(device.key_pem)
    (directory / "ca.pem").write_text(authority.pem)
    return directory


def server_context(directory: Path, authority: Certificate) -> ssl.SSLContext:
    """Of a server that wants to see a certificate of the authority."""
    context = issue("edge", by=authority).server_context(directory)
    context.load_verify_locations(cadata=authority.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def words_of(endpoint: str, identity: Path, home: Path) -> dict[str, str]:
    """The settings of a device whose Edge API is there."""
    return {
        "source": "edge-api",
        "device": "gateway-7",
        "edge_api_url": endpoint + PATH,
        "edge_api_cert": str(identity / "cert.pem"),
        "edge_api_key": str(identity / "key.pem"),
        "edge_api_ca": str(identity / "ca.pem"),
        "volumes_dir": str(home / "volumes"),
        "state_dir": str(home / "state"),
    }


def settings_of(endpoint: str, identity: Path, home: Path, **changes):
    return load(words_of(endpoint, identity, home) | changes, {}).settings
