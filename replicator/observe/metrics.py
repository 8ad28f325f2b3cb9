"""Every metric of a replicator, declared once in `TABLE`; `Metrics` holds them in a registry of its own.

Counters and histograms are moved by the rooms that do the work, gauges are set from a status `Snapshot` when
somebody asks. Labels come from closed sets and from the configuration: never a file name, a key or a message, so
the number of series is bounded by the number of targets. Names and units: Prometheus' naming practice.
"""

import builtins
import enum
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from replicator.observe import words
from replicator.observe.status import LinkView, Snapshot, State, TargetView


class Kind(enum.StrEnum):
    """The type of a metric, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table. `name` is the exposed one: unit in the name, `_total` for counters."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


WHO = ("workload", "direction", "target")
OUTCOMES = ("copied", "adopted", "forgotten", "freed", "conflict", "failed")
NOTICES = ("hinted", "ignored", "flooded", "refused")
STAGES = ("detect", "queue", "transfer", "total")
BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""1 ms (an event on an idle system) to 10 min (a large file on a slow link); 15 s is the sweep's promise."""

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
TABLE: Mapping[str, Metric] = {
    "files": Metric(
        "replicator_files_total", _C, (*WHO, "outcome"), "Files settled, by what was done; failed counts attempts."
    ),
    "bytes": Metric("replicator_bytes_total", _C, WHO, "Bytes of content moved."),
    "latency": Metric(
        "replicator_latency_seconds", _H, ("direction", "stage"), "From a change to its confirmed replica, by stage."
    ),
    "retries": Metric(
        "replicator_retries_total", _C, (*WHO, "reason"), "Attempts put off to a later time, by the error's word."
    ),
    "s3_requests": Metric(
        "replicator_s3_requests_total", _C, ("operation", "code"), "S3 requests answered or cut, by status code."
    ),
    "s3_request_seconds": Metric(
        "replicator_s3_request_seconds", _H, ("operation",), "Time of one S3 request, its body included."
    ),
    "sweeps": Metric("replicator_sweeps_total", _C, WHO, "Complete comparisons of a target."),
    "sweep_seconds": Metric("replicator_sweep_seconds", _H, ("direction",), "Time of one comparison."),
    "sweep_interval": Metric("replicator_sweep_interval_seconds", _G, WHO, "Time between sweeps in force."),
    "sweep_found": Metric(
        "replicator_sweep_found_total", _C, WHO, "Changes that a sweep found and no event had announced."
    ),
    "notifications": Metric(
        "replicator_notifications_total", _C, ("outcome",), "Changes that notifications told; refused counts requests."
    ),
    "heartbeats": Metric(
        "replicator_heartbeats_total", _C, ("outcome",), "Reports to the control plane, by how it went."
    ),
    "watcher_restarts": Metric(
        "replicator_watcher_restarts_total", _C, (*WHO, "cause"), "Watchers that had to be set up anew."
    ),
    "pending_files": Metric("replicator_pending_files", _G, WHO, "Files known to differ from their replica."),
    "pending_bytes": Metric("replicator_pending_bytes", _G, WHO, "Bytes of the pending files."),
    "oldest_pending_seconds": Metric(
        "replicator_oldest_pending_seconds", _G, WHO, "Age of the oldest pending change; 0 when nothing is pending."
    ),
    "last_success_timestamp_seconds": Metric(
        "replicator_last_success_timestamp_seconds", _G, WHO, "When a file was last moved or confirmed; none before."
    ),
    "generation_timestamp_seconds": Metric(
        "replicator_generation_timestamp_seconds", _G, WHO, "When the ingress generation in force was published."
    ),
    "failing_files": Metric("replicator_failing_files", _G, (*WHO, "reason"), "Files whose last attempt failed."),
    "skipped_files": Metric("replicator_skipped_files", _G, (*WHO, "reason"), "Files that a rule leaves out."),
    "blocked_bytes": Metric("replicator_blocked_bytes", _G, WHO, "Pending bytes that do not fit on the device."),
    "target_state": Metric(
        "replicator_target_state", _G, (*WHO, "state"), "1 for the state in force, 0 for the others."
    ),
    "target_blocked": Metric(
        "replicator_target_blocked", _G, (*WHO, "cause"), "1 while nothing of the target moves, by what is in its way."
    ),
    "journal_rows": Metric("replicator_journal_rows", _G, WHO, "Files that both sides are known to hold."),
    "journal_bytes": Metric("replicator_journal_bytes", _G, WHO, "Bytes of those files."),
    "late_writes": Metric(
        "replicator_late_writes", _G, WHO, "Paths whose objects are looked at again, for a request may come in late."
    ),
    "watcher_watches": Metric("replicator_watcher_watches", _G, WHO, "Directories under watch."),
    "watcher_needed": Metric("replicator_watcher_needed", _G, WHO, "Directories that there are to watch."),
    "watcher_overflows": Metric(
        "replicator_watcher_overflows_total", _C, WHO, "Times the kernel threw events away; all was looked at then."
    ),
    "watcher_degraded": Metric(
        "replicator_watcher_degraded", _G, WHO, "1 while events are incomplete and the sweep alone finds changes."
    ),
    "free_bytes": Metric(
        "replicator_free_bytes", _G, ("workload",), "Free space of the file system that holds the export."
    ),
    "free_space_floor_bytes": Metric(
        "replicator_free_space_floor_bytes", _G, (), "Free space that ingress leaves on the device."
    ),
    "transfers_in_flight": Metric("replicator_transfers_in_flight", _G, (), "Files being moved now."),
    "transfers_limit": Metric("replicator_transfers_limit", _G, (), "Files that may be moved at a time now."),
    "bandwidth_limit": Metric(
        "replicator_bandwidth_limit_bytes_per_second", _G, ("way",), "Cap in force, up or down; none while unlimited."
    ),
    "bandwidth_achieved": Metric(
        "replicator_bandwidth_achieved_bytes_per_second", _G, ("way",), "What one transfer achieves lately."
    ),
    "data_budget_bytes": Metric(
        "replicator_data_budget_bytes", _G, (), "Bytes that may move in the budget's period; 0 is unlimited."
    ),
    "data_budget_used_bytes": Metric("replicator_data_budget_used_bytes", _G, (), "Bytes of it that have moved."),
    "watch_limit": Metric("replicator_watch_limit", _G, (), "Watches that the kernel allows; NaN when not known."),
    "queue_jobs": Metric("replicator_queue_jobs", _G, (), "Jobs in the queue, of all targets."),
    "config_valid": Metric(
        "replicator_config_valid", _G, (), "0 while the newest configuration is refused and an older one is in force."
    ),
    "config_generation": Metric("replicator_config_generation", _G, (), "Number of the configuration in force."),
    "config_applied_timestamp_seconds": Metric(
        "replicator_config_applied_timestamp_seconds", _G, (), "When it came into force; NaN before the first."
    ),
    "ready": Metric("replicator_ready", _G, (), "1 when every target is compared and fresh, as /readyz says."),
    "ready_max_age_seconds": Metric(
        "replicator_ready_max_age_seconds", _G, (), "Bound of the age of pending changes and of the last sweep."
    ),
    "start_timestamp_seconds": Metric("replicator_start_timestamp_seconds", _G, (), "When the process started."),
    "draining": Metric("replicator_draining", _G, (), "1 after a signal to stop."),
    "build_info": Metric("replicator_build_info", _G, ("version", "python"), "Always 1."),
}
"""By attribute of `Metrics`."""

_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}")


class Labelled(Protocol):
    """What has the labels of `WHO`: a `model.Target` as well as a `TargetView`."""

    @property
    def id(self) -> str: ...
    @property
    def workload(self) -> str: ...
    @property
    def direction(self) -> str: ...


def who(target: Labelled) -> tuple[str, str, str]:
    """The values of the labels `WHO`, safe to encode: `metrics.bytes.labels(*who(target)).inc(n)`."""
    return words.escape(target.workload), str(target.direction), words.escape(target.id)


def word(value: str) -> str:
    """A label value from a closed set: anything that is not a plain word, such as a message, becomes `other`."""
    return value if _WORD.fullmatch(value) else "other"


class Exposition:
    """The metrics of one table, an attribute a row, in a registry of its own: nothing foreign is exposed with them."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, table: Mapping[str, Metric], *, buckets_s: Sequence[float] = BUCKETS_S) -> None:
        # The client library would add a `_created` series to each counter and histogram: twice the series for nothing.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library forgot the annotation
        self._registry = CollectorRegistry()
        for attribute, metric in table.items():
            setattr(self, attribute, self._declare(metric, buckets_s))

    def _declare(self, metric: Metric, buckets_s: Sequence[float]) -> Counter | Gauge | Histogram:
        if metric.kind is Kind.HISTOGRAM:
            return Histogram(metric.name, metric.help, metric.labels, registry=self._registry, buckets=buckets_s)
        plain = Counter if metric.kind is Kind.COUNTER else Gauge
        return plain(metric.name, metric.help, metric.labels, registry=self._registry)

    def render(self) -> builtins.bytes:
        """The exposition in Prometheus' text format, to be sent as `content_type`."""
        return generate_latest(self._registry)


class Metrics(Exposition):
    """One attribute a row of `TABLE`. Every method runs on the event loop, so a scrape never sees half a snapshot."""

    files: Counter
    bytes: Counter
    latency: Histogram
    retries: Counter
    s3_requests: Counter
    s3_request_seconds: Histogram
    sweeps: Counter
    sweep_seconds: Histogram
    sweep_interval: Gauge
    sweep_found: Counter
    notifications: Counter
    heartbeats: Counter
    watcher_restarts: Counter
    pending_files: Gauge
    pending_bytes: Gauge
    oldest_pending_seconds: Gauge
    last_success_timestamp_seconds: Gauge
    generation_timestamp_seconds: Gauge
    failing_files: Gauge
    skipped_files: Gauge
    blocked_bytes: Gauge
    target_state: Gauge
    target_blocked: Gauge
    journal_rows: Gauge
    journal_bytes: Gauge
    late_writes: Gauge
    watcher_watches: Gauge
    watcher_needed: Gauge
    watcher_overflows: Counter
    watcher_degraded: Gauge
    free_bytes: Gauge
    free_space_floor_bytes: Gauge
    transfers_in_flight: Gauge
    transfers_limit: Gauge
    bandwidth_limit: Gauge
    bandwidth_achieved: Gauge
    data_budget_bytes: Gauge
    data_budget_used_bytes: Gauge
    watch_limit: Gauge
    queue_jobs: Gauge
    config_valid: Gauge
    config_generation: Gauge
    config_applied_timestamp_seconds: Gauge
    ready: Gauge
    ready_max_age_seconds: Gauge
    start_timestamp_seconds: Gauge
    draining: Gauge
    build_info: Gauge

    def __init__(self) -> None:
        super().__init__(TABLE)
        self._request_series: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        for outcome in NOTICES:  # `increase()` does not see a series that begins at 1
            self.notifications.labels(outcome)

    def publish(self, snapshot: Snapshot) -> None:
        """Set every gauge. Series of targets that are not in the snapshot disappear."""
        for attribute, metric in TABLE.items():
            if metric.kind is Kind.GAUGE and metric.labels:
                getattr(self, attribute).clear()
        self.build_info.labels(snapshot.version, platform.python_version()).set(1)
        self.transfers_in_flight.set(snapshot.transfers_in_flight)
        self.transfers_limit.set(snapshot.transfers_limit)
        self.watch_limit.set(math.nan if snapshot.watch_limit is None else snapshot.watch_limit)
        self.queue_jobs.set(snapshot.queue_jobs)
        self._publish_link(snapshot.link)
        self.config_valid.set(snapshot.config.valid)
        self.config_generation.set(snapshot.config.generation)
        self.config_applied_timestamp_seconds.set(snapshot.config.applied_ts or math.nan)
        self.ready.set(snapshot.is_ready)
        self.ready_max_age_seconds.set(snapshot.max_age_s)
        self.start_timestamp_seconds.set(snapshot.started_ts)
        self.free_space_floor_bytes.set(snapshot.free_space_floor_bytes)
        self.draining.set(snapshot.is_draining)
        for view in snapshot.targets:
            self._publish_target(view)
            self._begin_counters(view)

    def _publish_link(self, link: LinkView) -> None:
        self.data_budget_bytes.set(link.budget_bytes)
        self.data_budget_used_bytes.set(link.budget_used_bytes)
        ways = {"up": (link.up_limit, link.up_achieved), "down": (link.down_limit, link.down_achieved)}
        for way, (limit, achieved) in ways.items():
            if limit is not None:
                self.bandwidth_limit.labels(way).set(limit)
            if achieved is not None:
                self.bandwidth_achieved.labels(way).set(achieved)

    def _publish_target(self, view: TargetView) -> None:
        labels = who(view)
        for name in ("pending_files", "pending_bytes", "blocked_bytes", "journal_rows", "journal_bytes", "late_writes"):
            getattr(self, name).labels(*labels).set(getattr(view, name))
        self.oldest_pending_seconds.labels(*labels).set(view.oldest_pending_s)
        self.sweep_interval.labels(*labels).set(view.sweep_interval_s)
        for state in State:
            self.target_state.labels(*labels, state.value).set(view.state is state)
        if view.state is State.BLOCKED:
            self.target_blocked.labels(*labels, word(view.cause)).set(1)
        # Two strange words may share `other`, hence inc; all were cleared before.
        for reason, number in view.failing_by_reason.items():
            self.failing_files.labels(*labels, word(reason)).inc(number)
        for reason, number in view.skipped_by_reason.items():
            self.skipped_files.labels(*labels, word(reason)).inc(number)
        if view.last_success_ts is not None:
            self.last_success_timestamp_seconds.labels(*labels).set(view.last_success_ts)
        if view.generation and view.generation.since_ts:
            self.generation_timestamp_seconds.labels(*labels).set(view.generation.since_ts)
        if view.watcher is not None:
            self.watcher_watches.labels(*labels).set(view.watcher.watches)
            self.watcher_needed.labels(*labels).set(view.watcher.needed)
            self.watcher_degraded.labels(*labels).set(bool(view.watcher.degraded))
        if view.free_bytes is not None:
            self.free_bytes.labels(labels[0]).set(view.free_bytes)

    def _begin_counters(self, view: TargetView) -> None:
        """Let a target's counters begin at 0: `increase()` does not see a series that begins at 1."""
        labels = who(view)
        for outcome in OUTCOMES:
            self.files.labels(*labels, outcome)
        for counter in (self.bytes, self.sweeps, self.sweep_found, self.watcher_overflows):
            counter.labels(*labels)

    def requested(self, operation: str, code: str, seconds: float) -> None:
        """Count one S3 request. Called for each, so the series are looked up once."""
        series = self._request_series.get((operation, code))
        if series is None:
            series = self.s3_requests.labels(operation, code), self.s3_request_seconds.labels(operation)
            self._request_series[operation, code] = series
        series[0].inc()
        series[1].observe(seconds)

    def put_off(self, target: Labelled, reason: str) -> None:
        """Count an attempt that is put off to a later time."""
        self.retries.labels(*who(target), reason).inc()

    def forget_target(self, target: Labelled) -> None:
        """Drop the series of a target that is gone for good."""
        for attribute, metric in TABLE.items():
            if metric.labels[: len(WHO)] == WHO:
                getattr(self, attribute).remove_by_labels(dict(zip(WHO, who(target), strict=True)))


class TargetSeries:
    """The series of one target that move with every file, looked up once."""

    def __init__(self, metrics: Metrics, target: Labelled) -> None:
        labels = who(target)
        self.files: Mapping[str, Counter] = {word: metrics.files.labels(*labels, word) for word in OUTCOMES}
        self.bytes: Counter = metrics.bytes.labels(*labels)
        self._latency = {stage: metrics.latency.labels(str(target.direction), stage) for stage in STAGES}

    def took(self, **stages: float) -> None:
        """Observe the seconds of each stage."""
        for stage, seconds in stages.items():
            self._latency[stage].observe(max(0.0, seconds))
