"""What Prometheus is told of the operator, in a registry of its own: it moves no file, so it has none of those series.

Labels come from closed sets; never a device's name. Names and units: Prometheus' naming practice.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

OUTCOMES = ("done", "conflict", "refused", "unreachable", "failed")
"""How a look at a device ended: done, or why it comes again."""

_BUCKETS_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class OperatorMetrics:
    """The series, each with its meaning as its help."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library forgot the annotation
        self._registry = registry = CollectorRegistry()
        self.looks = Counter(
            "replicator_operator_looks_total", "Looks at a device, by how they ended.", ["outcome"], registry=registry
        )
        self.look_seconds = Histogram(
            "replicator_operator_look_seconds",
            "Time of one look and of what it led to.",
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self.actions = Counter(
            "replicator_operator_actions_total", "Finalizers and claims written.", ["action"], registry=registry
        )
        self.devices = Gauge("replicator_operator_devices", "Devices that are known.", registry=registry)
        self.waiting = Gauge(
            "replicator_operator_waiting_devices", "Devices that wait for a look, now or later.", registry=registry
        )
        self.without_bucket = Gauge(
            "replicator_operator_devices_without_bucket",
            "Devices that stay and have no bucket, by the reason of their condition StorageReady.",
            ["reason"],
            registry=registry,
        )
        self.leaving = Gauge(
            "replicator_operator_leaving_devices",
            "Devices that leave: draining until all is sent, or going with a claim that is being deleted.",
            ["step"],
            registry=registry,
        )
        self.overdue_drains = Counter(
            "replicator_operator_overdue_drains_total",
            "Claims deleted because a device's time was over: nobody told that all was sent.",
            registry=registry,
        )
        self.leader = Gauge("replicator_operator_leader", "Whether this replica is the active one.", registry=registry)
        for outcome in OUTCOMES:  # `increase()` does not see a series that begins at 1
            self.looks.labels(outcome)

    def render(self) -> bytes:
        """The exposition in Prometheus' text format, to be sent as `content_type`."""
        return generate_latest(self._registry)
