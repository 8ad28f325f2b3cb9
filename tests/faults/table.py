"""docs/FAULTS.md: every fault of the catalogue with its tests and what came of them when they last ran.

    python -m tests.faults.table build/faults.json docs/FAULTS.md

Writes nothing when the report lacks a test that carries a mark, so a partial run cannot pass for a whole one.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.catalogue import Row, claims, groups, rows

MEND = "make faults"

_INTRODUCTION = f"""\
# Faults

What goes wrong around replicator, what it does about it, and the tests that bring it about. Written by `{MEND}`
from `tests/faults/catalogue.toml`, the marks in the tests, and one run of them; do not edit it. Tests are named by
their file beneath `tests/`. A case is one run of a test: with one parameter, one seed, or one place to fail at.
"""


def fixed_cells(row: Row, tests: Sequence[str]) -> list[str]:
    """What of a table row no run can change."""
    return [row.id, row.fault, row.answer, "<br>".join(f"`{test}`" for test in tests) or "none"]


def verdict(row: Row, results: Sequence[Mapping[str, Any]]) -> str:
    """What came of a row's tests, in a few words."""
    ran, failed, skipped = (sum(one[name] for one in results) for name in ("passed", "failed", "skipped"))
    if failed:
        return f"**{failed} of {ran + failed} failed**"
    if not ran:
        return "not run" if results or row.not_here else "**no test**"
    return f"passed, {skipped} not run" if skipped else "passed"


def reasons(row: Row, results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why something of a row did not run."""
    return list(dict.fromkeys([row.not_here] * bool(row.not_here) + [why for one in results for why in one["reasons"]]))


def page(report: Mapping[str, Any], carried: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The lines of the document."""
    ran: Mapping[str, Mapping[str, Any]] = report["tests"]
    of_row = {id: [ran[test] for test in carried.get(id, ())] for id in rows()}  # noqa: A001 - it is called so
    yield _INTRODUCTION
    yield from _summary(report, of_row)
    for group in groups():
        yield f"\n## {group.letter}. {group.title}\n"
        yield "| | What happens | What replicator does | Tests | Last run | Cases |"
        yield "|---|---|---|---|---|---:|"
        for row in group.rows:
            results = of_row[row.id]
            cells = [*fixed_cells(row, carried.get(row.id, ())), verdict(row, results)]
            yield "| " + " | ".join([*cells, str(sum(one["cases"] for one in results))]) + " |"
    left = [(row, why) for row in rows().values() for why in reasons(row, of_row[row.id])]
    yield "\n## Not run\n"
    yield from (f"- {row.id}: {why}." for row, why in left) if left else ["Everything ran."]


def _summary(report: Mapping[str, Any], of_row: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    tests = report["tests"].values()
    passed = sum(verdict(row, of_row[row.id]).startswith("passed") for row in rows().values())
    yield "| | |"
    yield "|---|---|"
    yield f"| Commit | {report['commit']} |"
    yield f"| Date | {report['date']} |"
    yield f"| Python | {report['python']} |"
    yield f"| Kernel | {report['kernel']} |"
    yield f"| S3 server | {report['store']} |"
    yield f"| Profile | {'long' if report['is_long'] else 'short'}, {report['seconds']} s |"
    yield f"| Rows | {len(of_row)}, of them {passed} passed |"
    totals = [sum(one[name] for one in tests) for name in ("cases", "failed", "skipped")]
    yield "| Tests | {}, {} cases, {} failed, {} not run |".format(len(tests), *totals)


def main(report_path: str, page_path: str) -> str:
    """Write the page. Returns what stands in the way, or ''."""
    report = json.loads(Path(report_path).read_text(encoding="utf-8"))
    carried = claims()
    missing = sorted({test for tests in carried.values() for test in tests} - set(report["tests"]))
    if missing:
        return f"{report_path} has no result of {', '.join(missing)}. Run all of them: {MEND}"
    Path(page_path).parent.mkdir(exist_ok=True)
    Path(page_path).write_text("\n".join(page(report, carried)) + "\n", encoding="utf-8")
    return ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]) or 0)
