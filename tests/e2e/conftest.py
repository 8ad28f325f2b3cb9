"""The `replicator` command as its users have it: a process, environment variables, signals, exit codes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Command:
    """Runs `replicator` with an environment of its own."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = (sys.executable, "-m", "replicator")
    before: tuple[str, ...] = ()
    """A program that starts it, such as prlimit with its arguments."""

    def environment(self, **more: str) -> dict[str, str]:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("REPLICATOR_", "OBC_", "EXTERNAL_", "BUCKET_", "AWS_"))
        }
        return clean | {"COLUMNS": "200"} | self.env | more

    async def start(self, *arguments: str, **more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.before,
            *self.program,
            *arguments,
            env=self.environment(**more),
            cwd=self.home,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, **more: str) -> Result:
        """Run to the end."""
        process = await self.start(*arguments, **more)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    @contextlib.asynccontextmanager
    async def running(self, **more: str) -> AsyncIterator["Service"]:
        """`replicator run` until the block ends, then SIGTERM; its exit code and log stay readable."""
        port = _free_port()
        process = await self.start("run", REPLICATOR_HTTP_LISTEN=f"127.0.0.1:{port}", **more)
        service = Service(process, port)
        reading = asyncio.create_task(service.read_log())
        try:
            yield service
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(30):
                    await process.wait()
            except TimeoutError:
                process.kill()
                raise
            finally:
                await reading


@dataclass
class Service:
    process: asyncio.subprocess.Process
    port: int
    log: list[str] = field(default_factory=list)

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode(errors="replace"))

    async def get(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    async def status(self) -> dict | None:
        code, body = await self.get("/status")
        return json.loads(body) if code == 200 else None

    async def target(self, direction: str) -> dict | None:
        status = await self.status()
        if status is None:
            return None
        return next((view for view in status["targets"] if view["direction"] == direction), None)

    async def is_in_step(self) -> bool:
        status = await self.status()
        if not status or not status["targets"]:
            return False
        return all(view["state"] == "in-step" for view in status["targets"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def bare(tmp_path) -> Command:
    """The command with directories but no storage and no mapping."""
    (tmp_path / "export").mkdir()
    return Command(
        tmp_path,
        {
            "REPLICATOR_EXPORT_DIR": str(tmp_path / "export"),
            "REPLICATOR_STATE_DIR": str(tmp_path / "state"),
            "REPLICATOR_FREE_SPACE_FLOOR_BYTES": "0",
        },
    )


@pytest.fixture
def replicator(bare, storage) -> Command:
    """The command configured like a sidecar: the words of a bucket claim, one mapping each way."""
    endpoint = urlsplit(storage.endpoint)
    bare.env |= {
        "REPLICATOR_EGRESS": "out=sent",
        "REPLICATOR_INGRESS": "incoming=in",
        "REPLICATOR_S3_SCHEME": endpoint.scheme,
        "REPLICATOR_SWEEP_INTERVAL_S": "1",
        "OBC_BUCKET_HOST": endpoint.hostname,
        "OBC_BUCKET_PORT": str(endpoint.port),
        "OBC_BUCKET_NAME": storage.bucket,
        "OBC_BUCKET_REGION": storage.region,
        "OBC_AWS_ACCESS_KEY_ID": storage.access_key_id.get_secret_value(),
        "OBC_AWS_SECRET_ACCESS_KEY": storage.secret_access_key.get_secret_value(),
    }
    return bare
