"""What is known of one device, and what is to be done for it: the values between reading, deciding and doing.

Frozen all, and made of what the API server said. Never: a decision (`desired`), a request (`driver`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from replicator.controlplane.operator.reading import Object


@dataclass(frozen=True, slots=True)
class Rules:
    """What this operator was told to do."""

    storage_class: str
    auto_create: bool = False
    """Every device that names no external storage gets a claim; else only one that asks with createOBC."""
    grace: timedelta = timedelta(minutes=15)
    """How long a device that leaves may take to send what is left."""


@dataclass(frozen=True, slots=True)
class World:
    """All there is to know about one device, as read a moment ago. `claims`, ConfigMaps and Secrets by name."""

    device: Object | None
    now: datetime
    device_set: Object | None = None
    """The EdgeDeviceSet that the device's label names; None also when it cannot be read."""
    claims: Mapping[str, Object] = field(default_factory=dict)
    config_maps: Mapping[str, Object] = field(default_factory=dict)
    secrets: Mapping[str, Object] = field(default_factory=dict, repr=False)
    route: Object | None = None
    authority: Object | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a device has its bucket: a closed-set word, and a sentence for people."""

    is_ready: bool
    reason: str
    message: str


DRAINING, GOING = "draining", "going"
"""Of a device that leaves: its claim waits until all is sent, or is on its way out."""

Judge = Callable[[World], Verdict]
"""Whether the storage that is configured can be used, by the rules of what is told to devices."""


@dataclass(frozen=True, slots=True)
class Notice:
    """An Event on the device, told once for each text."""

    reason: str
    message: str
    is_warning: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """Put our finalizer on the device."""


@dataclass(frozen=True, slots=True)
class Release:
    """Take our finalizer off the device, and nobody else's."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Apply this ObjectBucketClaim: a new one, or our ownership of one that has no owner."""

    wanted: Object


@dataclass(frozen=True, slots=True)
class Unclaim:
    """Delete the claim, if it still is the one that was looked at."""

    name: str
    uid: str
    is_overdue: bool = False
    """The device's time is over, and nobody has told that all is sent."""


Action = Hold | Release | Claim | Unclaim


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order: actions, then the status, then the notices. All of it may be done twice."""

    actions: tuple[Action, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict)
    """A merge patch of the device's status; empty when nothing changes."""
    notices: tuple[Notice, ...] = ()
    standing: str = ""
    """Why the device has no bucket, or how far it is with leaving (DRAINING, GOING); empty where nothing is amiss."""
    again_s: float | None = None
    """When to look again though nobody tells of a change; None is at the usual resync."""
