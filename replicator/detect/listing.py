"""What egress asks the bucket for: what it holds while no row says so, and what it has lost.

Rows say what was confirmed once. Where there are none, or where the bucket itself was gone, a listing stands in for
them. Never: a listing of an idle target; a conclusion from one listing alone that something is absent.
"""

from itertools import chain

from replicator.errors import TransferError
from replicator.model import UNSEEN, RemoteObject, Unseen
from replicator.observe import logs
from replicator.stores.lane import Lane

log = logs.get("patrol")


class Listing:
    """What the bucket holds of a target, by relpath. Listed when it is first asked for; blocks then."""

    def __init__(self, lane: Lane) -> None:
        self.error: TransferError | None = None
        """Why it is not known. It does not keep a walk from finding what waits."""
        self._lane = lane
        self._objects: dict[str, RemoteObject] | None = None

    @property
    def is_known(self) -> bool:
        return self._objects is not None

    def read(self) -> None:
        """Ask the store."""
        prefix = self._lane.target.prefix.text
        try:
            pages = list(self._lane.objects.list(prefix))
        except TransferError as error:
            self.error = error
        else:
            self._objects = {item.key.removeprefix(prefix): item for item in chain.from_iterable(pages)}

    def of(self, relpath: str) -> RemoteObject | Unseen | None:
        """The object, None where there is none, UNSEEN where that is not known."""
        if not self.is_known and not self.error:
            self.read()
        return UNSEEN if self._objects is None else self._objects.get(relpath)


class Losses:
    """Objects that went with their bucket: what two listings miss that the journal calls confirmed."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._missing: frozenset[str] | None = None
        """By the first of the two; None before it."""

    def look(self, listing: Listing) -> bool:
        """Take in a listing that is known; whether another one is needed. After the last, lost rows are forgotten."""
        lane = self._lane
        missing = frozenset(relpath for relpath, _ in lane.etags() if listing.of(relpath) is None)
        before, self._missing = self._missing, missing
        if before is None and missing:
            return True
        self._missing, lost = None, sorted(missing & (before or frozenset()))
        if lost:
            log.warning("objects are gone with their bucket, sent again", target=lane.target.id, files=len(lost))
            lane.journal.forget_all(lane.number, lost)
        return False
