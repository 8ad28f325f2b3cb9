"""The stand of a soak: a real server, the fault proxy, a device on a file system of its own size, the real process."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults import wire
from tests.faults.proxy import Proxy
from tests.soak.gauges import MIB, Sample, sample

_SERVER = """
import sys
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0)
server.start()
print("ready", *server.get_host_and_port(), flush=True)
sys.stdin.read()
"""
DEVICE_MIB = 512
_libc = ctypes.CDLL(None, use_errno=True)

KINDS: dict[str, wire.Fault] = {
    "throttled": wire.error(503, "SlowDown"),
    "broken": wire.error(500, "InternalError"),
    "page": wire.status(200, b"<html>sign in</html>", Content_Type="text/html"),
    "elsewhere": wire.redirect("http://127.0.0.1:9"),
    "refused": wire.refused(),
    "lost": wire.lost(),
    "late": wire.late(20.0),
    "cut": wire.cut(100),
    "short": wire.short(50),
    "flipped": wire.flipped(1000),
    "other etag": wire.etag("0" * 32),
    "no etag": wire.etag(None),
    "stalled": wire.stalled(),
}
"""What befalls a share of all requests."""


class Stand:
    """Everything that a soak needs; `close` takes it all away."""

    def __init__(self, home: Path) -> None:
        self.home, self.log = home, home / "log"
        self.said = ""
        """The end of the log, once closed."""
        self.bucket = "soak"
        self.is_own_device = self._mount()
        self.outbox, self.inbox = home / "export/out", home / "export/in"
        self.outbox.mkdir(parents=True)
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._server.stdout
        _, host, port = next(line for line in self._server.stdout if line.startswith("ready")).split()
        self.proxy = Proxy(f"http://{host}:{port}")
        self.client = self._client(f"http://{host}:{port}")
        self.client.create_bucket(Bucket=self.bucket)
        self.rotate(0)
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        self.kill()
        self.said = self.log.read_text(errors="replace")[-5000:] if self.log.exists() else ""
        self.client.close()
        self.proxy.stop()
        self._server.kill()
        self._server.communicate()
        if self.is_own_device:
            _libc.umount2(os.fsencode(self.home), 2)
        shutil.rmtree(self.home, ignore_errors=True)

    # The process

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process
        return self._process

    def start(self) -> None:
        endpoint = self.proxy.endpoint.removeprefix("http://").split(":")
        environment = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")} | {
            "REPLICATOR_EXPORT_DIR": str(self.home / "export"),
            "REPLICATOR_STATE_DIR": str(self.home / "state"),
            "REPLICATOR_EGRESS": "out=sent",
            "REPLICATOR_INGRESS": "incoming=in",
            "REPLICATOR_S3_SCHEME": "http",
            "REPLICATOR_HTTP_LISTEN": f"127.0.0.1:{self._port}",
            "REPLICATOR_SWEEP_INTERVAL_S": "5",
            "REPLICATOR_READ_TIMEOUT_S": "2",
            "REPLICATOR_RETRY_MAX_S": "5",
            "REPLICATOR_PARKED_RETRY_S": "5",
            "REPLICATOR_FREE_SPACE_FLOOR_BYTES": str(8 * MIB),
            "REPLICATOR_PART_SIZE_BYTES": str(5 * MIB),
            "REPLICATOR_LOG_LEVEL": "warning",
            "BUCKET_HOST": endpoint[0],
            "BUCKET_PORT": endpoint[1],
            "BUCKET_NAME": self.bucket,
            "AWS_ACCESS_KEY_ID_FILE": str(self.home / "credentials/id"),
            "AWS_SECRET_ACCESS_KEY_FILE": str(self.home / "credentials/secret"),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "replicator", "run"], env=environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def pause(self, for_s: float) -> None:
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(for_s)
        self.process.send_signal(signal.SIGCONT)

    def sample(self, at_s: float) -> Sample | None:
        url = f"http://127.0.0.1:{self._port}/metrics"
        return sample(at_s, self.process.pid, home=self.home, metrics_url=url)

    # The faults that are more than one request's

    def rotate(self, number: int) -> None:
        """Other credentials, exchanged as a mounted Secret is."""
        directory, link, temp = self.home / f"secret{number}", self.home / "credentials", self.home / "swap"
        directory.mkdir()
        (directory / "id").write_text(f"ID{number}")
        (directory / "secret").write_text(f"SECRET{number}")
        temp.symlink_to(directory)
        temp.replace(link)

    def outage(self, for_s: float) -> None:
        """No request is answered, and what was under way is cut."""
        rule = self.proxy.on("", wire.refused(), times=None)
        self.proxy.sever()
        time.sleep(for_s)
        rule.times = 0

    def throttle(self, for_s: float) -> None:
        rule = self.proxy.on("", wire.error(503, "SlowDown"), times=None)
        time.sleep(for_s)
        rule.times = 0

    def slow(self, for_s: float) -> None:
        self.proxy.bytes_s = MIB
        time.sleep(for_s)
        self.proxy.bytes_s = 0

    def fill(self, for_s: float) -> None:
        """Leave no room on the device, for journal, temporary files and the workload alike."""
        if not self.is_own_device:
            return
        ballast = self.home / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(MIB))
                file.flush()
        time.sleep(for_s)
        ballast.unlink()

    def hide(self, for_s: float) -> None:
        """The source directory is away for a while."""
        away = self.outbox.with_name("away")
        self.outbox.rename(away)
        time.sleep(for_s)
        with contextlib.suppress(OSError):
            self.outbox.rmdir()
        if self.outbox.exists():  # the workload has begun it anew; what it wrote there is lost with it
            self.outbox.rename(self.home / f"lost{time.monotonic_ns()}")
        away.rename(self.outbox)

    def _mount(self) -> bool:
        """A file system of known size, where that is allowed."""
        options = f"size={DEVICE_MIB}m".encode()
        return _libc.mount(b"soak", os.fsencode(self.home), b"tmpfs", 0, options) == 0

    def _client(self, endpoint: str) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
        return boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="witness",
            aws_secret_access_key="witness",
            region_name="us-east-1",
            config=config,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
