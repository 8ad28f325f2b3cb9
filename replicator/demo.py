"""`replicator demo`: the main job on this machine, with nothing to set up.

An S3 server (the `demo` extra's localbucket, a process of its own), a workload that writes this machine's load,
memory and disk figures to `/export/stats` every second, another client that puts files into the bucket, and
`replicator run` between them, configured by environment variables as a sidecar is. At the end both sides are compared
byte by byte.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from replicator.errors import ConfigError, Unavailable
from replicator.observe.http import fetch_status
from replicator.observe.render import render_status
from replicator.observe.status import Snapshot

BUCKET = "device-bucket"
_SWEEP_S = 3
"""The product's default is 15; an onlooker should not have to wait that long for an ingress file."""

_console = Console(highlight=False, soft_wrap=True)


@dataclass(slots=True)
class Stage:
    """Where the demo happens."""

    home: Path
    s3_port: int
    http_port: int
    moved: deque[str] = field(default_factory=lambda: deque(maxlen=8))
    """The last lines of the replicator's log about files that moved."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    """What the other client put into the bucket: key -> bytes."""

    @property
    def export(self) -> Path:
        return self.home / "export"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.s3_port}"

    @property
    def listen(self) -> str:
        return f"127.0.0.1:{self.http_port}"


def main(*, seconds: float, port: int) -> int:
    """Run the demo; 0 when in the end everything is in step. Raises ConfigError when the `demo` extra is missing."""
    home = Path(tempfile.mkdtemp(prefix="replicator-demo-"))
    try:
        return asyncio.run(_show(Stage(home, port or _free_port(), _free_port()), seconds))
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _show(stage: Stage, seconds: float) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with _s3_server(stage):
        await asyncio.to_thread(_put, stage, "", b"")
        await asyncio.to_thread(_put_ingress, stage, 0)
        _introduce(stage)
        async with _replicator(stage) as replicator:
            acting = [asyncio.create_task(_collect(stage)), asyncio.create_task(_upload(stage))]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds or None):
                    await _watch(stage, stopping, replicator)
            for task in acting:
                task.cancel()
            await asyncio.gather(*acting, return_exceptions=True)
            await _settle(stage)
        return await asyncio.to_thread(_compare, stage)


def _introduce(stage: Stage) -> None:
    _console.print(
        f"""A workload writes its figures to   {stage.export}/stats
they appear in the bucket under    s3://{BUCKET}/statistics/
another client puts files under    s3://{BUCKET}/remote/data/
they appear on the device under    {stage.export}/download/data
Look at the bucket with any S3 client (any access key and secret will do), for example:
  aws --endpoint-url {stage.endpoint} s3 ls --recursive s3://{BUCKET}/
  curl '{stage.endpoint}/{BUCKET}?list-type=2'
Ask the replicator: http://{stage.listen}/ in a browser, or elsewhere
  replicator status --watch --http-listen {stage.listen}
""",
        markup=False,
    )


@contextlib.asynccontextmanager
async def _s3_server(stage: Stage) -> AsyncIterator[None]:
    data = stage.home / "s3"
    data.mkdir()
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "localbucket",
        str(data),
        "--port",
        str(stage.s3_port),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        for _ in range(100):
            if server.returncode is not None:
                assert server.stderr is not None  # noqa: S101 - it is a pipe
                words = (await server.stderr.read()).decode(errors="replace").strip().splitlines() or [""]
                raise ConfigError(
                    where="demo",
                    problem=f"the embedded S3 server did not start ({words[-1]})",
                    fix="Install the extra with `pip install 'replicator[demo]'`, or choose another --port.",
                )
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", stage.s3_port), timeout=1).close()
                break
            await asyncio.sleep(0.05)
        yield
    finally:
        await _stop(server, signal.SIGTERM)


@contextlib.asynccontextmanager
async def _replicator(stage: Stage) -> AsyncIterator[asyncio.subprocess.Process]:
    """`replicator run` as a process of its own, configured like a sidecar with a bucket claim's words."""
    (stage.export / "stats").mkdir(parents=True)
    foreign = ("REPLICATOR_", "OBC_", "EXTERNAL_", "BUCKET_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "replicator", "run",
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=ours | {
            "REPLICATOR_WORKLOAD": "os-stats",
            "REPLICATOR_EGRESS": "stats=statistics",
            "REPLICATOR_INGRESS": "remote/data=download/data",
            "REPLICATOR_EXPORT_DIR": str(stage.export),
            "REPLICATOR_STATE_DIR": str(stage.home / "state"),
            "REPLICATOR_S3_SCHEME": "http",
            "REPLICATOR_SWEEP_INTERVAL_S": str(_SWEEP_S),
            "REPLICATOR_HTTP_LISTEN": stage.listen,
            "REPLICATOR_LOG_FORMAT": "json",
            "OBC_BUCKET_HOST": "127.0.0.1",
            "OBC_BUCKET_PORT": str(stage.s3_port),
            "OBC_BUCKET_NAME": BUCKET,
            "OBC_BUCKET_REGION": "us-east-1",
            "OBC_AWS_ACCESS_KEY_ID": "demo",
            "OBC_AWS_SECRET_ACCESS_KEY": "demo-secret",
        },
    )  # fmt: skip
    reading = asyncio.create_task(_read_log(stage, process))
    try:
        yield process
    finally:
        await _stop(process, signal.SIGTERM)
        await reading


async def _stop(process: asyncio.subprocess.Process, number: int) -> None:
    if process.returncode is None:
        process.send_signal(number)
    try:
        async with asyncio.timeout(30):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _read_log(stage: Stage, process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    async for line in process.stderr:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if "stored" in str(entry.get("message")):
                arrow = "device -> bucket" if entry["message"].startswith("object") else "bucket -> device"
                stage.moved.append(f"{arrow}  {entry.get('key')}  {entry.get('bytes')} bytes")
                if not _console.is_terminal:
                    _console.print(stage.moved[-1], markup=False)
                continue
        if b'"level": "error"' in line.lower() or not line.startswith(b"{"):
            _console.print(line.decode(errors="replace").rstrip(), markup=False)


async def _collect(stage: Stage) -> None:
    """The workload: this machine's own figures, every second, written the way a careless program writes."""
    began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    while True:
        for name, figures in _figures(stage.export).items():
            await asyncio.to_thread((stage.export / "stats" / f"{name}.json").write_text, json.dumps(figures) + "\n")
        history = stage.export / "stats" / "history" / f"{began}.csv"
        await asyncio.to_thread(_append, history, f"{time.time():.0f},{os.getloadavg()[0]}\n")
        await asyncio.sleep(1)


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(line)


def _figures(export: Path) -> dict[str, dict[str, float]]:
    memory = Path("/proc/meminfo")
    lines = memory.read_text().splitlines() if memory.exists() else []
    disk = shutil.disk_usage(export)
    return {
        "load": dict(zip(("1m", "5m", "15m"), os.getloadavg(), strict=True)),
        "memory": {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[:5]},
        "disk": {"total": disk.total, "used": disk.used, "free": disk.free},
    }


async def _upload(stage: Stage) -> None:
    """The other client: a new version of one file every five seconds."""
    for number in range(1, 10**6):
        await asyncio.sleep(5)
        await asyncio.to_thread(_put_ingress, stage, number)


def _put_ingress(stage: Stage, number: int) -> None:
    text = f"Configuration {number} for the device, put by another client at {time.ctime()}.\n"
    stage.uploads["remote/data/greeting.txt"] = text.encode()
    _put(stage, "remote/data/greeting.txt", text.encode())


def _put(stage: Stage, key: str, body: bytes) -> None:
    url = f"{stage.endpoint}/{BUCKET}/{urllib.parse.quote(key)}".rstrip("/")
    urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT"), timeout=10).close()  # noqa: S310


def _get(stage: Stage, key: str) -> bytes:
    url = f"{stage.endpoint}/{BUCKET}/{urllib.parse.quote(key)}"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        body: bytes = answer.read()
        return body


async def _watch(stage: Stage, stopping: asyncio.Event, replicator: asyncio.subprocess.Process) -> None:
    """Show what moves until somebody stops it."""
    with Live(console=_console, refresh_per_second=4) if _console.is_terminal else contextlib.nullcontext() as live:
        while not stopping.is_set() and replicator.returncode is None:
            snapshot = await _status(stage)
            if live is not None and snapshot is not None:
                live.update(_picture(stage, snapshot))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await stopping.wait()


def _picture(stage: Stage, snapshot: Snapshot) -> RenderableType:
    return Group(Panel(Text("\n".join(stage.moved)), title="what moved last"), render_status(snapshot))


async def _status(stage: Stage) -> Snapshot | None:
    with contextlib.suppress(Unavailable):
        return await fetch_status(stage.listen)
    return None


async def _settle(stage: Stage) -> None:
    """Let the last ingress file arrive: it has a poll interval's time, and some."""
    wanted = stage.uploads["remote/data/greeting.txt"]
    path = stage.export / "download/data/greeting.txt"
    for _ in range(10 * 4 * _SWEEP_S):
        if path.exists() and path.read_bytes() == wanted:
            return
        await asyncio.sleep(0.1)


def _compare(stage: Stage) -> int:
    """Both sides byte by byte, by plain HTTP and not by our own code."""
    equal, problems = 0, []
    for path in _files(stage.export / "stats"):
        key = f"statistics/{path.relative_to(stage.export / 'stats')}"
        try:
            same = _get(stage, key) == path.read_bytes()
        except OSError as error:
            problems.append(f"{key} is not in the bucket ({error})")
            continue
        equal += same
        problems += [] if same else [f"{key} differs from {path}"]
    for key, body in stage.uploads.items():
        path = stage.export / "download/data" / key.removeprefix("remote/data/")
        same = path.exists() and path.read_bytes() == body
        equal += same
        problems += [] if same else [f"{path} is not what {key} holds"]
    for problem in problems:
        _console.print(f"NOT IN STEP: {problem}", markup=False)
    is_in_step = bool(equal) and not problems
    _console.print(f"{'in step' if is_in_step else 'not in step'}: {equal} files compared equal byte by byte")
    return 0 if is_in_step else 1


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
