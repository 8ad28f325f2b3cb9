"""What Prometheus' own checker says of the rules, of the sample configuration and of what is exposed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from replicator.observe.edge_metrics import EdgeMetrics
from replicator.observe.metrics import Metrics
from replicator.observe.operator_metrics import OperatorMetrics

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "prometheus"
PROOFS = sorted(Path(__file__).parent.glob("*.test.yaml"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, which comes with Prometheus"),
]


def promtool(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


@pytest.mark.parametrize("path", PROOFS, ids=lambda path: path.name)
def test_every_alert_fires_for_its_fault_and_for_no_other(path):
    """The series of tests/prometheus: each alert fires alone, after its time, and ends; in a healthy one none does."""
    found = promtool("test", "rules", path)

    assert found.returncode == 0, found.stdout.decode()


def test_rules_and_sample_configuration_are_valid():
    """As files of rules, and as what the sample configuration loads."""
    for words in (("rules", *sorted(CONFIG.glob("*.rules.yaml"))), ("config", CONFIG / "prometheus.yaml")):
        found = promtool("check", *words)

        assert found.returncode == 0, found.stdout.decode()


@pytest.mark.parametrize("registry", [Metrics, OperatorMetrics, EdgeMetrics])
def test_names_and_help_follow_the_practice(registry):
    """promtool has nothing to say about what is exposed: no unit missing, no counter without `_total`."""
    found = promtool("check", "metrics", stdin=registry().render())

    assert (found.returncode, found.stdout.decode()) == (0, "")
