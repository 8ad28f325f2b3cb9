"""How the control plane grows: the Edge API with thousands of devices, the operator with thousands of EdgeDevices.

    python benchmarks/fleet.py [--devices 10000] [--seconds 60] [--poll-s 30] [--operated 2000]

Runs `replicator edge-api` and `replicator operator` as processes of their own against the API server of the tests.
Every simulated device has its own certificate and one kept-alive TLS connection with both sides verified. First they
poll as devices do, spread over the poll interval; then as fast as the Edge API answers. Requests a second a core are
requests divided by the server's own CPU seconds, so that the load generator beside it is in nobody's figures.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idle import cpu_s, free_port, rss_mib, wait_for

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.apiserver.server import ApiServer  # noqa: E402
from tests.certificates import Certificate, issue  # noqa: E402

NAMESPACE = "fleet"
GROUP = "management.project-flotta.io/v1alpha1"
BASE = "/api/flotta-management/v1"
CONNECTING = 64
"""Devices that shake hands at a time."""
IN_FLIGHT = 64
"""Requests under way at a time when it is about throughput."""


@dataclass
class Device:
    """One simulated device: its certificate, its connection, what it knows."""

    name: str
    context: ssl.SSLContext | None
    etag: str = ""
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def connect(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=self.context, server_hostname="127.0.0.1"
        )
        self.context = None

    async def poll(self) -> int:
        """Ask for the configuration; the status."""
        assert self.reader
        assert self.writer
        condition = f"If-None-Match: {self.etag}\r\n" if self.etag else ""
        self.writer.write(f"GET {BASE}/data/{self.name}/in HTTP/1.1\r\nHost: edge\r\n{condition}\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if length := int(headers.get("content-length", 0)):
            await self.reader.readexactly(length)
        self.etag = headers.get("etag", self.etag)
        return int(lines[0].split()[1])


@dataclass
class Tally:
    """What came of many polls."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    async def poll(self, device: Device) -> None:
        began = time.perf_counter()
        self.statuses[await device.poll()] += 1
        self.seconds.append(time.perf_counter() - began)

    def __str__(self) -> str:
        total = self.statuses.total()
        ordered = sorted(self.seconds)
        p99 = ordered[min(total - 1, round(0.99 * total))]
        share = self.statuses[304] / total
        return (
            f"{total:,} requests, {share:.1%} of them 304, others {dict(self.statuses - Counter({304: total}))}, "
            f"p50 {statistics.median(ordered) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"
        )


def device_names(count: int) -> list[str]:
    return [f"device-{number:05d}" for number in range(count)]


def edge_device(name: str, storage: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"dc": "home"}}
    return {"apiVersion": GROUP, "kind": "EdgeDevice", "metadata": metadata, "spec": {"storage": {"s3": storage}}}


def furnish(server: ApiServer, names: Sequence[str]) -> None:
    """What the devices are told: one workload for all, and one bucket of the user's own."""
    for name in names:
        server.put(edge_device(name, {"configMapName": "bucket", "secretName": "bucket"}))
    bucket = {"BUCKET_HOST": "s3.example", "BUCKET_NAME": "fleet", "BUCKET_PORT": "443", "BUCKET_REGION": ""}
    about = {"name": "bucket", "namespace": NAMESPACE}
    keys = {"AWS_ACCESS_KEY_ID": "ZmxlZXQ=", "AWS_SECRET_ACCESS_KEY": "ZmxlZXQtc2VjcmV0"}
    server.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": bucket})
    server.put({"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": keys})
    server.put(
        {
            "apiVersion": GROUP,
            "kind": "EdgeWorkload",
            "metadata": {"name": "os-stats", "namespace": NAMESPACE},
            "spec": {
                "type": "pod",
                "deviceSelector": {"matchLabels": {"dc": "home"}},
                "data": {"egress": [{"source": "stats", "target": "statistics"}]},
                "pod": {"spec": {"containers": [{"name": "stats", "image": "stats:v1"}]}},
            },
        }
    )


def contexts(root: Certificate, names: Sequence[str], home: Path) -> Iterator[Device]:
    """A device each, with a certificate of its own."""
    ca = home / "ca.pem"
    ca.write_text(root.pem)
    for name in names:
        made = issue(name, by=root, unit=NAMESPACE)
        path = home / "client.pem"
        path.write_text(made.key_pem + made.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ca)
        context.load_cert_chain(path)
        yield Device(name, context)


async def connect(devices: Sequence[Device], port: int) -> float:
    """Handshakes a second."""
    turns = asyncio.Semaphore(CONNECTING)

    async def one(device: Device) -> None:
        async with turns:
            await device.connect(port)

    began = time.perf_counter()
    await asyncio.gather(*map(one, devices))
    return len(devices) / (time.perf_counter() - began)


async def polling(devices: Sequence[Device], *, seconds: float, poll_s: float) -> Tally:
    """Every device at its own moment, then once an interval."""
    tally, until = Tally(), time.monotonic() + seconds

    async def one(device: Device) -> None:
        await asyncio.sleep(random.uniform(0, poll_s))
        while time.monotonic() < until:
            await tally.poll(device)
            await asyncio.sleep(poll_s * random.uniform(0.8, 1.2))

    await asyncio.gather(*map(one, devices))
    return tally


async def rushing(devices: Sequence[Device], *, seconds: float) -> Tally:
    """As fast as it answers, a different device each time."""
    tally, until = Tally(), time.monotonic() + seconds

    async def one(share: Sequence[Device]) -> None:
        while time.monotonic() < until:
            for device in share:
                await tally.poll(device)
                if time.monotonic() >= until:
                    return

    await asyncio.gather(*(one(devices[number::IN_FLIGHT]) for number in range(IN_FLIGHT)))
    return tally


def edge_api(server: ApiServer, options: argparse.Namespace, home: Path) -> None:
    names = device_names(options.devices)
    furnish(server, names)
    root = issue("fleet", is_authority=True)
    port, http_port = free_port(), free_port()
    host = issue("localhost", by=root)
    for name, text in (("ca.crt", root.pem), ("server.crt", host.pem), ("server.key", host.key_pem)):
        (home / name).write_text(text)
        (home / name).chmod(0o600)
    environment = os.environ | {
        "KUBECONFIG": str(server.kubeconfig(home / "kubeconfig")),
        "REPLICATOR_CONTROL_EDGE_LISTEN": f"127.0.0.1:{port}",
        "REPLICATOR_CONTROL_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "REPLICATOR_CONTROL_EDGE_CERT": str(home / "server.crt"),
        "REPLICATOR_CONTROL_EDGE_KEY": str(home / "server.key"),
        "REPLICATOR_CONTROL_EDGE_CA": str(home / "ca.crt"),
        "REPLICATOR_CONTROL_EDGE_CONNECTIONS": str(options.devices + 100),
        "REPLICATOR_CONTROL_EDGE_RATE": "100",
        "REPLICATOR_CONTROL_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "replicator", "edge-api"], env=environment)
    try:
        wait_for(f"http://127.0.0.1:{http_port}/readyz", within_s=120, step_s=0.05)
        asyncio.run(visit(process.pid, list(contexts(root, names, home)), port, options))
    finally:
        process.terminate()
        process.wait()


async def visit(pid: int, devices: Sequence[Device], port: int, options: argparse.Namespace) -> None:
    """Connect, ask once, ask as devices do, ask as fast as it goes; each with the server's own CPU time."""
    empty_mib, spent = rss_mib(pid), cpu_s(pid)
    rate = await connect(devices, port)
    spent = cpu_s(pid) - spent
    print(
        f"{len(devices):,} handshakes: {rate:.0f} a second beside the load generator, "
        f"{len(devices) / spent:.0f} a second a core"
    )
    first = Tally()
    for number in range(0, len(devices), 256):
        await asyncio.gather(*map(first.poll, devices[number : number + 256]))
    print(f"first poll: {first}")
    spent = cpu_s(pid)
    steady = await polling(devices, seconds=options.seconds, poll_s=options.poll_s)
    spent = cpu_s(pid) - spent
    print(f"as devices poll, each every {options.poll_s:.0f} s: {steady}; {spent:.2f} CPU s")
    spent = cpu_s(pid)
    rush = await rushing(devices, seconds=options.seconds / 4)
    spent = cpu_s(pid) - spent
    print(f"as fast as it answers: {rush}; {rush.statuses.total() / spent:.0f} requests a second a core")
    print(f"resident: {empty_mib:.0f} MiB before the first connection, {rss_mib(pid):.0f} MiB with all of them")


def operator(server: ApiServer, options: argparse.Namespace, home: Path) -> None:
    names = device_names(options.operated)
    http_port = free_port()
    environment = os.environ | {
        "KUBECONFIG": str(server.kubeconfig(home / "kubeconfig")),
        "REPLICATOR_CONTROL_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "REPLICATOR_CONTROL_AUTO_CREATE": "true",
        "REPLICATOR_CONTROL_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "replicator", "operator"], env=environment)
    try:
        wait_for(f"http://127.0.0.1:{http_port}/readyz", within_s=60, step_s=0.05)
        empty_mib, spent, began = rss_mib(process.pid), cpu_s(process.pid), time.perf_counter()
        for name in names:
            server.put(edge_device(name, {}))
        while any(not server.get("objectbucketclaims", NAMESPACE, name) for name in names):
            time.sleep(0.2)
        took, spent = time.perf_counter() - began, cpu_s(process.pid) - spent
        grown = rss_mib(process.pid) - empty_mib
        print(
            f"{len(names):,} devices registered: claims after {took:.1f} s, {len(names) / took:.0f} devices a second, "
            f"{spent / len(names) * 1000:.2f} ms CPU and {grown / len(names) * 1024:.1f} KiB a device"
        )
        time.sleep(5)
        spent, began = cpu_s(process.pid), time.perf_counter()
        for name in names:
            server.edit("edgedevices", NAMESPACE, name, {"status": {"phase": "up"}}, subresource="status")
        time.sleep(max(0, 10 - (time.perf_counter() - began)))
        spent = cpu_s(process.pid) - spent
        print(f"{len(names):,} heartbeats: {spent / len(names) * 1000:.2f} ms CPU each")
        print(f"resident: {empty_mib:.0f} MiB at first, {rss_mib(process.pid):.0f} MiB at last")
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def place() -> Iterator[tuple[ApiServer, Path]]:
    home = Path(tempfile.mkdtemp(prefix="replicator-fleet-"))
    server = ApiServer()
    try:
        yield server, home
    finally:
        server.close()
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--poll-s", type=float, default=30)
    parser.add_argument("--operated", type=int, default=2000)
    options = parser.parse_args()
    with place() as (server, home):
        edge_api(server, options, home)
    with place() as (server, home):
        operator(server, options, home)


if __name__ == "__main__":
    main()
