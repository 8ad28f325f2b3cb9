"""What events tell: which devices have to be looked at, and what of them and of workloads is kept.

An event is a hint. A device's counts only where something changed that matters to its storage, so that the heartbeats
of a fleet cost a comparison each. Never: what is true (`look`), what is to be done (`desired`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from replicator.cluster.kinds import CLAIM, EDGE_DEVICE, EDGE_WORKLOAD, Key, Kind, Object
from replicator.controlplane.operator.desired import drained_at, is_held, set_of
from replicator.controlplane.operator.fleet import Fleet
from replicator.controlplane.operator.line import Line
from replicator.controlplane.operator.reading import at, is_leaving, mapping, name_of, text, uid_of


@dataclass(frozen=True, slots=True)
class _Essence:
    """What of a device matters to its storage: while it is the same, a heartbeat costs nothing."""

    uid: str
    generation: Any
    labels: tuple[tuple[str, Any], ...]
    told: str
    is_held: bool
    leaves: str
    drained: datetime | None

    @classmethod
    def of(cls, device: Object) -> "_Essence":
        return cls(
            uid=uid_of(device),
            generation=at(device, "metadata", "generation"),
            labels=tuple(sorted((key, str(value)) for key, value in mapping(device, "metadata", "labels").items())),
            told=text(device, "status", "dataObc"),
            is_held=is_held(device),
            leaves=text(device, "metadata", "deletionTimestamp"),
            drained=drained_at(device) if is_leaving(device) else None,
        )


class Hearing:
    """Puts devices into the `line`, and keeps the `fleet` current."""

    def __init__(self, line: Line, fleet: Fleet) -> None:
        self._line = line
        self._fleet = fleet
        self._devices: dict[Key, _Essence] = {}
        self._members: dict[Key, str] = {}
        """Devices, and the set whose member each is."""

    def __contains__(self, key: Key) -> bool:
        return key in self._devices

    def __len__(self) -> int:
        return len(self._devices)

    @property
    def devices(self) -> tuple[Key, ...]:
        """All that are known."""
        return tuple(self._devices)

    def hear(self, kind: Kind, found: Object, is_gone: bool) -> None:  # noqa: FBT001 -- an event's own words
        """Take an event: note what it says, and put the devices into the line that it may concern."""
        key = text(found, "metadata", "namespace"), name_of(found)
        if kind == EDGE_DEVICE:
            self._hear_device(key, None if is_gone else found)
        elif kind == EDGE_WORKLOAD:
            self._fleet.see_workload(key, None if is_gone else found)
        elif kind == CLAIM:
            if key in self:
                self._line.put(key)
        else:
            for device in [one for one, member_of in self._members.items() if (one[0], member_of) == key]:
                self._line.put(device)

    def forget(self, key: Key) -> None:
        """The device is gone, though no event may have said so."""
        self._devices.pop(key, None)
        self._members.pop(key, None)
        self._fleet.see_device(key, None)

    def _hear_device(self, key: Key, device: Object | None) -> None:
        if device is None:
            self.forget(key)
            return
        self._fleet.see_device(key, device)
        essence = _Essence.of(device)
        if self._devices.get(key) != essence:
            self._devices[key] = essence
            self._members.pop(key, None)
            if member_of := set_of(device):
                self._members[key] = member_of
            self._line.put(key)
