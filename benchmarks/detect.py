"""What noticing changes costs: from close() to a visible object, a look at a tree that did not change, an idle minute.

    make bench-detect [ARGS="--quick"]
    .venv-bench/bin/python benchmarks/detect.py [--parts latency,looks,idle] [--counts 10000,50000,1000000]
        [--peers replicator,s5cmd] [--seconds 60] [--dir DIRECTORY] [--name NAME]

- latency: files are closed at random moments of a minute; what counts is the time at which the server has each. With
  events, by sweeps alone (every 15 s), and by each peer called every 15 s, over the same timetable.
- looks: a sweep of the running replicator beside one whole call of a peer, over the same unchanged tree and bucket.
  CPU time is that of the whole process between two moments at rest, divided by the sweeps in between; the HTTP server,
  the clocks and everything else that runs meanwhile is in it. The first sync of each tree is measured on the way.
- idle: CPU time and memory of a minute in which nothing happens, one target each way.

Leaves tables here, and benchmarks/results/NAME.json. Quote figures of one run together: machines differ.
"""

import argparse
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import results
from cases import Run, make_tree
from check import check
from idle import cpu_s, fetch, free_port, rss_mib
from peers import OURS, PEERS, WORKERS, Job, Peer
from rich.console import Console
from rich.table import Table as Grid
from stand import BUCKET, REPLICATOR, Endpoint, Stand, Usage, measure, ours, say, wait_until

COUNTS = (10_000, 50_000, 1_000_000)
PARTS = ("latency", "looks", "idle")
POLL_S = 15.0
"""What devices are used to; the sweep's interval, too."""
SIZE = 64
"""Bytes of a file. A look does not read it."""
PATIENCE_S = 3600.0

_console = Console(highlight=False, width=max(120, shutil.get_terminal_size().columns))


class Daemon:
    """A running `replicator`, seen from outside."""

    def __init__(self, env: dict[str, str], *, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([REPLICATOR, "run"], env=env)

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def total(self, name: str, direction: str = "egress") -> float:
        """The sum of a metric over all targets of a direction."""
        text = (fetch(f"{self._url}/metrics") or b"").decode()
        found = re.findall(rf'^{name}{{.*direction="{direction}".*}} (\S+)$', text, re.MULTILINE)
        return sum(map(float, found))

    def wait(self, condition: Callable[[], bool], *, within_s: float = PATIENCE_S, step_s: float = 0.2) -> None:
        if not wait_until(lambda: self.process.poll() is not None or condition(), within_s=within_s, step_s=step_s):
            raise SystemExit("it took too long")
        if self.process.poll() is not None:
            raise SystemExit(f"replicator ended with {self.process.returncode}")

    def is_ready(self) -> bool:
        return fetch(f"{self._url}/readyz") is not None

    def rest(self) -> None:
        """Until a quarter of a second went by without work."""
        spent = [self.cpu_s()]

        def is_at_rest() -> bool:
            spent.append(self.cpu_s())
            return spent[-1] == spent[-2]

        self.wait(is_at_rest, step_s=0.25)

    def peak_mib(self) -> float:
        return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024


@contextmanager
def running(endpoint: Endpoint, *, export: Path, state: Path, **settings: object) -> Iterator[Daemon]:
    port = free_port()
    state.mkdir(mode=0o700, exist_ok=True)
    env = ours(endpoint, export=export, state=state, HTTP_LISTEN=f"127.0.0.1:{port}", **settings)
    daemon = Daemon(env, port=port)
    try:
        daemon.wait(daemon.is_ready)
        yield daemon
    finally:
        daemon.process.terminate()
        daemon.process.wait()


def latency(peers: list[Peer], stand: Stand, home: Path, *, seconds: float) -> list[dict[str, Any]]:
    """A row for each way to notice a new file."""
    rows = []
    for watcher, who in (("auto", "replicator, events"), ("off", "replicator, sweeps alone")):
        export = home / watcher
        (export / "out").mkdir(parents=True)
        with running(
            stand.http, export=export, state=home / f"state-{watcher}", EGRESS="out=latency", WATCHER=watcher
        ) as daemon:
            daemon.wait(lambda daemon=daemon: daemon.total("replicator_sweeps_total") >= 1)
            time.sleep(2)  # the sweep that arming the watches asks for
            say(f"latency: {who}")
            closed = close_files(export / "out", seconds)
            wait_until(lambda closed=closed: len(stand.objects()) == len(closed), within_s=3 * POLL_S)
        rows.append(row(who, closed, stand))
    for peer in peers:
        if peer is OURS or peer.https_only or peer.once or peer.many_files_only:
            continue
        say(f"latency: {peer.name} every {POLL_S:g} s")
        with called(peer, stand.http, home / peer.name) as source:
            closed = close_files(source, seconds)
            wait_until(lambda closed=closed: len(stand.objects()) == len(closed), within_s=3 * POLL_S)
        rows.append(row(f"{peer.name}, every {POLL_S:g} s", closed, stand))
    return rows


@contextmanager
def called(peer: Peer, endpoint: Endpoint, home: Path) -> Iterator[Path]:
    """Call `peer` every 15 s until the block ends; the directory that it sends."""
    source = home / "out"
    source.mkdir(parents=True)
    job = Job("unchanged", source, "latency/", endpoint, WORKERS, home, home)
    command, env = peer.command(job)
    # In a shell of its own, so that one call is one process after the other.
    script = f'while :; do "$@" >/dev/null 2>&1 & sleep {POLL_S}; wait; done'
    loop = subprocess.Popen(["sh", "-c", script, "sh", *command], env=env, start_new_session=True)
    try:
        yield source
    finally:
        os.killpg(loop.pid, 15)
        loop.wait()


def close_files(directory: Path, seconds: float) -> dict[str, float]:
    """Make three files a second at random moments, the same at each call; when each was closed, by its name."""
    moments = random.Random(1)
    closed, begin_s = {}, time.monotonic()
    for number, at_s in enumerate(sorted(moments.uniform(0, seconds) for _ in range(round(3 * seconds)))):
        time.sleep(max(0.0, begin_s + at_s - time.monotonic()))
        with (directory / f"{number:05}").open("wb") as file:
            file.write(os.urandom(4096))
        closed[f"{number:05}"] = time.time()
    return closed


def row(who: str, closed: dict[str, float], stand: Stand) -> dict[str, Any]:
    """How long each file took; the bucket is empty afterwards."""
    there = arrivals(stand.http)
    took = sorted(max(0.0, there[name] - at) for name, at in closed.items() if name in there)
    stand.empty()
    if not took:
        return {"who": who, "files": len(closed), "missing": len(closed)}
    return {
        "who": who,
        "files": len(closed),
        "missing": len(closed) - len(took),
        "mean_s": round(statistics.mean(took), 4),
        "p50_s": round(statistics.median(took), 4),
        "p99_s": round(took[min(len(took) - 1, round(0.99 * len(took)))], 4),
        "worst_s": round(took[-1], 4),
    }


def arrivals(endpoint: Endpoint) -> dict[str, float]:
    """When the server got each object, by name, to the millisecond: its clock is ours."""
    with urllib.request.urlopen(f"{endpoint.url}/{BUCKET}?list-type=2&prefix=latency/", timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(r"<Key>latency/(.*?)</Key><LastModified>(.*?)Z</LastModified>", text)
    return {name: datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp() for name, stamp in found}


def looks(count: int, peers: list[Peer], stand: Stand, home: Path) -> list[results.Table]:
    """The first sync of a tree, then what a look at it costs everybody."""
    say(f"looks: making {count:,} files")
    job = Job("unchanged", home / "export/tree", "tree/", stand.https, WORKERS, home / "run", home / "state")
    make_tree(job.local, count=count, size=SIZE)
    for place in (job.home, job.state):
        place.mkdir(mode=0o700)
    say("looks: the first sync")
    first = measured(OURS, job, stand)
    if first.problem or first.stats["requests"].get("PutObject") != count:
        raise SystemExit(f"replicator could not send them: {first.problem or first.stats['requests']}")
    runs = {OURS.name: [swept(job, stand, sweeps=max(4, min(30, 300_000 // count)))]}
    for peer in peers:
        if "unchanged" in peer.deeds and peer is not OURS and not (peer.once and count > COUNTS[0]):
            say(f"looks: {peer.name}")
            run = measured(peer, job, stand)
            moved = run.stats["requests"].get("PutObject", 0)
            runs[peer.name] = [Run(run.usage, run.stats, run.problem or (f"{moved} sent again" if moved else ""))]
    stand.empty()
    return [
        results.Table("tls", f"first-{count}", f"first sync of {count:,} x {SIZE} bytes", {OURS.name: [first]}),
        results.Table("tls", f"look-{count}", f"a look at {count:,} unchanged files", runs),
    ]


def measured(peer: Peer, job: Job, stand: Stand) -> Run:
    """One whole call."""
    command, env = peer.command(job)
    stand.reset()
    usage, words = measure(command, env, output=job.home / "output", timeout_s=PATIENCE_S)
    problem = "took too long" if usage.timed_out else f"exit code {usage.exit_code}: {words}" if usage.exit_code else ""
    return Run(usage, stand.stats(), problem)


def swept(job: Job, stand: Stand, *, sweeps: int) -> Run:
    """The mean of so many sweeps of a replicator that runs, and knows the tree."""
    say(f"looks: {sweeps} sweeps")
    mapping = {"EGRESS": f"{job.local.name}={job.prefix.rstrip('/')}"}
    with running(
        job.endpoint, export=job.local.parent, state=job.state, WATCHER="off", SWEEP_INTERVAL_S=1, **mapping
    ) as daemon:
        # The first sweep compares every row, and so may a second one.
        daemon.wait(lambda: daemon.total("replicator_sweeps_total") >= 3)
        daemon.rest()
        stand.reset()
        number, busy_s = daemon.total("replicator_sweeps_total"), daemon.total("replicator_sweep_seconds_sum")
        spent = daemon.cpu_s()
        time.sleep(sweeps)
        # Asking costs, so it is asked seldom where sweeps are cheap.
        daemon.wait(lambda: daemon.total("replicator_sweeps_total") >= number + sweeps, step_s=2)
        daemon.rest()
        spent = daemon.cpu_s() - spent
        number = daemon.total("replicator_sweeps_total") - number
        busy_s = daemon.total("replicator_sweep_seconds_sum") - busy_s
        usage = Usage(busy_s / number, spent / number, 0.0, daemon.peak_mib(), exit_code=0, timed_out=False)
        return Run(usage, stand.stats(), "")


def idle(stand: Stand, home: Path, *, seconds: float) -> list[dict[str, Any]]:
    rows = []
    for watcher in ("auto", "off"):
        export = home / watcher
        (export / "out").mkdir(parents=True)
        for number in range(100):
            (export / "out" / f"{number:03}").write_bytes(os.urandom(SIZE))
        mappings = {"EGRESS": "out=idle", "INGRESS": "incoming=in"}
        with running(stand.http, export=export, state=home / f"state-{watcher}", WATCHER=watcher, **mappings) as daemon:
            daemon.wait(lambda: len(stand.objects()) == 100)
            time.sleep(10)  # the debounce forgets, and connections that were only needed once are closed
            say(f"idle: watcher {watcher}, {seconds:.0f} s")
            stand.reset()
            spent = daemon.cpu_s()
            time.sleep(seconds)
            rows.append(
                {
                    "watcher": watcher,
                    "cpu_s_a_minute": round((daemon.cpu_s() - spent) * 60 / seconds, 3),
                    "rss_mib": round(rss_mib(daemon.process.pid), 1),
                    "requests": stand.stats()["requests"],
                }
            )
        stand.empty()
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    grid = Grid(title=title, title_justify="left", title_style="bold")
    columns = list(dict.fromkeys(name for each in rows for name in each))
    for name in columns:
        grid.add_column(name.replace("_", " "), justify="left" if name == columns[0] else "right")
    for each in rows:
        grid.add_row(*(str(each.get(name, "")) for name in columns))
    _console.print(grid)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--counts", help="files in the trees, comma-separated")
    parser.add_argument("--peers", help="comma-separated; all that are installed unless told")
    parser.add_argument("--seconds", type=float, default=60, help="of the timetable, and of idling")
    parser.add_argument("--dir", default="/dev/shm", help="where the trees are; 1,000,000 files take 5 GB")
    parser.add_argument("--quick", action="store_true", help="no million, 15 s; for a look, not for quoting")
    parser.add_argument("--name", help="of the result file (detect, or detect-quick)")
    wanted = parser.parse_args()
    if wanted.quick:
        wanted.seconds = min(wanted.seconds, 15)
    wanted.counts = (
        [int(text) for text in wanted.counts.split(",")] if wanted.counts else COUNTS[: -1 if wanted.quick else None]
    )
    return wanted


def main() -> None:
    wanted = options()
    names = wanted.peers.split(",") if wanted.peers else [peer.name for peer in PEERS]
    peers = [peer for peer in PEERS if peer.name in {*names, OURS.name} and peer.found()]
    tables: list[results.Table] = []
    more: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=wanted.dir) as text, Stand(Path(text)) as stand:
        home = Path(text)
        check(stand)
        if "latency" in wanted.parts:
            more["latency"] = latency(peers, stand, home / "latency", seconds=wanted.seconds)
            show("from close() to a visible object", more["latency"])
        if "idle" in wanted.parts:
            more["idle"] = idle(stand, home / "idle", seconds=wanted.seconds)
            show("an idle minute", more["idle"])
        for count in wanted.counts if "looks" in wanted.parts else ():
            for table in looks(count, peers, stand, home / f"{count}"):
                results.show(table)
                tables.append(table)
            shutil.rmtree(home / f"{count}")
    stem = wanted.name or ("detect-quick" if wanted.quick else "detect")
    say(f"written: {results.keep(results.report(tables, peers) | more, stem)}")
    if any(run.problem for table in tables for runs in table.runs.values() for run in runs):
        raise SystemExit("some results are WRONG")


if __name__ == "__main__":
    main()
