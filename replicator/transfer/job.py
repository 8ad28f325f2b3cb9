"""A job: one path of one target that has to be looked at, and what is known of it so far."""

import time
from dataclasses import dataclass

from replicator.errors import RemoteChanged, SourceChanged, TransferError
from replicator.model import LocalFile, RemoteObject, Unseen
from replicator.stores.lane import Lane

_IN_MOTION_ATTEMPTS = 4
"""An object that is another one at so many looks in a row is not in motion: something on the way changes its ETag."""


@dataclass(slots=True, eq=False)
class Job:
    """One path of one target that has to be looked at. Times are of the monotonic clock."""

    lane: Lane
    relpath: str
    remote: RemoteObject | Unseen | None
    hinted_s: float
    changed_s: float
    """When the difference came to be, as far as known: the age that people see counts from here."""
    due_s: float = 0.0
    is_running: bool = False
    is_dirty: bool = False
    """Whether it was hinted while it ran."""
    is_announced: bool = False
    """Whether one of those hints was an event."""
    is_bulk: bool = False
    """Large enough to need a slot of the large ones; settled when the job is started."""
    attempts: int = 0
    error: TransferError | None = None
    size: int = 0
    """Bytes still to move, as far as known."""
    moved_bytes: int = 0
    """Bytes that the attempt under way has moved."""
    distrusted: str = ""
    """Checksum of a download that did not fit its ETag: the same bytes twice are what the store holds."""
    ticket: int = 0
    """Number of the job's entry in a heap; entries with another number are stale."""

    def observe(self, local: LocalFile | None) -> None:
        """Let the job be as large as the file, and as old as its change, which may be older than this process."""
        if local is not None:
            self.size = local.fingerprint.size
            age_s = time.time() - local.fingerprint.ctime_ns / 1e9
            self.changed_s = min(self.changed_s, time.monotonic() - max(0.0, age_s))

    def count_moved(self, size: int) -> None:
        """So many bytes more of the body have gone."""
        self.moved_bytes += size

    @property
    def is_failing(self) -> bool:
        """Whether an attempt failed for a reason other than the file or object being in motion."""
        if isinstance(self.error, RemoteChanged):
            return self.attempts >= _IN_MOTION_ATTEMPTS
        return self.error is not None and not isinstance(self.error, SourceChanged)
