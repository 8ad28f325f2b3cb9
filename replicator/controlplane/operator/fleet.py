"""Where each workload stands on all its devices, from what the devices tell: kept small, told seldom. Pure.

Knows of a device its labels and what it last told, of a workload its selection and what its status says. Which
devices run a workload is computed from the selection; bookkeeping labels are not believed. What a device tells counts
for each of its workloads, for it tells its state and its pending bytes as one. Never: a request.
Source: Flotta's selection of devices; Kubernetes' conditions: lastTransitionTime moves only with the status.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from replicator.cluster.kinds import Key
from replicator.config.manifests import EdgeWorkload
from replicator.controlplane.operator.reading import Object, mapping, mappings, moment, name_of, number, stamp, text
from replicator.errors import ConfigError

STATES = ("Synced", "Lagging", "Blocked")
_BOOKKEEPING = "workload/"
_NAMED = 3
"""Devices that a condition names."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one device last told."""

    labels: Mapping[str, str]
    state: str
    """One of STATES, or '' before its first report."""
    pending_bytes: int
    uploads: Mapping[str, str]
    """When a file of a workload was last confirmed, by the workload's name."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A workload's devices, taken together."""

    devices: int
    by_state: tuple[int, ...]
    """How many of them in each of STATES; the others have told nothing."""
    blocked: tuple[str, ...]
    """The first of those that are."""
    pending_bytes: int
    last_upload: str


class Fleet:
    """The devices and workloads that were seen, and what was told of each workload."""

    def __init__(self) -> None:
        self._devices: dict[str, dict[str, Told]] = {}
        """By namespace and name."""
        self._workloads: dict[Key, tuple[EdgeWorkload | None, Object]] = {}
        self._told: dict[Key, Sum] = {}

    def see_device(self, key: Key, device: Object | None) -> None:
        """A device as it is now; None is gone."""
        namespace, name = key
        if device is None:
            self._devices.get(namespace, {}).pop(name, None)
        else:
            self._devices.setdefault(namespace, {})[name] = _told_by(device)

    def see_workload(self, key: Key, workload: Object | None) -> None:
        """A workload as it is now; None is gone."""
        if workload is None:
            self._workloads.pop(key, None)
            self._told.pop(key, None)
        else:
            metadata = {word: text(workload, "metadata", word) for word in ("name", "namespace", "resourceVersion")}
            kept = {"metadata": metadata, "status": mapping(workload, "status")}
            self._workloads[key] = _parsed(workload), kept

    def changes(self, now: datetime) -> Iterator[tuple[Key, Sum, dict[str, Any]]]:
        """Each workload whose sum is another than was told, with the merge patch that tells it; see `was_told`."""
        for key, (workload, kept) in self._workloads.items():
            if workload is None:
                continue
            found = self._sum(key, workload)
            if found != self._told.get(key):
                status = _status(found, mapping(kept, "status"), now)
                if not status:
                    self._told[key] = found
                    continue
                version = text(kept, "metadata", "resourceVersion")
                yield key, found, {"metadata": {"resourceVersion": version}, "status": status}

    def was_told(self, key: Key, found: Sum) -> None:
        """The API server took the patch."""
        if key in self._workloads:
            self._told[key] = found

    def _sum(self, key: Key, workload: EdgeWorkload) -> Sum:
        namespace, name = key
        fitting = [
            (called, told)
            for called, told in self._devices.get(namespace, {}).items()
            if _selects(workload, called, told.labels)
        ]
        blocked = sorted(called for called, told in fitting if told.state == "Blocked")
        return Sum(
            devices=len(fitting),
            by_state=tuple(sum(told.state == state for _, told in fitting) for state in STATES),
            blocked=tuple(blocked[:_NAMED]),
            pending_bytes=sum(told.pending_bytes for _, told in fitting),
            last_upload=max((told.uploads.get(name, "") for _, told in fitting), default=""),
        )


def _selects(workload: EdgeWorkload, device: str, labels: Mapping[str, str]) -> bool:
    if workload.spec.device:
        return workload.spec.device == device
    selector = workload.spec.device_selector
    return selector is not None and selector.is_met_by(labels)


def _parsed(workload: Object) -> EdgeWorkload | None:
    """None for one that cannot be read: it is told where it is refused, not here."""
    try:
        return EdgeWorkload.of(workload, where=f"EdgeWorkload {name_of(workload)}", fix="")
    except ConfigError:
        return None


def _told_by(device: Object) -> Told:
    state = next(
        (
            text(one, "type")
            for one in mappings(device, "status", "conditions")
            if text(one, "type") in STATES and text(one, "status") == "True"
        ),
        "",
    )
    labels = {
        sys.intern(key): sys.intern(value)
        for key, value in mapping(device, "metadata", "labels").items()
        if isinstance(value, str) and not key.startswith(_BOOKKEEPING)
    }
    uploads = {}
    for one in mappings(device, "status", "workloads"):
        found = moment(text(one, "lastDataUpload"))
        if found and text(one, "name"):
            uploads[sys.intern(text(one, "name"))] = stamp(found)
    return Told(labels, sys.intern(state), number(device, "status", "replication", "pendingBytes"), uploads)


def _status(found: Sum, status: Object, now: datetime) -> dict[str, Any]:
    """The merge patch of a workload's status that tells the sum; empty when it says so already."""
    replication: dict[str, Any] = {"devices": found.devices, "pendingBytes": found.pending_bytes}
    replication |= {state.lower(): count for state, count in zip(STATES, found.by_state, strict=True)}
    if found.last_upload:
        replication["lastUpload"] = found.last_upload
    previous = mappings(status, "conditions")
    conditions = [_condition(state, found, previous, now) for state in STATES]
    change: dict[str, Any] = {}
    if any(mapping(status, "replication").get(word) != value for word, value in replication.items()):
        change["replication"] = replication
    wanted = [*(one for one in previous if text(one, "type") not in STATES), *conditions]
    if wanted != list(previous):
        change["conditions"] = wanted
    return change


def _condition(state: str, found: Sum, previous: tuple[Object, ...], now: datetime) -> dict[str, Any]:
    """Synced is true when all devices are, the others when any device is."""
    count = found.by_state[STATES.index(state)]
    is_true = 0 < count == found.devices if state == "Synced" else count > 0
    silent = found.devices - sum(found.by_state)
    message = f"{count} of {found.devices} devices"
    if state == "Blocked" and found.blocked:
        message += ": " + ", ".join(found.blocked) + (" and more" if count > len(found.blocked) else "")
    if state == "Synced" and silent:
        message += f"; {silent} told nothing yet"
    word = "True" if is_true else "False"
    before = next((one for one in previous if text(one, "type") == state), {})
    return {
        "type": state,
        "status": word,
        "reason": "NoDevices" if not found.devices else ("NotReported" if silent and not count else f"{state}Devices"),
        "message": message,
        "lastTransitionTime": text(before, "lastTransitionTime") if text(before, "status") == word else stamp(now),
    }
