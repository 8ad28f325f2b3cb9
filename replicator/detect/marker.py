"""The marker of an ingress target: one object that tells whether the bucket has to be listed.

Its writers renew it after everything else. While it is the version that the last listing saw, nothing else is asked
for; a full listing now and then is the audit of their word. Never: decisions about any file. Memory only: a restart
lists. One HEAD a poll, which costs what a conditional GET would, and also tells an object that was written again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from replicator.errors import TransferError
from replicator.model import RemoteObject
from replicator.reconcile.keys import key_of
from replicator.stores.lane import Lane


@dataclass(frozen=True, slots=True)
class Sight:
    """What a poll sees before it lists. Another directory under the name is another sight: it may be empty."""

    marker: RemoteObject
    directory: tuple[int, int] | None


class Marker:
    """The marker of one lane, and the sight that the last complete listing began with."""

    def __init__(self, lane: Lane, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lane = lane
        self._clock = clock
        self._known: Sight | None = None
        self._audit_due_s = 0.0
        self._is_doubted = False

    def look(self) -> Sight | None:
        """Ask for the marker; None where there is none, or it cannot be read: it must never stand in the way."""
        lane = self._lane
        if not lane.target.options.ingress_marker:
            return None
        try:
            marker = lane.objects.head(key_of(lane.target.prefix, lane.target.options.ingress_marker))
        except TransferError:
            return None
        return Sight(marker, lane.export.identity())

    def is_known(self, sight: Sight | None) -> bool:
        """Whether a listing can be spared."""
        return sight is not None and sight == self._known and self._clock() < self._audit_due_s

    def begin(self) -> None:
        """A listing begins; until it is complete nothing is known."""
        self._known, self._is_doubted = None, False

    def complete(self, sight: Sight | None) -> None:
        """The listing that `sight` preceded is complete, and every hint of it is handed over."""
        if not self._is_doubted:
            self._known = sight
            self._audit_due_s = self._clock() + self._lane.target.options.ingress_audit_s

    def doubt(self) -> None:
        """Let the next poll list, whatever the marker says; also when a listing is under way, which may be past it."""
        self._known, self._is_doubted = None, True
