"""What a sweep is: the interface of `detect.egress_sweep` and `detect.ingress_sweep`, and the report of one sweep.

The safety net under every event. Finds and hints; decides nothing. Absence is hinted only when two sweeps in a row
saw it, and never when the directory itself is missing or suddenly empty.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from replicator.model import Hint

Found = Callable[[list[Hint]], Awaitable[None]]
"""Takes hints as they are found; it may wait, so that a first sweep of a million files fills no memory."""


@dataclass(slots=True)
class Report:
    """What one sweep saw. `blocked` is '' or why the target stands still, with `fix` as the safe next step."""

    busy_s: float = 0.0
    """Time in which the sweep worked; what it waited for others is not in it."""
    cpu_s: float = 0.0
    """CPU time of its thread meanwhile; told by egress sweeps."""
    files: int = 0
    directories: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    """relpath (or key) -> reason, of what cannot be replicated as it is."""
    blocked: str = ""
    fix: str = ""
    is_doubtful: bool = False
    """Objects were missing after a doubt: another listing has to agree before anything follows from it."""


class Sweep(Protocol):
    """The sweeps of one lane, with what is remembered between them."""

    async def run(self, found: Found) -> Report:
        """Look at everything once. Raises TransferError when the bucket cannot be listed."""
        ...

    def doubt(self) -> None:
        """What the bucket held may be gone or another: let the next run list it."""
        ...
