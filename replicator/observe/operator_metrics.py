"""What Prometheus is told of the operator, declared once in `TABLE`: it moves no file, so it has none of those series.

Labels come from closed sets; never a device's name. Names and units: Prometheus' naming practice.
"""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

from replicator.observe.metrics import Exposition, Kind, Metric

OUTCOMES = ("done", "conflict", "refused", "unreachable", "failed")
"""How a look at a device ended: done, or why it comes again."""

_BUCKETS_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
TABLE: Mapping[str, Metric] = {
    "looks": Metric("replicator_operator_looks_total", _C, ("outcome",), "Looks at a device, by how they ended."),
    "look_seconds": Metric("replicator_operator_look_seconds", _H, (), "Time of one look and of what it led to."),
    "actions": Metric("replicator_operator_actions_total", _C, ("action",), "Finalizers and claims written."),
    "devices": Metric("replicator_operator_devices", _G, (), "Devices that are known."),
    "waiting": Metric("replicator_operator_waiting_devices", _G, (), "Devices that wait for a look, now or later."),
    "without_bucket": Metric(
        "replicator_operator_devices_without_bucket",
        _G,
        ("reason",),
        "Devices that stay and have no bucket, by the reason of their condition StorageReady.",
    ),
    "leaving": Metric(
        "replicator_operator_leaving_devices",
        _G,
        ("step",),
        "Devices that leave: draining until all is sent, or going with a claim that is being deleted.",
    ),
    "overdue_drains": Metric(
        "replicator_operator_overdue_drains_total",
        _C,
        (),
        "Claims deleted because a device's time was over: nobody told that all was sent.",
    ),
    "leader": Metric("replicator_operator_leader", _G, (), "Whether this replica is the active one."),
}
"""By attribute of `OperatorMetrics`."""


class OperatorMetrics(Exposition):
    """One attribute a row of `TABLE`."""

    looks: Counter
    look_seconds: Histogram
    actions: Counter
    devices: Gauge
    waiting: Gauge
    without_bucket: Gauge
    leaving: Gauge
    overdue_drains: Counter
    leader: Gauge

    def __init__(self) -> None:
        super().__init__(TABLE, buckets_s=_BUCKETS_S)
        for outcome in OUTCOMES:  # `increase()` does not see a series that begins at 1
            self.looks.labels(outcome)
