"""The table of metrics, the registry made from it, and what a snapshot does to the gauges."""

import math
import re
from typing import get_type_hints

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from replicator.model import Direction, Prefix, Storage, Target
from replicator.observe import edge_metrics, operator_metrics
from replicator.observe import metrics as table
from replicator.observe.edge_metrics import EdgeMetrics
from replicator.observe.metrics import OUTCOMES, TABLE, WHO, Kind, Metrics, who, word
from replicator.observe.operator_metrics import OperatorMetrics
from replicator.observe.status import ConfigView, FailingFile, LinkView, MovingFile, SkippedFile, State, WatcherView

LABELS = {*WHO, "outcome", "stage", "reason", "operation", "code", "cause", "way", "state", "version", "python"}
LABELS |= {"route", "action", "step"}
REGISTRIES = ((table, Metrics), (operator_metrics, OperatorMetrics), (edge_metrics, EdgeMetrics))


def samples(metrics: Metrics) -> dict[tuple, float]:
    """(name, sorted labels) -> value, as a scraper reads it."""
    families = text_string_to_metric_families(metrics.render().decode("utf-8"))
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, *sorted(labels.items())]


class TestTable:
    """Every metric stands in one table, in Prometheus' naming."""

    @pytest.fixture(params=REGISTRIES, ids=lambda pair: pair[1].__name__)
    def pair(self, request):
        """A table, and the class that is made of it."""
        module, registry = request.param
        return module.TABLE, registry

    @pytest.fixture
    def rows(self, pair):
        return pair[0].values()

    def test_attributes_and_rows_are_the_same(self, pair):
        """A typed attribute for each row, of the row's kind, and no other."""
        kinds = {Counter: Kind.COUNTER, Gauge: Kind.GAUGE, Histogram: Kind.HISTOGRAM}
        rows, registry = pair
        typed = {name: kinds[hint] for name, hint in get_type_hints(registry).items() if hint in kinds}

        assert typed == {name: metric.kind for name, metric in rows.items()}

    def test_names_are_unique_prefixed_and_carry_their_unit(self, rows):
        """`replicator_` in front, `_total` for counters only, `_seconds` for histograms; lower case."""
        names = [metric.name for metric in rows]

        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"replicator_[a-z][a-z0-9_]*", name) for name in names)
        for metric in rows:
            assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
            assert metric.kind is not Kind.HISTOGRAM or metric.name.endswith("_seconds"), metric.name

    def test_labels_come_from_closed_sets(self, rows):
        """No label could hold a device, a file name, a key or a message."""
        assert {label for metric in rows for label in metric.labels} <= LABELS

    def test_help_says_something_in_one_line(self, rows):
        """Each help text is one sentence or more, ended, and not the name again."""
        assert all(len(metric.help) > 8 and metric.help.endswith(".") for metric in rows)

    def test_buckets_span_a_millisecond_to_ten_minutes(self):
        """An event's latency and a large file's both fall inside."""
        assert (table.BUCKETS_S[0], table.BUCKETS_S[-1]) == (0.001, 600.0)
        assert list(table.BUCKETS_S) == sorted(table.BUCKETS_S)


class TestExposition:
    """What a scraper gets."""

    def test_every_metric_is_exposed_with_its_type_and_help(self, snapshot, view):
        """The text parses, and each row of the table is there under its own name and type."""
        metrics = Metrics()
        metrics.publish(snapshot(view()))

        families = {f.name: f for f in text_string_to_metric_families(metrics.render().decode())}

        assert {m.name.removesuffix("_total") for m in TABLE.values()} == set(families)
        for metric in TABLE.values():
            family = families[metric.name.removesuffix("_total")]
            assert (family.type, family.documentation) == (metric.kind.value, metric.help)

    def test_content_type_is_the_text_format(self):
        """Prometheus 3 refuses a scrape whose content type it does not know."""
        assert Metrics.content_type == "text/plain; version=0.0.4; charset=utf-8"

    def test_two_instances_share_nothing(self):
        """A registry of its own: tests and reloads do not collide, nothing foreign is exposed."""
        one, other = Metrics(), Metrics()
        one.bytes.labels("w", "egress", "t").inc(3)

        assert value(one, "replicator_bytes_total", workload="w", direction="egress", target="t") == 3
        assert not any(name == "replicator_bytes_total" for name, *_ in samples(other))

    def test_no_created_series(self):
        """A second series beside each counter would be paid for and never read."""
        metrics = Metrics()
        metrics.sweeps.labels("w", "egress", "t").inc()

        assert b"_created" not in metrics.render()

    def test_histogram_counts_in_seconds(self):
        """A transfer of 20 ms falls into the bucket up to 30 ms."""
        metrics = Metrics()
        metrics.latency.labels("egress", "total").observe(0.02)

        labels = {"direction": "egress", "stage": "total"}
        assert value(metrics, "replicator_latency_seconds_bucket", **labels, le="0.01") == 0
        assert value(metrics, "replicator_latency_seconds_bucket", **labels, le="0.03") == 1


class TestPublish:
    """Gauges are a snapshot's numbers."""

    @pytest.fixture
    def metrics(self):
        return Metrics()

    def test_target_gauges(self, metrics, snapshot, view):
        """Each number of a view arrives at its own gauge, under the target's labels."""
        late = view(
            state=State.FAILING,
            pending_files=2,
            pending_bytes=30,
            oldest_pending_s=4.5,
            blocked_bytes=5,
            late_writes=6,
            failing_by_reason={"throttled": 2},
            skipped_by_reason={"hard-link": 3},
            watcher=WatcherView(source="inotify", watches=7, degraded="overflow"),
        )

        metrics.publish(snapshot(late))

        labels = {"workload": "os-stats", "direction": "egress", "target": "os-stats/egress/stats"}
        expected = {
            "pending_files": 2,
            "pending_bytes": 30,
            "oldest_pending_seconds": 4.5,
            "last_success_timestamp_seconds": late.last_success_ts,
            "blocked_bytes": 5,
            "journal_rows": 40,
            "journal_bytes": 4096,
            "late_writes": 6,
            "watcher_watches": 7,
            "watcher_degraded": 1,
        }
        assert {name: value(metrics, f"replicator_{name}", **labels) for name in expected} == expected
        assert value(metrics, "replicator_failing_files", **labels, reason="throttled") == 2
        assert value(metrics, "replicator_skipped_files", **labels, reason="hard-link") == 3
        assert value(metrics, "replicator_free_bytes", workload="os-stats") == 1 << 30
        states = {state: value(metrics, "replicator_target_state", **labels, state=state.value) for state in State}
        assert states == {state: float(state is State.FAILING) for state in State}

    def test_cause_of_a_block_is_told_while_it_lasts(self, metrics, snapshot, view):
        """An alert can tell refused credentials from a lost directory; a target that moves has no such series."""
        labels = dict(zip(WHO, who(view()), strict=True))
        metrics.publish(snapshot(view(state=State.BLOCKED, cause="access-denied", reason="https://s3.example: 403")))
        assert value(metrics, "replicator_target_blocked", **labels, cause="access-denied") == 1

        metrics.publish(snapshot(view(state=State.BEHIND, pending_files=1)))

        assert not any(name == "replicator_target_blocked" for name, *_ in samples(metrics))

    def test_process_gauges(self, metrics, snapshot):
        """Numbers of the whole process have no labels."""
        metrics.publish(snapshot(is_draining=True, is_ready=False, max_age_s=60.0, free_space_floor_bytes=1 << 20))

        expected = {
            "transfers_in_flight": 2,
            "transfers_limit": 16,
            "watch_limit": 8192,
            "queue_jobs": 5,
            "config_valid": 1,
            "config_generation": 1,
            "config_applied_timestamp_seconds": 1_800_000_000.0 - 300,
            "ready": 0,
            "ready_max_age_seconds": 60,
            "start_timestamp_seconds": 1_800_000_000.0 - 400,
            "free_space_floor_bytes": 1 << 20,
            "draining": 1,
        }
        assert {name: value(metrics, f"replicator_{name}") for name in expected} == expected
        assert any(name == "replicator_build_info" and ("version", "1.2.3") in rest for name, *rest in samples(metrics))

    def test_link_gauges(self, metrics, snapshot):
        """Caps, achieved rates and the data budget; a way without a cap has no series."""
        link = LinkView(up_limit=1024, up_achieved=900.5, down_achieved=5e6, budget_bytes=10, budget_used_bytes=4)
        metrics.publish(snapshot(link=link))

        found = {(name, dict(rest).get("way")): number for (name, *rest), number in samples(metrics).items()}
        assert found["replicator_bandwidth_limit_bytes_per_second", "up"] == 1024
        assert ("replicator_bandwidth_limit_bytes_per_second", "down") not in found
        assert found["replicator_bandwidth_achieved_bytes_per_second", "up"] == 900.5
        assert found["replicator_bandwidth_achieved_bytes_per_second", "down"] == 5e6
        assert found["replicator_data_budget_bytes", None] == 10
        assert found["replicator_data_budget_used_bytes", None] == 4

    def test_unknown_is_no_number(self, metrics, snapshot, view):
        """What is not known is absent or NaN: a 0 would be read as 1970, or as a full disk."""
        unknown = view(last_success_ts=None, watcher=None, free_bytes=None)
        metrics.publish(snapshot(unknown, watch_limit=None, config=ConfigView(source="env", generation=0, valid=False)))

        names = {name for name, *_ in samples(metrics)}
        absent = {"last_success_timestamp_seconds", "watcher_watches", "watcher_degraded", "free_bytes"}
        assert not names & {f"replicator_{name}" for name in absent}
        assert math.isnan(value(metrics, "replicator_watch_limit"))
        assert math.isnan(value(metrics, "replicator_config_applied_timestamp_seconds"))

    def test_target_that_left_disappears(self, metrics, snapshot, view):
        """An age that nobody updates any more would alert for ever."""
        metrics.publish(snapshot(view("old"), view("new")))
        metrics.publish(snapshot(view("new")))

        gauges = {m.name for m in TABLE.values() if m.kind is Kind.GAUGE}
        targets = {dict(rest).get("target") for name, *rest in samples(metrics) if name in gauges}
        assert targets == {None, "os-stats/egress/new"}

    def test_publishing_twice_changes_nothing(self, metrics, snapshot, view):
        """A scrape has no effect on the next one."""
        now = snapshot(view(failing_by_reason={"throttled": 2}))
        metrics.publish(now)
        first = samples(metrics)
        metrics.publish(now)

        assert samples(metrics) == first

    def test_counters_of_a_target_begin_at_zero(self, metrics, snapshot, view):
        """The first failure is seen by increase(), which needs a 0 before the 1."""
        metrics.publish(snapshot(view()))

        labels = dict(zip(WHO, who(view()), strict=True))
        for outcome in OUTCOMES:
            assert value(metrics, "replicator_files_total", **labels, outcome=outcome) == 0
        assert value(metrics, "replicator_sweep_found_total", **labels) == 0

    def test_publishing_keeps_counts(self, metrics, snapshot, view):
        """A scrape never resets a counter."""
        metrics.bytes.labels(*who(view())).inc(10)
        metrics.publish(snapshot(view()))

        assert value(metrics, "replicator_bytes_total", **dict(zip(WHO, who(view()), strict=True))) == 10

    def test_forgotten_target_leaves_no_series(self, metrics, snapshot, view):
        """All of one target goes, counters with a fourth label too; the others stay."""
        for gone_or_not in (view("gone"), view("stays")):
            metrics.retries.labels(*who(gone_or_not), "throttled").inc()
            metrics.publish(snapshot(gone_or_not))

        metrics.forget_target(view("gone"))

        targets = {dict(rest)["target"] for name, *rest in samples(metrics) if "target" in dict(rest)}
        assert targets == {"os-stats/egress/stays"}


class TestLabels:
    """Hostile names reach neither the number of series nor the scrape."""

    @pytest.mark.fault("F10")
    def test_file_names_never_become_labels(self, snapshot, view, hostile_names):
        """The series are the same whether files fail or not, whatever they are called."""
        quiet, loud = Metrics(), Metrics()
        names = (*hostile_names, "canary-file-name")
        quiet.publish(snapshot(view(failing_by_reason={"refused": 1}, skipped_by_reason={"hard-link": 1})))

        loud.publish(
            snapshot(
                view(
                    in_flight=tuple(map(MovingFile, names)),
                    failing=tuple(FailingFile(name, "refused", name, 1, 1, 1) for name in names),
                    skipped=tuple(SkippedFile(name, "hard-link") for name in names),
                    failing_by_reason={"refused": len(names)},
                    skipped_by_reason={"hard-link": len(names)},
                )
            )
        )

        assert set(samples(loud)) == set(samples(quiet))
        assert b"canary-file-name" not in loud.render()

    @pytest.mark.parametrize(
        ("reason", "label"),
        [("access-denied", "access-denied"), ("Cannot read a/b.txt", "other"), ("", "other"), ("x" * 33, "other")],
    )
    @pytest.mark.fault("F10")
    def test_reason_that_is_no_word_becomes_other(self, reason, label):
        """A message in the place of a word cannot make a series of its own."""
        assert word(reason) == label

    def test_strange_reasons_are_added_up(self, snapshot, view):
        """Nothing is lost when two of them fall together."""
        metrics = Metrics()
        metrics.publish(snapshot(view(failing_by_reason={"No such a": 1, "No such b": 2})))

        labels = dict(zip(WHO, who(view()), strict=True))
        assert value(metrics, "replicator_failing_files", **labels, reason="other") == 3

    @pytest.mark.fault("F10")
    def test_hostile_target_names_do_not_break_the_scrape(self, snapshot, view, hostile_names):
        """A prefix that is not UTF-8 is exposed escaped, and the rest with it."""
        metrics = Metrics()
        metrics.publish(snapshot(*(view(name) for name in hostile_names)))

        targets = {dict(rest).get("target") for name, *rest in samples(metrics) if name == "replicator_pending_files"}
        assert len(targets) == len(hostile_names)

    def test_targets_and_views_have_the_same_labels(self, view):
        """Counters moved by the workers and gauges from the status meet in one target."""
        storage = Storage("https://s3.example", "bucket", "", access_key_id=None, secret_access_key=None)  # type: ignore[arg-type]
        target = Target("os-stats", Direction.EGRESS, "/export", "stats", Prefix("stats/"), storage)

        assert who(target) == who(view())
