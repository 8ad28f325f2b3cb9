"""The work that is measured: what has to be there before a run, and what has to be true after it.

A run that leaves another tree, another bucket or another count of keys than its source is wrong, however fast it was.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peers import OURS, Job, Peer
from stand import Endpoint, Stand, Usage, measure

KIB, MIB = 2**10, 2**20
Tree = dict[str, str]
"""MD5 of the content by path relative to the top."""


@dataclass(frozen=True)
class Case:
    name: str
    deed: str
    count: int
    size: int
    far: bool = False
    """Measured over the long round trip too."""
    is_long: bool = False

    def title(self) -> str:
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size // KIB} KiB"
        return {
            "up": f"up, {self.count:,} x {size}",
            "down": f"down, {self.count:,} x {size}",
            "list": f"list {self.count:,} keys",
            "unchanged": f"nothing changed, {self.count:,} files",
        }[self.deed]

    def quick(self) -> "Case":
        """The same work, less of it."""
        if self.size > 64 * MIB:
            return replace(self, size=self.size // 4)
        return replace(self, count=self.count // (2 if self.count <= 2000 else 4))


CASES = (
    Case("up-4k", "up", 2000, 4 * KIB, far=True),
    Case("down-4k", "down", 2000, 4 * KIB, far=True),
    Case("up-1m", "up", 200, MIB),
    Case("down-1m", "down", 200, MIB),
    Case("up-512m", "up", 1, 512 * MIB),
    Case("down-512m", "down", 1, 512 * MIB),
    Case("tree", "up", 10_000, 4 * KIB, is_long=True),
    Case("unchanged", "unchanged", 10_000, 4 * KIB),
    Case("list", "list", 20_000, KIB),
)


@dataclass(frozen=True)
class Run:
    """One command on one case: what it cost, what it asked for, and what is wrong with its result ('' is nothing)."""

    usage: Usage
    stats: dict[str, Any]
    problem: str


class Bench:
    """One case at one endpoint, ready for any number of runs by any peer."""

    def __init__(self, case: Case, stand: Stand, endpoint: Endpoint, workers: int, home: Path) -> None:
        self._case, self._stand, self._home = case, stand, home
        home.mkdir()
        self._number = 0
        self._job = Job(
            deed=case.deed,
            local=home / "export" / case.name,
            prefix=f"{case.name}/",
            endpoint=endpoint,
            workers=workers,
            home=home / "run",
            state=home / "state",
        )
        stand.empty()
        if case.deed in {"up", "unchanged"}:
            self._expected = make_tree(self._job.local, count=case.count, size=case.size)
        else:
            stand.fill(self._job.prefix, count=case.count, size=case.size)
            self._expected = self._held()
        # The peers look at what replicator left; its journal knows it, which is the state of all days but the first.
        if case.deed == "unchanged":
            self._prepare("up")
        elif case.deed == "list":
            self._prepare("down")

    def _prepare(self, deed: str) -> None:
        self._job.local.mkdir(parents=True, exist_ok=True)
        run = self._measured(OURS, replace(self._job, deed=deed))
        if run.usage.exit_code:
            raise SystemExit(f"{self._case.name}: replicator could not prepare it: {run.problem}")

    def run(self, peer: Peer) -> Run:
        """Let `peer` do it once, from the same beginning as every other."""
        job = self._job
        if self._case.deed == "up":
            self._stand.empty()
            job = replace(job, state=self._home / "fresh")
        elif self._case.deed == "down":
            job = replace(job, state=self._home / "fresh", local=self._home / "fetched" / job.local.name)
            job.local.mkdir(parents=True)
        os.sync()  # what the run before left to write is not this one's
        run = self._measured(peer, job)
        run = replace(run, problem=run.problem or self._verdict(job, run))
        for left in (self._home / "fresh", self._home / "fetched"):
            shutil.rmtree(left, ignore_errors=True)
        return run

    def _measured(self, peer: Peer, job: Job) -> Run:
        job.home.mkdir()
        job.state.mkdir(mode=0o700, exist_ok=True)
        command, env = peer.command(job)
        self._stand.reset()
        usage, words = measure(command, env, output=job.home / "output")
        stats = self._stand.stats()
        problem = ""
        if usage.timed_out:
            problem = "took too long"
        elif usage.exit_code:
            problem = f"exit code {usage.exit_code}: {words}"
        elif job.deed == "list" and peer is not OURS:
            listed = (job.home / "output").read_bytes().count(b"\n")
            problem = "" if listed == self._case.count else f"{listed} keys listed"
        shutil.rmtree(job.home)
        return Run(usage, stats, problem)

    def _verdict(self, job: Job, run: Run) -> str:
        moved = {"up": (), "down": ()}.get(self._case.deed, ("PutObject", "GetObject", "CreateMultipartUpload"))
        again = sum(run.stats["requests"].get(operation, 0) for operation in moved)
        if again:
            return f"{again} objects moved, though nothing had changed"
        found = tree_of(job.local) if self._case.deed in {"down", "list"} else self._held()
        if found == self._expected:
            return ""
        missing, extra = len(self._expected.keys() - found.keys()), len(found.keys() - self._expected.keys())
        return f"of {len(self._expected)}: {missing} missing, {extra} too many, or other bytes"

    def _held(self) -> Tree:
        start = len(self._job.prefix)
        return {key[start:]: each["md5"] for key, each in self._stand.objects().items()}


def make_tree(top: Path, *, count: int, size: int) -> Tree:
    """Random files, a hundred to a directory."""
    made: Tree = {}
    for number in range(count):
        relpath = f"{number // 100:03}/{number:06}"
        path = top / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.md5()
        with path.open("wb") as file:
            for start in range(0, size, MIB):
                block = os.urandom(min(MIB, size - start))
                digest.update(block)
                file.write(block)
        made[relpath] = digest.hexdigest()
    return made


def tree_of(top: Path) -> Tree:
    found: Tree = {}
    for path in top.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                found[str(path.relative_to(top))] = hashlib.file_digest(file, "md5").hexdigest()
    return found


def rounds(peers: list[Peer], *, times: int) -> list[Peer]:
    """Whose turn it is: A B C A B C, so that a slow minute of the machine is everybody's. The slow have one turn."""
    return [peer for turn in range(times) for peer in peers if not (peer.once and turn)]


def takes_part(peer: Peer, case: Case, endpoint: Endpoint, *, is_far: bool) -> bool:
    """Whether `peer` can do this case at all, and whether it is worth anybody's time."""
    reasons: tuple[Callable[[], bool], ...] = (
        lambda: case.deed in peer.deeds,
        lambda: endpoint.scheme == "https" or not peer.https_only,
        lambda: case.count >= 1000 or not peer.many_files_only,
        lambda: not (case.is_long and peer.once),
        lambda: peer.far or not is_far,
    )
    return all(reason() for reason in reasons)
