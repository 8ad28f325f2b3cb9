"""What a source of events is, what it tells, and how it is with it.

A source decides nothing, and what it tells is never the truth: it may be lost, doubled or stale.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True)
class Health:
    """Whether events are being delivered."""

    source: str
    is_armed: bool = False
    is_proven: bool = False
    """Whether the canary's last event came back; False too where there can be no canary."""
    restarts: int = 0
    watches: int = 0
    """Directories under watch."""
    needed: int = 0
    """Directories that there are to watch, as far as is known."""
    overflows: int = 0
    """How often the kernel threw events away because nobody took them in time."""
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong now, a sentence without a full stop each, by the guard that noticed."""

    @property
    def degraded(self) -> str:
        """'' while every change is told, else what is wrong; the sweep finds changes either way."""
        return "; ".join(self.faults.values())

    def note(self, guard: str, fault: str) -> None:
        """Say what a guard noticed; '' that it has nothing to say any more."""
        if fault:
            self.faults[guard] = fault
        else:
            self.faults.pop(guard, None)


class Listener(Protocol):
    """To whom a source tells. Called on the event loop."""

    def armed(self, *, can_hear: bool) -> None:
        """Every change from now on is told; `can_hear`: so is the canary's."""
        ...

    def changed(self, relpaths: Iterable[str]) -> None:
        """Something may have happened to these files."""
        ...

    def lost(self) -> None:
        """Something may have happened anywhere."""
        ...

    def overflowed(self) -> None:
        """The kernel threw events away; `lost` follows once the watches are complete again."""
        ...

    def heard(self) -> None:
        """The canary's event came back."""
        ...


class Source(Protocol):
    """One way to learn of changes beneath a directory. A source object is run once."""

    async def run(self, listener: Listener) -> None:
        """Tell until cancelled. Returns when the directory is not there any more; raises when it can tell no longer."""
        ...

    def promote(self, relpaths: Collection[str]) -> None:
        """Something happened in these directories that the source did not tell."""
        ...

    def recheck(self, directories: int) -> None:
        """A sweep met this many directories: see to it that each that can be is under watch."""
        ...
