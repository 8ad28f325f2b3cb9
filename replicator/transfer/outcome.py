"""What became of one job, and the means that every job shares."""

import enum
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from replicator.checksum import written
from replicator.errors import JournalError, Refused, Stopping, TransferError, Unavailable
from replicator.model import Row
from replicator.observe import logs
from replicator.stores.files.export import OpenFile
from replicator.stores.lane import Lane
from replicator.transfer.job import Job
from replicator.transfer.limits import ByteBudget, Room
from replicator.transfer.pace import Bandwidth, DataBudget
from replicator.transfer.throughput import Throughput

log = logs.get("transfer")

_T = TypeVar("_T")

_ASSUMED_RATE_BYTES_S = 32 * 2**20
"""Of a link of which nothing is known yet: a large upload finds out with its first parts."""

_GRACE_S = 60
"""What a body may take besides its bytes' share at the minimum rate: handshakes, queues, slow stores."""


class Done(enum.StrEnum):
    """How a job ended well. The values are the metric's outcome words; NOTHING is not counted."""

    NOTHING = "nothing"
    COPIED = "copied"
    ADOPTED = "adopted"
    FORGOTTEN = "forgotten"
    FREED = "freed"
    """The local file was removed: the store holds it, and the target asks for it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job's end. `was_asked` tells whether the endpoint answered a request for it."""

    done: Done
    moved_bytes: int = 0
    was_asked: bool = True
    asked_s: float = 0.0
    """Seconds that the endpoint took for the body, where there was one."""
    conflict_copy: str = ""
    """relpath of the copy that keeps a local edit, '' when there was none."""
    key: str = ""
    row: Row | None = None
    """To be recorded before the job has ended; None when nothing is, or when it is recorded already."""
    is_freed: bool = False
    """Whether the local file was removed after its upload."""


@dataclass(frozen=True, slots=True)
class Means:
    """Settings and shared limits that a job obeys. Sizes in bytes, times in seconds."""

    part_size_bytes: int
    min_rate_bytes_s: int
    quiet_s: float
    open_file_ceiling_s: float
    resume_after_s: float
    budget: ByteBudget
    room: Room
    bandwidth: Bandwidth
    data: DataBudget
    throughput: Throughput = field(default_factory=Throughput)
    """Told of bytes as they arrive."""
    stopping: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held for short work at the files of a run. The interpreter runs one thread at a time anyway; whoever waits here
    does not fight for it at each system call of the others, which costs more than the work. Nothing is waited for
    inside."""

    def let_pass(self, *, up: int = 0, down: int = 0) -> None:
        """Wait until the link may take so many bytes of a body, and count them.

        Raises BudgetSpent when the data budget is used up, Stopping when the process is about to end.
        """
        if self.stopping.is_set():
            raise Stopping("replicator stops; what is left is moved after the next start")
        self.data.check()
        if up:
            self.bandwidth.take("up", up)
        if down:
            self.bandwidth.take("down", down)
        self.data.spend(sent=up, received=down)

    def in_time(self, blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
        """`blocks` of a body of `size` bytes. Raises Unavailable once they come slower than the minimum rate."""
        began_s = time.monotonic()
        bound_s = _GRACE_S + size / self.min_rate_bytes_s if self.min_rate_bytes_s else float("inf")
        for block in blocks:
            if time.monotonic() - began_s > bound_s:
                raise Unavailable(f"the body came slower than {self.min_rate_bytes_s} bytes/s; it is tried again")
            yield block

    def is_long(self, size: int) -> bool:
        """Whether an upload of `size` bytes will last so long that it must be able to go on after a restart."""
        return size > self.resume_after_s * (self.bandwidth.measured_bytes_s("up") or _ASSUMED_RATE_BYTES_S)


Ending = Outcome | TransferError
"""How an attempt at a job ended."""


def attempt(job: Job, work: Callable[[], _T]) -> _T | TransferError:
    """What `work` returns, or why it failed: whatever happens to one path, the others go on.

    Raises JournalError only.
    """
    try:
        return work()
    except TransferError as error:
        return error
    except JournalError:
        raise
    except Exception as error:  # noqa: BLE001 - one path's surprise must not stop the others
        log.error("job failed unexpectedly", target=job.lane.target.id, relpath=job.relpath, error=error)
        return Refused(logs.masked(f"unexpected {type(error).__name__}: {error}"))


@dataclass(frozen=True, slots=True)
class Parcel:
    """An open file on its way to its key."""

    lane: Lane
    file: OpenFile
    key: str
    means: Means
    moved: Callable[[int], None]
    """Told how many bytes of the body have gone, as they go."""

    @property
    def size(self) -> int:
        return self.file.fingerprint.size

    def row(self, etag: str, expected: str, *, part_size: int) -> Row:
        """The row of the file as it was sent, for which the store answered `etag`.

        It is verified when that is the ETag of these bytes, or when the store is known to refuse bytes that do not fit
        the checksum they carry.
        """
        is_verified = etag == expected or self.lane.objects.is_checking_uploads(self.key)
        checksum = written(expected, part_size_bytes=part_size)
        return Row(self.file.relpath, self.file.fingerprint, etag, checksum, is_verified)
