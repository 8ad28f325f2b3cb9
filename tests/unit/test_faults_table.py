"""The catalogue of faults, the marks in the tests and docs/FAULTS.md say the same; what writes the table can fail."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import table
from tests.faults.catalogue import TESTS, Row, claims, rows, unseen
from tests.faults.record import commit, store

ROOT = TESTS.parent

SAMPLE = """
import pytest
pytestmark = pytest.mark.fault("A1")

LATER = pytest.param(3, marks=pytest.mark.fault("A6"))
SEEDS = [1, pytest.param(2, marks=pytest.mark.fault("A4")), LATER]

@pytest.mark.parametrize("seed", SEEDS)
def test_seeds(seed):
    pass

@pytest.mark.fault("A2", "A3")
class TestLoop:
    @pytest.mark.fault("A5")
    def test_many(self, record_property):
        record_property("cases", 200)

def test_red():
    assert 0

def test_elsewhere():
    pytest.skip("no such kernel")

@pytest.mark.skip
def test_silent():
    pass
"""


# The tree


def test_every_row_has_a_test_or_a_reason():
    """No fault of the catalogue is left to hope: a test carries it, or the catalogue says why none can."""
    carried = claims()

    assert [id for id, row in rows().items() if id not in carried and not row.not_here] == []  # noqa: A001


def test_every_mark_names_a_row():
    """A mark with a slip in it would prove nothing."""
    assert sorted(set(claims()) - set(rows())) == []


def test_every_mark_is_seen_by_the_table():
    """Marks stand on tests, classes, modules or parameters, with rows as plain words; elsewhere they are not found."""
    marks = {path: unseen(path.read_text(encoding="utf-8")) for path in TESTS.rglob("test_*.py")}

    assert [path.name for path, count in marks.items() if count] == []


def test_page_is_the_catalogue_with_the_marks_of_today():
    """docs/FAULTS.md has every row with its words and its tests; `make faults` writes it anew."""
    carried = claims()
    wanted = [" | ".join(table.fixed_cells(row, carried.get(row.id, ()))) for row in rows().values()]
    page = (ROOT / "docs/FAULTS.md").read_text(encoding="utf-8")
    found = [line for line in page.splitlines() if line.startswith("| ") and line[2:4].strip("ABCDEFGH").isdigit()]

    stale = [cells.partition(" ")[0] for cells in wanted if not any(line.startswith(f"| {cells} |") for line in found)]
    assert (stale, len(found)) == ([], len(wanted)), f"docs/FAULTS.md is stale; run `{table.MEND}`"


# What finds the marks


def test_marks_are_found_wherever_they_may_stand(tmp_path):
    """A module's mark counts for all its tests, a class's for its own, a parameter's for its function."""
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    found = claims(tmp_path)

    assert found["A1"] == [
        f"test_sample.py::{name}"
        for name in ("test_seeds", "TestLoop::test_many", "test_red", "test_elsewhere", "test_silent")
    ]
    assert [found[id] for id in ("A2", "A3", "A5")] == [["test_sample.py::TestLoop::test_many"]] * 3  # noqa: A001
    assert found["A4"] == found["A6"] == ["test_sample.py::test_seeds"]


@pytest.mark.parametrize(
    "text",
    [
        "fault = pytest.mark.fault\n@fault('A1')\ndef test_x(): pass",
        "CASES = [pytest.param(1, marks=pytest.mark.fault('A1'))]",
        "@pytest.mark.fault(ROW)\ndef test_x(): pass",
        "def test_x(request):\n    request.applymarker(pytest.mark.fault('A1'))",
    ],
)
def test_mark_that_would_be_missed_is_told(text):
    """A mark that only runs could find is counted, so the table never lacks a test in silence."""
    assert unseen(text) == 1
    assert unseen(SAMPLE) == 0


# What records a run


@pytest.fixture(scope="module", params=[(), pytest.param(("-p", "xdist", "-n2"), marks=pytest.mark.slow)])
def recorded(request, tmp_path_factory):
    """What a run of the sample wrote, and what it printed: in one process, and spread over two."""
    place = tmp_path_factory.mktemp("recorded")
    (place / "test_sample.py").write_text(SAMPLE)
    words = ("-p", "no:cacheprovider", "-p", "tests.faults.record", "-q", *request.param)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--fault-report", "report.json", "."],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads((place / "report.json").read_text()), ran.stdout


def test_cases_are_parameters_or_what_the_test_says(recorded):
    """A test counts once for each parameter, and as often as it says when it has seeds of its own."""
    tests = recorded[0]["tests"]

    assert {name: (test["cases"], test["passed"]) for name, test in tests.items() if test["passed"]} == {
        "test_sample.py::test_seeds": (3, 3),
        "test_sample.py::TestLoop::test_many": (200, 1),
    }
    assert tests["test_sample.py::test_red"]["failed"] == 1
    assert tests["test_sample.py::test_seeds"]["rows"] == ["A1", "A4", "A6"]


def test_skip_without_a_reason_is_a_failure(recorded):
    """What this machine cannot run says what it lacks; a silent skip makes the run red."""
    report, printed = recorded

    assert report["tests"]["test_sample.py::test_elsewhere"]["reasons"] == ["no such kernel"]
    assert report["tests"]["test_sample.py::test_silent"]["failed"] == 1
    assert "test_silent was skipped without a reason" in printed


def test_surroundings_are_told(recorded):
    """Commit, date, interpreter, kernel and server of the run are in the report."""
    assert {"commit", "date", "python", "kernel", "store", "is_long"} <= set(recorded[0])
    assert commit()
    assert store()


# What writes the table


def result(**changes):
    return {"cases": 1, "passed": 1, "failed": 0, "skipped": 0, "reasons": []} | changes


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([result(), result(passed=3)], "passed"),
        ([result(), result(failed=1)], "**1 of 3 failed**"),
        ([result(), result(passed=0, skipped=1)], "passed, 1 not run"),
        ([result(passed=0, skipped=1)], "not run"),
        ([], "**no test**"),
    ],
)
def test_verdict_hides_nothing(results, words):
    """One failed case makes the row red; a row that nothing ran for is not called passed."""
    assert table.verdict(Row("A1", "", ""), results) == words


def test_row_that_cannot_run_has_its_reason_below_the_table():
    """Reasons of the catalogue and of skips are listed, each once."""
    row = Row("E1", "", "", not_here="no such thing yet")
    skipped = result(passed=0, skipped=1, reasons=["no fuse"])

    assert table.verdict(row, []) == "not run"
    assert table.reasons(row, [skipped, skipped]) == ["no such thing yet", "no fuse"]


def test_partial_run_writes_nothing(tmp_path, recorded, monkeypatch):
    """A report that lacks a marked test leaves the page as it is, and says which command runs them all."""
    (tmp_path / "report.json").write_text(json.dumps(recorded[0]))
    monkeypatch.setattr(table, "claims", lambda: {"A1": ["unit/test_other.py::test_missing"]})

    assert table.MEND in table.main(str(tmp_path / "report.json"), str(tmp_path / "page.md"))
    assert not Path(tmp_path / "page.md").exists()


def test_page_shows_results_beside_the_words(recorded):
    """Each row has its verdict and its number of cases; the head has the totals."""
    carried = {"A1": ["test_sample.py::test_seeds"], "A2": ["test_sample.py::TestLoop::test_many"]}
    lines = list(table.page(recorded[0], carried))

    assert next(line for line in lines if line.startswith("| A1 |")).endswith(
        "| `test_sample.py::test_seeds` | passed | 3 |"
    )
    assert next(line for line in lines if line.startswith("| A2 |")).endswith("| passed | 200 |")
    assert all(f"- {row.id}: {row.not_here}." in lines for row in rows().values() if row.not_here)
    assert f"| Rows | {len(rows())}, of them 2 passed |" in lines
