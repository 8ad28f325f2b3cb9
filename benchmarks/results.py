"""What came of the runs: medians and ratios, as a table, as JSON and as a picture.

A ratio is always ours divided by theirs: below 1 replicator took less. "Best" is the least of all other peers whose
result was right, for each measure by itself.
"""

import json
import os
import platform
import re
import shutil
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cases import Run
from peers import OURS, Peer
from rich.console import Console
from rich.table import Table as Grid
from stand import HERE

Measure = Callable[[Run], float]
MEASURES: dict[str, Measure] = {
    "wall": lambda run: run.usage.wall_s,
    "cpu": lambda run: run.usage.cpu_s,
    "rss": lambda run: run.usage.rss_mib,
}
TITLES = {"wall": "wall time", "cpu": "CPU time", "rss": "peak memory"}

_console = Console(highlight=False, width=max(120, shutil.get_terminal_size().columns))


@dataclass(frozen=True)
class Table:
    """One case in one mode: the runs of every peer, by name."""

    mode: str
    case: str
    title: str
    runs: dict[str, list[Run]]

    def median(self, peer: str, measure: str) -> float:
        return statistics.median(map(MEASURES[measure], self.runs[peer]))

    def is_right(self, peer: str) -> bool:
        return not any(run.problem for run in self.runs[peer])

    def best(self, measure: str) -> float | None:
        """The least of all others with a right result."""
        others = [name for name in self.runs if name != OURS.name and self.is_right(name)]
        return min((self.median(name, measure) for name in others), default=None)

    def ratio(self, peer: str, measure: str) -> float | None:
        """Ours to this peer's; of our own row, to the best of the others. None when there is nothing to compare."""
        if OURS.name not in self.runs or not (self.is_right(OURS.name) and self.is_right(peer)):
            return None
        theirs = self.best(measure) if peer == OURS.name else self.median(peer, measure)
        return self.median(OURS.name, measure) / theirs if theirs else None


def show(table: Table) -> None:
    grid = Grid(title=f"{table.title} - {table.mode}", title_justify="left", title_style="bold")
    grid.add_column("peer", no_wrap=True)
    for name in ("wall s", "CPU s", "RSS MiB", "ours/it: wall", "CPU", "RSS"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("connections", justify="right")
    grid.add_column("requests")
    for peer, runs in table.runs.items():
        figures = [f"{table.median(peer, measure):.{0 if measure == 'rss' else 2}f}" for measure in MEASURES]
        ratios = [table.ratio(peer, measure) for measure in MEASURES]
        problems = {run.problem for run in runs if run.problem}
        grid.add_row(
            f"{peer} : best" if peer == OURS.name else peer,
            *figures,
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            f"{runs[-1].stats['connections']:,}",
            f"WRONG: {'; '.join(sorted(problems))}" if problems else requests_of(runs[-1]),
            style="bold" if peer == OURS.name else "red" if problems else "",
        )
    _console.print(grid)


def requests_of(run: Run) -> str:
    """What the server was asked, in few words: '2,000 Put, 1 List'."""
    asked = sorted(run.stats["requests"].items(), key=lambda each: -each[1])
    return (
        ", ".join(f"{count:,} {re.sub('ObjectsV2|Object|MultipartUpload', '', name)}" for name, count in asked)
        or "none"
    )


def report(tables: list[Table], peers: list[Peer]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(),
        "versions": {peer.name: peer.version_text() for peer in peers},
        "rows": [_row(table, peer) for table in tables for peer in table.runs],
    }


def keep(report: dict[str, Any], stem: str) -> Path:
    """Leave a report beside the earlier ones. Returns where."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    text = folder / f"{stem}.json"
    text.write_text(json.dumps(report, indent=1) + "\n")
    return text


def write(tables: list[Table], peers: list[Peer], stem: str) -> list[Path]:
    """Leave the results, and a picture of them. Returns where."""
    told = report(tables, peers)
    text = keep(told, stem)
    picture = text.with_suffix(".png")
    _draw(tables, told, picture)
    return [text, picture]


def _row(table: Table, peer: str) -> dict[str, Any]:
    return {
        "mode": table.mode,
        "case": table.case,
        "title": table.title,
        "peer": peer,
        "is_right": table.is_right(peer),
        **{f"{measure}_median": round(table.median(peer, measure), 4) for measure in MEASURES},
        **{f"ours_to_it_{measure}": _rounded(table.ratio(peer, measure)) for measure in MEASURES},
        "runs": [asdict(run.usage) | {"stats": run.stats, "problem": run.problem} for run in table.runs[peer]],
    }


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 3)


def _machine() -> dict[str, Any]:
    """What explains the figures; no names."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(pages * page_bytes / 2**30),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
    }


def _draw(tables: list[Table], report: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cases = list(dict.fromkeys(table.case for table in tables))
    modes = list(dict.fromkeys(table.mode for table in tables))
    titles = {table.case: table.title for table in tables}
    figure, panels = plt.subplots(1, len(MEASURES), figsize=(15, 1.6 + 0.62 * len(cases)), sharey=True)
    height = 0.8 / len(modes)
    for panel, measure in zip(panels, MEASURES, strict=True):
        for number, mode in enumerate(modes):
            bars = {
                cases.index(table.case) + (number - (len(modes) - 1) / 2) * height: ratio
                for table in tables
                if table.mode == mode and (ratio := table.ratio(OURS.name, measure))
            }
            # From 1 outwards on a logarithmic scale: half and twice are equally far.
            panel.barh(list(bars), [ratio - 1 for ratio in bars.values()], height * 0.9, left=1, label=mode)
            for spot, ratio in bars.items():
                side = "left" if ratio >= 1 else "right"
                panel.text(ratio, spot, f" {ratio:.2f} ", va="center", ha=side, fontsize=8)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_xscale("log")
        panel.set_xlim(0.05, 20)
        panel.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
        panel.set_xticks([], minor=True)
        panel.set_title(f"{TITLES[measure]}: replicator / best peer")
        panel.set_xlabel("left of 1, replicator takes less")
    panels[0].set_yticks(range(len(cases)), [titles[case] for case in cases])
    panels[0].invert_yaxis()
    panels[-1].legend(loc="lower right")
    machine = report["machine"]
    figure.suptitle(
        f"{report['date']}, {machine['cpus']} CPUs, {machine['system']} {machine['architecture']}, "
        f"medians; best of {', '.join(name for name in report['versions'] if name != OURS.name)}",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
