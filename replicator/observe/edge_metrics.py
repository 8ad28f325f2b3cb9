"""What Prometheus is told of the Edge API server, declared once in `TABLE`, in a registry of its own.

Labels come from closed sets: never a device, a path, a message. Names and units: Prometheus' naming practice.
"""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge

from replicator.observe.metrics import Exposition, Kind, Metric

OUTCOMES = ("written", "same", "deferred", "refused", "failed")
"""What became of a heartbeat."""

_C, _G = Kind.COUNTER, Kind.GAUGE
TABLE: Mapping[str, Metric] = {
    "requests": Metric(
        "replicator_edge_requests_total", _C, ("route", "code"), "Requests of devices, by route and status code."
    ),
    "accepted": Metric("replicator_edge_connections_accepted_total", _C, (), "Connections that came in, before TLS."),
    "established": Metric(
        "replicator_edge_connections_established_total",
        _C,
        (),
        "Connections whose client proved who it is; what lacks to those accepted was refused or broke off.",
    ),
    "turned_away": Metric(
        "replicator_edge_connections_turned_away_total", _C, (), "Connections beyond the limit, closed at once."
    ),
    "connections": Metric("replicator_edge_connections", _G, (), "Connections that are open."),
    "renderings": Metric("replicator_edge_renderings_total", _C, (), "Messages rendered; once a change."),
    "heartbeats": Metric(
        "replicator_edge_heartbeats_total",
        _C,
        ("outcome",),
        "Heartbeats, by what became of them: written, or not and why.",
    ),
    "ready": Metric("replicator_edge_ready", _G, (), "Whether devices are answered from a complete picture."),
    "heard": Metric("replicator_edge_cluster_age_seconds", _G, (), "Since the API server was last heard of devices."),
}


class EdgeMetrics(Exposition):
    """One attribute a row of `TABLE`."""

    requests: Counter
    accepted: Counter
    established: Counter
    turned_away: Counter
    connections: Gauge
    renderings: Counter
    heartbeats: Counter
    ready: Gauge
    heard: Gauge

    def __init__(self) -> None:
        super().__init__(TABLE)
        for outcome in OUTCOMES:  # `increase()` does not see a series that begins at 1
            self.heartbeats.labels(outcome)
