"""Which of a target's due jobs goes first: its rank, lowest first. Pure."""

from typing import Protocol

from replicator.model import Target
from replicator.reconcile.filters import first_match


class Ranked(Protocol):
    """What a rank is made of. `transfer.queue.Job` is one."""

    relpath: str
    changed_s: float
    size: int


def rank_of(target: Target, job: Ranked) -> tuple[float, ...]:
    """The job's place among those of its target. `changed_s` grows with time, so the oldest change is the lowest."""
    options = target.options
    match options.order:
        case "newest":
            return (-job.changed_s,)
        case "smallest":
            return (job.size, job.changed_s)
        case "pattern":
            return (first_match(job.relpath, options.order_patterns), job.changed_s)
        case _:
            return (job.changed_s,)
