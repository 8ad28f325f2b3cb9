"""The programs under comparison: how each is told to send, fetch, list and look again, and in which environment.

A peer is quoted with the options that make it fastest, beside its defaults where these are what most people run.
Adding one: a function from Job to command lines for each deed it can do, and a line in PEERS.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stand import BUCKET, REPLICATOR, Endpoint, environment, ours

WORKERS = 32
"""Files in flight on the loopback, for every program that lets itself be told."""
WORKERS_FAR = 64
"""The same over a round trip worth the name."""


@dataclass(frozen=True)
class Job:
    """One run: `deed` is up (`local` to `prefix`), down, list, or unchanged (like up, with nothing to send)."""

    deed: str
    local: Path
    prefix: str
    """Ends with '/'."""
    endpoint: Endpoint
    workers: int
    home: Path
    """Scratch of this run."""
    state: Path
    """Journal of replicator: new, or the one that knows the tree (list, unchanged)."""

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/{self.prefix}"


Command = tuple[list[str], dict[str, str]]


@dataclass(frozen=True)
class Peer:
    name: str
    program: str
    version: tuple[str, ...]
    """Arguments that make it print its version."""
    command: Callable[[Job], Command]
    deeds: frozenset[str] = frozenset({"up", "down", "list", "unchanged"})
    once: bool = False
    """So slow that one run has to do, and none of the longest cases."""
    https_only: bool = False
    many_files_only: bool = False
    """Differs from another entry only where there are many files."""
    far: bool = True
    """Worth waiting for over a long round trip."""

    def found(self) -> bool:
        return bool(self.program) and shutil.which(self.program) is not None

    def version_text(self) -> str:
        if not self.version:
            return "unknown"
        told = subprocess.run([self.program, *self.version], capture_output=True, text=True, check=False)
        return (told.stdout or told.stderr).strip().splitlines()[0]


def replicator(job: Job) -> Command:
    target = job.prefix.rstrip("/")
    mapping = {"INGRESS": f"{target}={job.local.name}"}
    if job.deed in {"up", "unchanged"}:
        mapping = {"EGRESS": f"{job.local.name}={target}"}
    env = ours(job.endpoint, export=job.local.parent, state=job.state, TRANSFERS=job.workers, **mapping)
    return [str(REPLICATOR), "sync"], env


def s5cmd(workers: int) -> Callable[[Job], Command]:
    def command(job: Job) -> Command:
        arguments = {
            "up": ["cp", f"{job.local}/", job.url],
            "down": ["cp", f"{job.url}*", f"{job.local}/"],
            "list": ["ls", f"{job.url}*"],
            "unchanged": ["sync", f"{job.local}/", job.url],
        }[job.deed]
        program = [_S5CMD, "--numworkers", str(workers or job.workers), "--endpoint-url", job.endpoint.url]
        return [*program, *arguments], environment(job.home, AWS_CA_BUNDLE=str(job.endpoint.ca))

    return command


def rclone(*, tuned: bool) -> Callable[[Job], Command]:
    def command(job: Job) -> Command:
        there = f"stub:{BUCKET}/{job.prefix}"
        verb, *arguments = {
            "up": ["copy", str(job.local), there],
            "down": ["copy", there, str(job.local)],
            "list": ["lsf", "--recursive", "--files-only", there],
            "unchanged": ["sync", str(job.local), there],
        }[job.deed]
        fast = {
            # --no-check-dest, since --no-traverse would ask for each object in turn.
            "up": ["--s3-no-head", "--no-check-dest"],
            "down": ["--no-check-dest"],
            "list": ["--fast-list"],
            "unchanged": ["--fast-list", "--use-server-modtime", "--update"],
        }[job.deed]
        width = ["--transfers", str(job.workers), "--checkers", str(job.workers)]
        env = environment(
            job.home,
            RCLONE_CONFIG="/dev/null",
            RCLONE_CONFIG_STUB_TYPE="s3",
            RCLONE_CONFIG_STUB_PROVIDER="Minio",
            RCLONE_CONFIG_STUB_ENV_AUTH="true",
            RCLONE_CONFIG_STUB_NO_CHECK_BUCKET="true",
            RCLONE_CONFIG_STUB_ENDPOINT=job.endpoint.url,
        )
        extra = [*fast, *width] if tuned else []
        return ["rclone", verb, *arguments, "--ca-cert", str(job.endpoint.ca), *extra], env

    return command


def aws(job: Job) -> Command:
    arguments = {
        "up": ["cp", "--recursive", "--only-show-errors", str(job.local), job.url],
        "down": ["cp", "--recursive", "--only-show-errors", job.url, str(job.local)],
        "list": ["ls", "--recursive", job.url],
        "unchanged": ["sync", "--only-show-errors", str(job.local), job.url],
    }[job.deed]
    env = environment(
        job.home, AWS_CA_BUNDLE=str(job.endpoint.ca), AWS_EC2_METADATA_DISABLED="true", AWS_DEFAULT_REGION="us-east-1"
    )
    return [_AWS, "--endpoint-url", job.endpoint.url, "s3", *arguments], env


def flotta(job: Job) -> Command:
    """`PROGRAM SOURCE TARGET`, one of them s3://bucket/prefix, around the engine of Flotta's device worker."""
    pair = [job.url, str(job.local)] if job.deed == "down" else [str(job.local), job.url]
    env = environment(job.home, AWS_CA_BUNDLE=str(job.endpoint.ca), S3_ENDPOINT=job.endpoint.url)
    return [_FLOTTA, *pair], env


def _beside_python(name: str) -> str:
    """A program of the environment that this runs in."""
    return str(Path(sys.executable).with_name(name))


_S5CMD, _AWS = _beside_python("s5cmd"), _beside_python("aws")
_FLOTTA = os.environ.get("FLOTTA_SYNC_BIN", "")

OURS = Peer("replicator", str(REPLICATOR), ("version",), replicator)
PEERS = (
    OURS,
    Peer("s5cmd", _S5CMD, ("version",), s5cmd(0)),
    Peer("s5cmd-256", _S5CMD, ("version",), s5cmd(256), deeds=frozenset({"up", "down"}), many_files_only=True),
    Peer("rclone", "rclone", ("version",), rclone(tuned=False), far=False),
    Peer("rclone-tuned", "rclone", ("version",), rclone(tuned=True)),
    Peer("aws", _AWS, ("--version",), aws, once=True, far=False),
    Peer("flotta", _FLOTTA, (), flotta, deeds=frozenset({"up", "down", "unchanged"}), https_only=True),
)
