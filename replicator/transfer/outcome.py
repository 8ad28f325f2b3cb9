"""What became of one job, and the means that every job shares."""

import enum
from dataclasses import dataclass

from replicator.transfer.limits import ByteBudget, Room

_GRACE_S = 60
"""What a transfer may take besides its bytes' share at the minimum rate: handshakes, queues, slow stores."""


class Done(enum.StrEnum):
    """How a job ended well. The values are the metric's outcome words; NOTHING is not counted."""

    NOTHING = "nothing"
    COPIED = "copied"
    ADOPTED = "adopted"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job's end. `was_asked` tells whether the endpoint answered a request for it."""

    done: Done
    moved_bytes: int = 0
    was_asked: bool = True
    conflict_copy: str = ""
    """relpath of the copy that keeps a local edit, '' when there was none."""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Means:
    """Settings and shared limits that a job obeys. Sizes in bytes, times in seconds."""

    part_size_bytes: int
    min_rate_bytes_s: int
    quiet_s: float
    open_file_ceiling_s: float
    budget: ByteBudget
    room: Room

    def deadline_s(self, size: int) -> float | None:
        """The longest that a transfer of `size` bytes may take; None when no minimum rate is set."""
        return _GRACE_S + size / self.min_rate_bytes_s if self.min_rate_bytes_s else None
