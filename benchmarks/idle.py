"""What a gateway gets and pays all year: the latency from close() to visible object, and the cost of an idle minute.

    python benchmarks/idle.py [--files 100] [--idle-seconds 60] [--watcher auto|off]

Runs `replicator run` as a process of its own against localbucket (the `demo` extra), one target each way. Prints the
p50 and p99 of the latency, and for the idle time the whole process' CPU seconds a minute, resident memory and S3
requests by operation. Quote figures of one run together: machines differ.
"""

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read()
    except (urllib.error.URLError, ConnectionError):
        return None


def wait_for(url: str, *, within_s: float = 30, step_s: float = 0.002) -> float:
    """Seconds until `url` answers with 200."""
    began = time.perf_counter()
    while fetch(url) is None:
        if time.perf_counter() - began > within_s:
            raise SystemExit(f"{url} did not answer within {within_s} s")
        time.sleep(step_s)
    return time.perf_counter() - began


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def requests(metrics: bytes | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for operation, value in re.findall(
        r'replicator_s3_requests_total{.*operation="(\w+)"} (\S+)', (metrics or b"").decode()
    ):
        found[operation] = found.get(operation, 0) + float(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--idle-seconds", type=float, default=60)
    parser.add_argument("--watcher", default="auto")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="replicator-bench-"))
    s3_port, http_port = free_port(), free_port()
    bucket = f"http://127.0.0.1:{s3_port}/bench"
    outbox = home / "export/out"
    outbox.mkdir(parents=True)
    (home / "s3/bench").mkdir(parents=True)
    environment = os.environ | {
        "REPLICATOR_EGRESS": "out=sent",
        "REPLICATOR_INGRESS": "incoming=in",
        "REPLICATOR_EXPORT_DIR": str(home / "export"),
        "REPLICATOR_STATE_DIR": str(home / "state"),
        "REPLICATOR_S3_SCHEME": "http",
        "REPLICATOR_WATCHER": options.watcher,
        "REPLICATOR_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "REPLICATOR_LOG_LEVEL": "warning",
        "OBC_BUCKET_HOST": "127.0.0.1",
        "OBC_BUCKET_PORT": str(s3_port),
        "OBC_BUCKET_NAME": "bench",
        "OBC_AWS_ACCESS_KEY_ID": "bench",
        "OBC_AWS_SECRET_ACCESS_KEY": "bench-secret",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "localbucket", str(home / "s3"), "--port", str(s3_port)], stderr=subprocess.DEVNULL
    )
    replicator = None
    try:
        wait_for(f"{bucket}?list-type=2")
        replicator = subprocess.Popen([sys.executable, "-m", "replicator", "run"], env=environment)
        wait_for(f"http://127.0.0.1:{http_port}/readyz")
        latencies = []
        for number in range(options.files):
            (outbox / f"f{number}").write_bytes(os.urandom(4096))
            latencies.append(wait_for(f"{bucket}/sent/f{number}"))
            time.sleep(0.05)
        latencies.sort()
        p99 = latencies[min(len(latencies) - 1, round(0.99 * len(latencies)))]
        print(
            f"close to visible, {options.files} files of 4 KiB, watcher {options.watcher}: "
            f"p50 {statistics.median(latencies) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"
        )
        time.sleep(3)  # let the last window of the debounce pass
        before, spent = requests(fetch(f"http://127.0.0.1:{http_port}/metrics")), cpu_s(replicator.pid)
        time.sleep(options.idle_seconds)
        spent = cpu_s(replicator.pid) - spent
        after = requests(fetch(f"http://127.0.0.1:{http_port}/metrics"))
        idle = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
        print(
            f"idle for {options.idle_seconds:.0f} s: {spent * 60 / options.idle_seconds:.2f} CPU s a minute, "
            f"{rss_mib(replicator.pid):.0f} MiB resident, S3 requests {idle or 'none'}"
        )
    finally:
        for process in filter(None, (replicator, server)):
            process.terminate()
            process.wait()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
