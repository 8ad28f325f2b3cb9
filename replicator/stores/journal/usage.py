"""The journal's account of bytes that went over the network, hour by hour.

Owns: the table `usage`. Never: budgets, or what they mean. Hours are whole hours since the epoch and come from the
caller, who has the clock.
"""

from replicator.stores.journal.tables import Tables

_KEPT_HOURS = 400 * 24
"""A year and a month, so that the same month of last year can still be told."""

_ADD = (
    "INSERT INTO usage (hour, sent_bytes, received_bytes) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
    "sent_bytes = sent_bytes + excluded.sent_bytes, received_bytes = received_bytes + excluded.received_bytes"
)
_DROP = "DELETE FROM usage WHERE hour < ?"
_SINCE = "SELECT coalesce(sum(sent_bytes), 0), coalesce(sum(received_bytes), 0) FROM usage WHERE hour >= ?"


class Usage(Tables):
    """Bytes sent and received, of all targets together."""

    def add_usage(self, hour: int, *, sent: int, received: int) -> None:
        """Add to what the hour has; hours that are 400 days older are dropped."""
        self._committer.commit((_ADD, (hour, sent, received)), (_DROP, (hour - _KEPT_HOURS,)))

    def usage_since(self, hour: int) -> tuple[int, int]:
        """(bytes sent, bytes received) in this hour and all that follow it."""
        sent, received = self._reader.all(_SINCE, (hour,))[0]
        return sent, received
