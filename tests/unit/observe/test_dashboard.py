"""The Grafana dashboards show every metric, and nothing that does not exist."""

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from replicator.observe import edge_metrics, operator_metrics
from replicator.observe.metrics import STAGES, TABLE, Kind, Metric

GRAFANA = Path(__file__).parents[3] / "grafana"
SUFFIXES = ("_bucket", "_sum", "_count")
FLEETS_OWN = ("ALERTS",)
"""Series that Prometheus makes itself."""


@dataclass(frozen=True)
class Board:
    """A dashboard, and the tables of metrics that it has to show."""

    name: str
    rows: tuple[str, ...]
    metrics: dict[str, Metric]

    @property
    def json(self) -> dict:
        return json.loads((GRAFANA / f"{self.name}.json").read_text("utf-8"))

    @property
    def panels(self) -> list[dict]:
        return [panel for panel in self.json["panels"] if panel["type"] != "row"]

    @property
    def queries(self) -> list[str]:
        """Those of every panel and annotation."""
        marks = [mark["target"]["expr"] for mark in self.json["annotations"]["list"]]
        return [*itertools.chain.from_iterable(map(expressions, self.panels)), *marks]

    def metric_of(self, name: str) -> Metric | None:
        """The metric a series belongs to, None when there is none."""
        for suffix in SUFFIXES:
            base = self.metrics.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
            if base is not None and base.kind is Kind.HISTOGRAM:
                return base
        found = self.metrics.get(name)
        return found if found is not None and found.kind is not Kind.HISTOGRAM else None

    def known(self, name: str) -> Metric:
        found = self.metric_of(name)
        assert found, name
        return found


def by_name(*tables) -> dict[str, Metric]:
    return {metric.name: metric for table in tables for metric in table.values()}


BOARDS = (
    Board(
        "replicator",
        ("Is my data safe", "Throughput", "Lag and latency", "Link", "Detection", "Device", "Configuration"),
        by_name(TABLE),
    ),
    Board(
        "controlplane",
        ("Do devices get what they need", "Operator", "Edge API"),
        by_name(operator_metrics.TABLE, edge_metrics.TABLE),
    ),
)


@pytest.fixture(params=BOARDS, ids=lambda board: board.name)
def board(request) -> Board:
    return request.param


@pytest.fixture
def panels(board):
    return board.panels


def expressions(panel) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def series(expression: str) -> set[str]:
    return set(re.findall(r"\breplicator_\w+", expression))


def test_no_unknown_metric_and_none_missing(board):
    """The tables and the panels name the same metrics, both ways."""
    shown = {name for panel in board.panels for expression in expressions(panel) for name in series(expression)}

    assert {name for name in shown if board.metric_of(name) is None} == set()
    assert {found.name for found in map(board.metric_of, shown) if found} == set(board.metrics)


def test_variables_ask_for_known_metrics(board):
    """What can be chosen comes from a metric that has that label, and any number of values of it."""
    variables = {variable["name"]: variable for variable in board.json["templating"]["list"]}

    assert {"datasource", "instance"} <= set(variables)
    assert variables["datasource"]["type"] == "datasource"
    for name, variable in variables.items():
        if variable["type"] == "query":
            for asked in series(variable["query"]["query"]):
                assert name in (*board.known(asked).labels, "instance")
            assert (variable["multi"], variable["includeAll"]) == (True, True)


def test_labels_and_values_in_expressions_exist(board):
    """A selector or a grouping by a label that the metric does not have would show nothing, silently."""
    for expression in board.queries:
        if expression.startswith(FLEETS_OWN):
            continue
        labels = {label for name in series(expression) for label in board.known(name).labels} | {"instance", "le"}
        selected = {label for body in re.findall(r"\{(.*?)\}", expression) for label in re.findall(r"(\w+)[=!]", body)}
        grouped = {label for body in re.findall(r"\bby \((.*?)\)", expression) for label in re.split(r",\s*", body)}
        stages = set(re.findall(r'stage!?="(\w+)"', expression))

        assert selected | grouped <= labels, expression
        assert stages <= set(STAGES)


def test_chosen_variables_apply_to_every_metric_that_has_them(board):
    """Choosing a target filters all panels of targets, not only some; annotations as well."""
    for expression in board.queries:
        for name, selector in re.findall(r"\b(replicator_\w+)(\{.*?\})?", expression):
            for label in {"instance"} | {"workload", "direction", "target"} & set(board.known(name).labels):
                assert f'{label}=~"${label}"' in selector, expression


def test_counters_are_never_shown_raw(board):
    """A counter's height says nothing: rate or increase, over Grafana's own interval or the whole time shown."""
    for expression in board.queries:
        for name in series(expression):
            if board.known(name).kind is not Kind.GAUGE:
                ranged = rf"(rate|increase)\({name}(\{{.*?\}})?\[\$__(rate_interval|range)\]"
                assert re.search(ranged, expression), expression


def unit_of(board: Board, expression: str) -> str:
    """The unit an expression's value has, from the metric's name and what is done with it."""
    if expression.startswith((*FLEETS_OWN, "changes(")):
        return "short"
    (metric,) = {board.known(name) for name in series(expression)}
    is_rate = "rate(" in expression
    if metric.name.endswith("_seconds"):
        return "s"
    if metric.name.endswith("_bytes_per_second"):
        return "Bps"
    if metric.name.endswith(("_bytes", "_bytes_total")):
        return "Bps" if is_rate else "bytes"
    if "requests" in metric.name:
        return "percentunit" if " / " in expression else "reqps"
    return "ops" if is_rate else "short"


def units(panel) -> list[str]:
    """The unit in which each query of a panel is shown: the panel's, or that of its column in a table."""
    fields = panel["fieldConfig"]
    columns = {
        override["matcher"]["options"]: prop["value"]
        for override in fields["overrides"]
        for prop in override["properties"]
        if prop["id"] == "unit"
    }
    return [columns.get(f"Value #{target['refId']}", fields["defaults"]["unit"]) for target in panel["targets"]]


def test_panels_have_the_unit_of_their_metrics(board):
    """Seconds as seconds, bytes as bytes, rates as rates; timestamps only as an age, or as how often they change."""
    for panel in board.panels:
        for unit, expression in zip(units(panel), expressions(panel), strict=True):
            expected = unit_of(board, expression)
            assert unit == expected or (unit == "none" and expected == "short"), panel["title"]
            assert "_timestamp_seconds" not in expression or expression.startswith(("time() - ", "changes("))


def test_rows_stand_in_the_order_of_the_questions(board):
    """First whether all is well, then what explains it."""
    assert tuple(panel["title"] for panel in board.json["panels"] if panel["type"] == "row") == board.rows


def test_first_panels_answer_whether_the_data_is_safe():
    """Oldest pending, failing, ready, last success: without scrolling."""
    first = " ".join(expression for panel in BOARDS[0].panels[:4] for expression in expressions(panel))

    assert series(first) == {
        "replicator_oldest_pending_seconds",
        "replicator_failing_files",
        "replicator_ready",
        "replicator_last_success_timestamp_seconds",
    }


def test_starts_and_configurations_are_marked():
    """Both are a vertical line in every panel, at the moment that the metric names, in Grafana's milliseconds."""
    marks = {mark["name"]: mark for mark in BOARDS[0].json["annotations"]["list"]}

    assert {name: series(mark["target"]["expr"]) for name, mark in marks.items()} == {
        "Start": {"replicator_start_timestamp_seconds"},
        "Configuration": {"replicator_config_applied_timestamp_seconds"},
    }
    assert all(mark["target"]["expr"].endswith(" * 1000") and mark["useValueForTime"] for mark in marks.values())


def test_panel_ids_are_unique(board):
    """Grafana drops one of two panels with the same id."""
    ids = [panel["id"] for panel in board.json["panels"]]

    assert len(set(ids)) == len(ids)


def test_panels_do_not_overlap_and_stay_on_the_grid(board):
    """24 columns; no two panels claim the same cell, and each stands beneath its row."""
    cells: set[tuple[int, int]] = set()
    for panel in board.json["panels"]:
        at = panel["gridPos"]
        own = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert at["x"] + at["w"] <= 24
        assert not cells & own, panel["title"]
        cells |= own
    tops = [panel["gridPos"]["y"] for panel in board.json["panels"]]
    assert tops == sorted(tops)


def test_dashboard_can_be_imported_anywhere(board):
    """No data source of one installation, no database id, a schema that Grafana 10.3 and later read."""
    found = board.json
    assert found["schemaVersion"] >= 39
    assert found.get("id") is None
    for panel in board.panels:
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_dashboards_lead_to_each_other():
    """One tag, by which each links to the others; a name of its own for each."""
    found = [board.json for board in BOARDS]

    assert len({one["uid"] for one in found}) == len({one["title"] for one in found}) == len(BOARDS)
    assert [link["tags"] for one in found for link in one["links"]] == [["replicator"]] * len(BOARDS)
    assert all("replicator" in one["tags"] for one in found)


def test_every_panel_explains_itself(panels):
    """The description says what the number means to somebody who sees it for the first time."""
    assert all(panel["description"].endswith(".") for panel in panels)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
