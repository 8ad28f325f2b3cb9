"""The Edge API between a cluster and a device's process, as its Deployment runs it."""

import contextlib
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.apiserver.server import ApiServer
from tests.edge import BASE, Pki, b64


@dataclass(frozen=True)
class Edge:
    """A running `replicator edge-api`."""

    port: int
    pki: Pki
    home: Path

    def words_of(self, device: str, *, unit: str) -> dict[str, str]:
        """The environment of a device's process: its certificate, its volumes, a bucket without TLS."""
        self.pki.device(device, unit=unit)
        cert = next(self.pki.directory.glob(f"{device}-*.crt"))
        words = {
            "source": "edge-api",
            "device": device,
            "edge_api_url": f"https://127.0.0.1:{self.port}{BASE}",
            "edge_api_cert": str(cert),
            "edge_api_key": str(cert.with_suffix(".key")),
            "edge_api_ca": str(self.pki.directory / "ca.crt"),
            "edge_api_poll_s": "1",
            "edge_api_heartbeat_s": "1",
            "s3_scheme": "http",
            "volumes_dir": str(self.home.parent / "volumes"),
            "state_dir": str(self.home.parent / "state"),
        }
        return {f"REPLICATOR_{name.upper()}": text for name, text in words.items()}


@contextlib.asynccontextmanager
async def edge_api(command: Any, cluster: ApiServer, home: Path, *, until: Any, **settings: str) -> AsyncIterator[Edge]:
    """`replicator edge-api` before a cluster, stopped as its Deployment stops it; its log tells no key."""
    pki = Pki.at(home)
    port, http_port = free_port(), free_port()
    words = {
        "edge_listen": f"127.0.0.1:{port}",
        "http_listen": f"127.0.0.1:{http_port}",
        "edge_drain_s": "0",
        "ca_secret": "",
        "log_level": "debug",
        **{name: str(path) for name, path in pki.settings().items()},
        **settings,
    }
    process = await command.start(
        "edge-api",
        KUBECONFIG=str(cluster.kubeconfig(home / "kubeconfig")),
        **{f"REPLICATOR_CONTROL_{name.upper()}": text for name, text in words.items()},
    )
    try:
        await until(lambda: is_ready(http_port), within_s=60)
        yield Edge(port, pki, home)
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = await process.communicate()
    assert process.returncode == 0, log
    assert b"edge API ends" in log
    for word in ("testing", b64("testing")):
        assert word.encode() not in log, "a key of the bucket"


def is_ready(port: int) -> bool:
    with contextlib.suppress(OSError, urllib.error.HTTPError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]
