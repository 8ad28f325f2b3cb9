"""A pytest plugin: what came of the tests that bring faults about, as JSON, for `tests.faults.table`.

A parametrised test counts a case for each of its parameters; one that goes through seeds of its own says how many, by
`record_property("cases", n)`. Beside that, in every run: a test that is skipped has to say why.
"""

import json
import os
import platform
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = "docs/FAULTS.md"
ROWS = "fault"
"""The property of a report that holds the rows its test is marked with."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-report", metavar="PATH", help="write what came of tests with the mark fault, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")  # of pytest-xdist: its reports go to the one who writes
    if (path := config.getoption("--fault-report")) and not is_worker:
        config.pluginmanager.register(Recorder(Path(path)), "fault-recorder")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Marks go along with the report; a skip without a reason is a failure: nobody would notice what is not tested."""
    report = yield
    if rows := [str(row) for mark in item.iter_markers("fault") for row in mark.args]:
        report.user_properties.append((ROWS, rows))
    if report.skipped and not hasattr(report, "wasxfail") and not reason_of(report):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped without a reason. Say in the skip what this machine lacks"
    return report


def reason_of(report: pytest.TestReport) -> str:
    """Why a test was skipped; '' where only pytest's own words stand."""
    _, _, text = report.longrepr if isinstance(report.longrepr, tuple) else ("", "", str(report.longrepr))
    reason = text.removeprefix("Skipped: ").removeprefix("Skipped").strip()
    return "" if reason == "unconditional skip" else reason


class Recorder:
    """Collects while tests run, and writes in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: dict[str, dict[str, Any]] = {}
        self._began_s = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, call and teardown each report; a case ends with its call, or where it fails or is skipped."""
        told: dict[str, Any] = dict(report.user_properties)
        if ROWS not in told or (report.when != "call" and report.passed):
            return
        name = report.nodeid.partition("[")[0].removeprefix("tests/")
        test = self._tests.setdefault(
            name, {"rows": [], "cases": 0, "passed": 0, "failed": 0, "skipped": 0, "reasons": []}
        )
        test["rows"] = sorted({*test["rows"], *told[ROWS]})
        test[report.outcome] += 1
        if report.skipped:
            test["reasons"] = sorted({*test["reasons"], reason_of(report)})
        elif report.when == "call":
            test["cases"] += int(told.get("cases", 1))

    def pytest_sessionfinish(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        known = surroundings() | {"seconds": round(time.monotonic() - self._began_s), "tests": self._tests}
        self._path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def surroundings() -> dict[str, Any]:
    """What a result depends on beside the test."""
    return {
        "commit": commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "kernel": platform.release().partition("-")[0],
        "store": store(),
        "is_long": os.environ.get("REPLICATOR_TEST_LONG") == "1",
    }


def commit() -> str:
    """The commit under test, and whether the tree differs from it; the page that is being written does not count."""
    try:
        head, status = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--short=10", "HEAD"), ("status", "--porcelain", "--", ".", f":!{PAGE}"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "no checkout"
    return f"{head} with changes" if status else head


def store() -> str:
    """The kind of S3 server that the tests had."""
    endpoint = os.environ.get("REPLICATOR_TEST_S3_ENDPOINT")
    if not endpoint:
        return f"moto {version('moto')}"
    try:
        with urllib.request.urlopen(endpoint, timeout=5) as answer:
            kind = answer.headers.get("Server")
    except urllib.error.HTTPError as refusal:  # an answer all the same
        kind = refusal.headers.get("Server")
    except OSError:
        kind = None
    return f"{kind or 'unnamed'} (REPLICATOR_TEST_S3_ENDPOINT)"
