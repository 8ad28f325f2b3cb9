"""What the process under test takes, looked at from outside."""

import os
import re
import statistics
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True)
class Sample:
    at_s: float
    pid: int
    rss_mib: float
    fds: int
    threads: int
    state_mib: float
    """Journal and what belongs to it."""
    temps: int
    """Temporary files in the export."""
    pending: float
    oldest_s: float
    series: int
    """Lines of /metrics that carry a value."""


def sample(at_s: float, pid: int, *, home: Path, metrics_url: str) -> Sample | None:
    """How it is now; None while the process does not answer."""
    try:
        with urllib.request.urlopen(metrics_url, timeout=2) as answer:
            metrics = answer.read().decode()
        told = Path(f"/proc/{pid}/status").read_text()
        fds = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, urllib.error.URLError):
        return None
    return Sample(
        at_s,
        pid,
        _number(r"VmRSS:\s+(\d+)", told) / 1024,
        fds,
        int(_number(r"Threads:\s+(\d+)", told)),
        sum(path.stat().st_size for path in _files(home / "state")) / MIB,
        len(_files(home / "export/.replicator/tmp")),
        _total("replicator_pending_files", metrics),
        max(_values("replicator_oldest_pending_seconds", metrics), default=0),
        sum(not line.startswith("#") for line in metrics.splitlines()),
    )


def growth(samples: Sequence[Sample], of: str) -> tuple[float, float]:
    """The median of a gauge in the first and in the last fifth of the samples."""
    values = [float(getattr(one, of)) for one in samples]
    fifth = max(1, len(values) // 5)
    return statistics.median(values[:fifth]), statistics.median(values[-fifth:])


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("*") if path.is_file()] if directory.is_dir() else []


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    return float(found[1]) if found else 0.0


def _values(name: str, metrics: str) -> list[float]:
    return [float(value) for value in re.findall(rf"^{name}{{[^}}]*}} (\S+)$", metrics, re.MULTILINE)]


def _total(name: str, metrics: str) -> float:
    return sum(_values(name, metrics))
