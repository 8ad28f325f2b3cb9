"""The Grafana dashboard shows every metric, and nothing that does not exist."""

import itertools
import json
import re
from pathlib import Path

import pytest

import replicator.observe.metrics as table
from replicator.observe.metrics import TABLE, Kind

DASHBOARD = Path(table.__file__).parents[2] / "grafana" / "replicator.json"
ROWS = (
    "Is my data safe",
    "Throughput",
    "Lag and latency",
    "Link",
    "Detection",
    "Device",
    "Configuration",
)
METRICS = {metric.name: metric for metric in TABLE.values()}
SUFFIXES = ("_bucket", "_sum", "_count")


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(DASHBOARD.read_text("utf-8"))


@pytest.fixture(scope="module")
def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(panel) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def series(expression: str) -> set[str]:
    return set(re.findall(r"\breplicator_\w+", expression))


def metric_of(name: str):
    """The metric a series belongs to, None when there is none."""
    for suffix in SUFFIXES:
        base = METRICS.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if base is not None and base.kind is Kind.HISTOGRAM:
            return base
    found = METRICS.get(name)
    return found if found is not None and found.kind is not Kind.HISTOGRAM else None


def test_no_unknown_metric_and_none_missing(panels):
    """The table and the panels name the same metrics, both ways."""
    shown = {name for panel in panels for expression in expressions(panel) for name in series(expression)}

    assert {name for name in shown if metric_of(name) is None} == set()
    assert {found.name for found in map(metric_of, shown) if found} == set(METRICS)


def test_variables_ask_for_known_metrics(dashboard):
    """Data source, workload, direction and target can be chosen; each list comes from a metric that has that label."""
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}

    assert {"datasource", "workload", "direction", "target"} <= set(variables)
    assert variables["datasource"]["type"] == "datasource"
    for name, variable in variables.items():
        if variable["type"] == "query":
            (asked,) = series(variable["query"]["query"])
            assert name in (*METRICS[asked].labels, "instance")
            assert (variable["multi"], variable["includeAll"]) == (True, True)


def test_labels_and_values_in_expressions_exist(panels):
    """A selector or a grouping by a label that the metric does not have would show nothing, silently."""
    for expression in itertools.chain.from_iterable(map(expressions, panels)):
        labels = {label for name in series(expression) for label in metric_of(name).labels} | {"instance", "le"}
        selected = {label for body in re.findall(r"\{(.*?)\}", expression) for label in re.findall(r"(\w+)[=!]", body)}
        grouped = {label for body in re.findall(r"\bby \((.*?)\)", expression) for label in re.split(r",\s*", body)}
        stages = set(re.findall(r'stage!?="(\w+)"', expression))

        assert selected | grouped <= labels, expression
        assert stages <= set(table.STAGES)


def test_chosen_variables_apply_to_every_metric_that_has_them(panels):
    """Choosing a target filters all panels of targets, not only some."""
    for expression in itertools.chain.from_iterable(map(expressions, panels)):
        for name, selector in re.findall(r"\b(replicator_\w+)(\{.*?\})?", expression):
            for label in {"instance"} | {"workload", "direction", "target"} & set(metric_of(name).labels):
                assert f'{label}=~"${label}"' in selector, expression


def test_counters_are_never_shown_raw(panels):
    """A counter's height says nothing: rate or increase, over Grafana's own interval."""
    for expression in itertools.chain.from_iterable(map(expressions, panels)):
        for name in series(expression):
            if metric_of(name).kind is not Kind.GAUGE:
                assert re.search(rf"(rate|increase)\({name}(\{{.*?\}})?\[\$__rate_interval\]", expression), expression


def unit_of(expression: str) -> str:
    """The unit an expression's value has, from the metric's name and what is done with it."""
    (metric,) = {metric_of(name) for name in series(expression)}
    is_rate = "rate(" in expression
    if metric.name.endswith(("_seconds", "_timestamp_seconds")):
        return "s"
    if metric.name.endswith("_bytes_per_second"):
        return "Bps"
    if metric.name.endswith(("_bytes", "_bytes_total")):
        return "Bps" if is_rate else "bytes"
    if "s3_requests" in metric.name:
        return "reqps"
    return "ops" if is_rate else "short"


def test_panels_have_the_unit_of_their_metrics(panels):
    """Seconds as seconds, bytes as bytes, rates as rates; timestamps only as an age."""
    for panel in panels:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for expression in expressions(panel):
            expected = unit_of(expression)
            assert unit == expected or (unit == "none" and expected == "short"), panel["title"]
            assert ("_timestamp_seconds" not in expression) or expression.startswith("time() - "), panel["title"]


def test_rows_stand_in_the_order_of_the_questions(dashboard):
    """First whether the data is safe, then what explains it."""
    assert tuple(panel["title"] for panel in dashboard["panels"] if panel["type"] == "row") == ROWS


def test_first_panels_answer_whether_the_data_is_safe(panels):
    """Oldest pending, failing, ready, last success: without scrolling."""
    first = " ".join(expression for panel in panels[:4] for expression in expressions(panel))

    assert series(first) == {
        "replicator_oldest_pending_seconds",
        "replicator_failing_files",
        "replicator_ready",
        "replicator_last_success_timestamp_seconds",
    }


def test_panel_ids_are_unique(dashboard):
    """Grafana drops one of two panels with the same id."""
    ids = [panel["id"] for panel in dashboard["panels"]]

    assert len(set(ids)) == len(ids)


def test_panels_do_not_overlap_and_stay_on_the_grid(dashboard):
    """24 columns; no two panels claim the same cell."""
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        own = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert at["x"] + at["w"] <= 24
        assert not cells & own, panel["title"]
        cells |= own


def test_dashboard_can_be_imported_anywhere(dashboard, panels):
    """No data source of one installation, no database id, a schema that Grafana 10.3 and later read."""
    assert dashboard["schemaVersion"] >= 39
    assert dashboard.get("id") is None
    assert dashboard["uid"] == "replicator"
    for panel in panels:
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_every_panel_explains_itself(panels):
    """The description says what the number means to somebody who sees it for the first time."""
    assert all(panel["description"].endswith(".") for panel in panels)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
