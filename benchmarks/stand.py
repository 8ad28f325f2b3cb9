"""What benchmarks stand on: the stub and its proxies as processes, its levers, and one measured command.

Owns: starting and ending them, the environment that every command gets. Never: what is compared with what.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
STUB = HERE / ".build" / "stub"
REPLICATOR = Path(os.environ.get("BENCH_REPLICATOR", HERE.parent / ".venv" / "bin" / "replicator"))
BUCKET = "bench"
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret"}


@dataclass(frozen=True)
class Endpoint:
    scheme: str
    address: str
    """host:port"""
    ca: Path

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"


@dataclass(frozen=True)
class Usage:
    """What one command cost, with all its descendants."""

    wall_s: float
    user_s: float
    system_s: float
    rss_mib: float
    exit_code: int
    timed_out: bool

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s


class Stand:
    """One S3 stub, and as many proxies before it as are asked for. `home` is for their files."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        if not STUB.exists():
            raise SystemExit(f"{STUB.relative_to(HERE.parent)} is not there; `make bench` builds it")
        facts = self._start("serve", "-dir", str(self._home))
        self._admin = f"http://{facts['admin']}/_stub"
        self.http = Endpoint("http", facts["http"], Path(facts["ca"]))
        self.https = Endpoint("https", facts["https"], Path(facts["ca"]))
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.communicate()

    def through(self, endpoint: Endpoint, *, rtt_ms: float = 0, rate: float = 0) -> Endpoint:
        """The same endpoint, `rtt_ms` further away, or behind a link of `rate` bytes a second each way."""
        facts = self._start("proxy", "-to", endpoint.address, "-rtt", f"{rtt_ms}ms", "-rate", str(rate))
        return Endpoint(endpoint.scheme, facts["listen"], endpoint.ca)

    def stats(self) -> dict[str, Any]:
        return self._ask("stats")

    def objects(self) -> dict[str, dict[str, Any]]:
        """Size, ETag and MD5 of the bytes by key."""
        return self._ask(f"objects?bucket={BUCKET}")

    def reset(self) -> None:
        self._ask("reset", b"")

    def empty(self) -> None:
        self._ask(f"empty?bucket={BUCKET}", b"")

    def fill(self, prefix: str, *, count: int, size: int) -> None:
        """Put random objects there, a hundred to a directory."""
        self._ask("fill", json.dumps({"bucket": BUCKET, "prefix": prefix, "count": count, "size": size}).encode())

    def fault(self, *, seconds: float = 0, probability: float = 0, latency_s: float = 0) -> None:
        """Answer 503 SlowDown with a probability, and late, for so long (0: until the next order)."""
        wanted = {"seconds": seconds, "probability": probability, "latency_s": latency_s}
        self._ask("fault", json.dumps(wanted).encode())

    def _ask(self, what: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"{self._admin}/{what}", body, timeout=120) as answer:
            return json.loads(answer.read() or "null")

    def _start(self, *arguments: str) -> dict[str, str]:
        process = subprocess.Popen([str(STUB), *arguments], stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the stub ended with {process.wait()}: {' '.join(arguments)}")
        return json.loads(line)


def environment(home: Path, **more: str) -> dict[str, str]:
    """All that a measured command knows: nothing of the user's own S3 configuration, proxies or certificates."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "AWS_REGION": "us-east-1"} | KEYS | more


def ours(endpoint: Endpoint, *, export: Path, state: Path, **more: object) -> dict[str, str]:
    """The environment of `replicator` for one export and one state directory; `more` are settings in capitals."""
    host, _, port = endpoint.address.rpartition(":")
    settings = {
        "EXPORT_DIR": export,
        "STATE_DIR": state,
        "S3_SCHEME": endpoint.scheme,
        "HTTP_LISTEN": "",
        "LOG_LEVEL": "error",
    } | more
    return environment(
        state.parent,
        BUCKET_HOST=host,
        BUCKET_PORT=port,
        BUCKET_NAME=BUCKET,
        **({"tls.crt": endpoint.ca.read_text()} if endpoint.scheme == "https" else {}),
        **{f"REPLICATOR_{name}": str(value) for name, value in settings.items()},
    )


def measure(
    command: Sequence[str | Path], env: Mapping[str, str], *, output: Path, timeout_s: float = 120
) -> tuple[Usage, str]:
    """Run `command`, its standard output into a file; what it cost, and its last words on standard error."""
    report, errors = output.with_suffix(".usage"), output.with_suffix(".errors")
    launcher = [str(STUB), "measure", "-report", str(report), "-timeout", f"{timeout_s}s", *map(str, command)]
    with output.open("wb") as out, errors.open("wb") as err:
        subprocess.run(launcher, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=True)
    return Usage(**json.loads(report.read_text())), errors.read_text(errors="replace").strip()[-500:]


def wait_until(condition: Callable[[], bool], *, within_s: float, step_s: float = 0.05) -> bool:
    """Whether `condition` came to hold in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(step_s)
    return True


def say(text: str) -> None:
    """A line about progress, beside the results."""
    print(text, file=sys.stderr, flush=True)
