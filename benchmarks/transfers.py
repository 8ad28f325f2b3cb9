"""replicator beside s5cmd, rclone, aws and Flotta's engine: the same work, one after the other, on one server.

    make bench [ARGS="--quick"]
    .venv-bench/bin/python benchmarks/transfers.py [--cases up-4k,tree] [--peers replicator,s5cmd] [--runs 3]
        [--plain] [--tls] [--rtt 20] [--dir DIRECTORY] [--name NAME]

Every run is a fresh process of the installed program. Measured are its wall time, the CPU time and peak resident
memory of its whole process tree, and the requests that the server counted; a result that is not the source is marked
WRONG. Without --plain, --tls and --rtt all three are measured, the last one for the cases where distance matters.
Leaves a table here, and benchmarks/results/NAME.json and .png. Quote figures of one run together: machines differ.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import results
from cases import CASES, Bench, Case, Run, rounds, takes_part
from check import check
from peers import OURS, PEERS, WORKERS, WORKERS_FAR, Peer
from stand import Endpoint, Stand, say

FAR_MS = 20


@dataclass(frozen=True)
class Mode:
    name: str
    endpoint: Endpoint
    workers: int
    is_far: bool


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", help="comma-separated; all are: " + ", ".join(case.name for case in CASES))
    parser.add_argument("--peers", help="comma-separated; all are: " + ", ".join(peer.name for peer in PEERS))
    parser.add_argument("--runs", type=int, help="runs of each peer on each case (3; 1 when quick)")
    parser.add_argument("--plain", action="store_true", help="by HTTP")
    parser.add_argument("--tls", action="store_true", help="by HTTPS")
    parser.add_argument("--rtt", type=float, metavar="MS", help=f"by HTTPS, so far away ({FAR_MS} unless told)")
    parser.add_argument("--quick", action="store_true", help="less work, one run; for a look, not for quoting")
    parser.add_argument("--dir", help="where the trees are; its file system is part of what is measured")
    parser.add_argument("--name", help="of the result files (transfers, or transfers-quick)")
    return parser.parse_args()


def chosen(words: str | None, known: dict[str, object], what: str) -> list[str]:
    names = words.split(",") if words else list(known)
    if unknown := set(names) - known.keys():
        raise SystemExit(f"no such {what}: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return names


def modes_of(wanted: argparse.Namespace, stand: Stand) -> list[Mode]:
    everything = not (wanted.plain or wanted.tls or wanted.rtt)
    rtt_ms = wanted.rtt or FAR_MS
    modes = []
    if wanted.plain or everything:
        modes.append(Mode("plain", stand.http, WORKERS, is_far=False))
    if wanted.tls or everything:
        modes.append(Mode("tls", stand.https, WORKERS, is_far=False))
    if wanted.rtt or (everything and not wanted.quick):
        far = stand.through(stand.https, rtt_ms=rtt_ms)
        modes.append(Mode(f"tls, {rtt_ms:g} ms away", far, WORKERS_FAR, is_far=True))
    return modes


def peers_of(wanted: argparse.Namespace) -> list[Peer]:
    by_name = {peer.name: peer for peer in PEERS}
    found = []
    for peer in map(by_name.__getitem__, chosen(wanted.peers, dict(by_name), "peer")):
        if wanted.quick and peer.once and not wanted.peers:
            continue
        if peer.found():
            found.append(peer)
        else:
            say(f"{peer.name} is not installed, so it is left out")
    if not OURS.found():
        raise SystemExit("replicator is not installed; `make .venv/.demo` does it, BENCH_REPLICATOR names another")
    return found


def measured(case: Case, mode: Mode, peers: list[Peer], *, runs: int, stand: Stand, home: Path) -> results.Table:
    say(f"{mode.name}: {case.title()}")
    taking_part = [peer for peer in peers if takes_part(peer, case, mode.endpoint, is_far=mode.is_far)]
    bench = Bench(case, stand, mode.endpoint, mode.workers, home)
    done: dict[str, list[Run]] = {peer.name: [] for peer in taking_part}
    for peer in rounds(taking_part, times=runs):
        done[peer.name].append(bench.run(peer))
    return results.Table(mode.name, case.name, case.title(), done)


def warm_up(peers: list[Peer], stand: Stand, home: Path) -> None:
    """Every program once on next to nothing, so that none of them pays for being read from the disk."""
    case = Case("warm-up", "up", 10, 1024)
    bench = Bench(case, stand, stand.https, WORKERS, home)
    for peer in peers:
        if problem := bench.run(peer).problem:
            say(f"{peer.name}, warming up: {problem}")


def main() -> None:
    wanted = options()
    names = chosen(wanted.cases, {case.name: case for case in CASES}, "case")
    cases = [case.quick() if wanted.quick else case for case in CASES if case.name in names]
    peers = peers_of(wanted)
    tables = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=wanted.dir) as text, Stand(Path(text)) as stand:
        home = Path(text)
        check(stand)
        modes = modes_of(wanted, stand)
        warm_up(peers, stand, home / "warm-up")
        for mode in modes:
            for case in cases:
                if mode.is_far and not (case.far or wanted.cases):
                    continue
                place = home / f"{len(tables)}"
                runs = wanted.runs or (1 if wanted.quick else 3)
                table = measured(case, mode, peers, runs=runs, stand=stand, home=place)
                results.show(table)
                tables.append(table)
    stem = wanted.name or ("transfers-quick" if wanted.quick else "transfers")
    for path in results.write(tables, peers, stem):
        say(f"written: {path}")
    if any(run.problem for table in tables for runs in table.runs.values() for run in runs):
        raise SystemExit("some results are WRONG")


if __name__ == "__main__":
    main()
