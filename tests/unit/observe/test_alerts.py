"""The alert rules: each names what exists, says what to do, and stands in the guide; one source for both forms."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from replicator.observe import edge_metrics, metrics, operator_metrics
from replicator.observe.metrics import Kind, Metric

ROOT = Path(__file__).parents[3]
PROMETHEUS, KUBERNETES = ROOT / "config" / "prometheus", ROOT / "config" / "kubernetes"
FORMS = {
    "replicator.rules.yaml": "prometheusrule.yaml",
    "controlplane.rules.yaml": "prometheusrule-controlplane.yaml",
}
"""Files of rules, and the same as an object of the Prometheus operator."""
METRICS: dict[str, Metric] = {
    metric.name: metric
    for table in (metrics.TABLE, operator_metrics.TABLE, edge_metrics.TABLE)
    for metric in table.values()
}
OF_THE_SCRAPE = {"job", "instance"}


@dataclass(frozen=True)
class Rule:
    file: str
    alert: str
    expr: str
    severity: str
    annotations: dict[str, str]

    @property
    def metrics(self) -> list[Metric]:
        return [METRICS[name] for name in re.findall(r"\breplicator_\w+", self.expr)]

    @property
    def labels(self) -> set[str]:
        """Those that the alert has in the end: of its grouping, else of what stands first in it."""
        if grouped := re.match(r"(?:sum|max|min) by \((.*?)\)", self.expr):
            return set(re.split(r",\s*", grouped[1]))
        if not self.metrics:
            return set() if self.expr.startswith("absent(") else OF_THE_SCRAPE
        return OF_THE_SCRAPE | set(self.metrics[0].labels)


def groups_of(path: Path) -> list[dict]:
    found = yaml.safe_load(path.read_text("utf-8"))
    return found["spec"]["groups"] if "spec" in found else found["groups"]


RULES = [
    Rule(file, rule["alert"], rule["expr"], rule["labels"]["severity"], rule["annotations"])
    for file in FORMS
    for group in groups_of(PROMETHEUS / file)
    for rule in group["rules"]
]


@pytest.fixture(params=RULES, ids=lambda rule: rule.alert)
def rule(request) -> Rule:
    return request.param


def test_alerts_have_names_of_their_own():
    """Silences and inhibitions go by the name."""
    names = [rule.alert for rule in RULES]

    assert len(set(names)) == len(names)
    assert all(name.startswith("Replicator") for name in names)


def test_alert_asks_for_what_is_exposed(rule):
    """A metric that nobody has, or a label that it lacks, would never fire, silently; a bare counter always."""
    labels = OF_THE_SCRAPE.union(*(metric.labels for metric in rule.metrics))
    asked = {label for body in re.findall(r"\{(.*?)\}", rule.expr) for label in re.findall(r"(\w+)[=!]", body)}
    grouped = {label for body in re.findall(r"\b(?:by|on) \((.*?)\)", rule.expr) for label in re.split(r",\s*", body)}

    assert asked | grouped <= labels
    for metric in rule.metrics:
        if metric.kind is Kind.COUNTER:
            assert re.search(rf"(rate|increase)\({metric.name}(\{{.*?\}})?\[", rule.expr)


def test_alert_says_what_where_and_what_next(rule):
    """A severity that can be routed, one line that stands alone, and a description that names who it is about."""
    assert rule.severity in {"critical", "warning", "info"}
    assert set(rule.annotations) == {"summary", "description", "runbook"}
    assert "\n" not in rule.annotations["summary"]
    assert rule.annotations["description"].endswith(".")
    if "target" in rule.labels:
        assert "{{ $labels.target }}" in rule.annotations["summary"]
        assert {"workload", "instance"} <= said_labels(rule)


def said_labels(rule: Rule) -> set[str]:
    return set(re.findall(r"\$labels\.(\w+)", " ".join(rule.annotations.values())))


def test_alert_names_only_labels_that_it_has(rule):
    """A label that the result lacks reads as nothing, in the middle of a sentence."""
    assert said_labels(rule) <= rule.labels


def test_alert_stands_in_the_guide(rule):
    """Its anchor is a heading of docs/monitoring.md with its name."""
    page, _, anchor = rule.annotations["runbook"].partition("#")

    assert anchor == rule.alert.lower()
    assert f"\n### {rule.alert}\n" in (ROOT / page).read_text("utf-8")


def test_guide_explains_no_alert_that_is_gone():
    """Its headings of alerts are the alerts, in the order of the files."""
    headings = re.findall(r"^### (Replicator\w+)$", (ROOT / "docs" / "monitoring.md").read_text("utf-8"), re.MULTILINE)

    assert headings == [rule.alert for rule in RULES]


def test_alert_is_proven(rule):
    """In tests/prometheus it fires once at least; that it does is for promtool to say."""
    proof = (ROOT / "tests" / "prometheus" / rule.file.replace(".rules.", ".test.")).read_text("utf-8")

    assert f'{{alertname="{rule.alert}"}}\', value:' in proof


@pytest.mark.parametrize(("rules", "custom"), FORMS.items())
def test_both_forms_are_one(rules, custom):
    """The PrometheusRule is the file of rules, indented: the groups, and every comment between them."""
    source = (PROMETHEUS / rules).read_text("utf-8").partition("groups:\n")[2]
    found = (KUBERNETES / custom).read_text("utf-8").partition("  groups:\n")[2]

    assert found == re.sub(r"(?m)^(?=.)", "  ", source)


def test_sample_configuration_has_the_jobs_that_the_rules_expect():
    """Whoever takes config/prometheus/prometheus.yaml needs no other name; monitors give theirs with the namespace."""
    sample = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text("utf-8"))
    jobs = [scrape["job_name"] for scrape in sample["scrape_configs"]]
    names = [
        document["metadata"]["name"]
        for path in sorted(KUBERNETES.glob("podmonitor*.yaml"))
        for document in yaml.safe_load_all(path.read_text("utf-8"))
    ]

    assert sorted(jobs) == sorted(names)
    assert sample["rule_files"] == list(FORMS)
    for pattern in {found for rule in RULES for found in re.findall(r'job=~"(.+?)"', rule.expr)}:
        matched = [job for job in jobs if re.fullmatch(pattern, job)]
        assert len(matched) == 1
        assert re.fullmatch(pattern, f"fleet/{matched[0]}")


def test_monitors_of_the_control_plane_select_its_pods():
    """The label and the port that they name are those of the Deployments."""
    for document in yaml.safe_load_all((KUBERNETES / "podmonitor-controlplane.yaml").read_text("utf-8")):
        component = document["metadata"]["name"].removeprefix("replicator-")
        manifests = yaml.safe_load_all((KUBERNETES / f"{component}.yaml").read_text("utf-8"))
        (deployment,) = [one for one in manifests if one["kind"] == "Deployment"]
        pod = deployment["spec"]["template"]

        assert document["metadata"]["namespace"] == deployment["metadata"]["namespace"]
        assert document["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ports = [port["name"] for container in pod["spec"]["containers"] for port in container["ports"]]
        assert [endpoint["port"] for endpoint in document["spec"]["podMetricsEndpoints"]] == ["metrics"]
        assert "metrics" in ports
