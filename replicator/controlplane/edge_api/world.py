"""The API server's objects that messages are made of: those that watches show, and those that are asked for by name.

Owns: which kinds are watched, which workloads a device runs, and how long an answer by name is believed.
Secrets and ConfigMaps are watched only where they carry the label of a claim's provisioner: whoever watches all of them
has every tenant's secrets in memory. Others are read by name when a device that names them asks, and again after a
short time; what nobody asked for any more is forgotten.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import (
    CLAIM,
    CONFIG_MAP,
    EDGE_DEVICE,
    EDGE_DEVICE_SET,
    EDGE_WORKLOAD,
    ROUTE,
    SECRET,
    Key,
    Kind,
    Object,
)
from replicator.cluster.mirror import Mirror
from replicator.config.device import running_on
from replicator.config.manifests import EdgeDevice, EdgeWorkload
from replicator.controlplane.edge_api.messages import has_safe_paths
from replicator.controlplane.edge_api.outage import Outage
from replicator.controlplane.settings import EdgeApiSettings
from replicator.errors import ClusterError, ConfigError
from replicator.observe import logs

_ABSENT_S = 5.0
"""Until something that was not there is asked for again: somebody is probably about to make it."""

_log = logs.get("edge-api")


@dataclass(frozen=True, slots=True)
class Running:
    """A workload, and what of it a message is made of; status and bookkeeping are not."""

    parsed: EdgeWorkload
    object: Object
    mark: tuple[Any, ...]


@dataclass(slots=True)
class _Answer:
    object: Object | None
    due_s: float


class World:
    """Mirrors, and an answer to each question that a message asks."""

    def __init__(
        self, cluster: Cluster, settings: EdgeApiSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        rules, namespace, labels = settings.rules, settings.namespace, settings.edge_watched_labels
        self.devices = Mirror(cluster, EDGE_DEVICE, namespace)
        workloads = Mirror(cluster, EDGE_WORKLOAD, namespace, on_change=self._workload_changed)
        sets = Mirror(cluster, EDGE_DEVICE_SET, namespace)
        self._mirrors: dict[Kind, list[Mirror]] = {
            EDGE_DEVICE_SET: [sets],
            CLAIM: [Mirror(cluster, CLAIM, namespace)],
        }
        for kind in (CONFIG_MAP, SECRET) if labels else ():
            self._mirrors[kind] = [Mirror(cluster, kind, namespace, labels=labels)]
        if rules.endpoint == "route":
            self._mirrors[ROUTE] = [Mirror(cluster, ROUTE, rules.route_namespace, name=rules.route_name)]
        if rules.ca_secret:
            authority = Mirror(cluster, SECRET, rules.ca_namespace, name=rules.ca_secret)
            self._mirrors[SECRET] = [*self._mirrors.get(SECRET, ()), authority]
        self.needed: Sequence[Mirror] = (self.devices, workloads, sets)
        """Without these nothing true can be told; the others are asked for by name where they do not answer."""
        self.mirrors = [self.devices, workloads, *(one for some in self._mirrors.values() for one in some)]
        self.epochs: dict[str, int] = {}
        """By namespace: moves whenever a workload in it does."""
        self._workloads: dict[str, dict[str, Running]] = {}
        self._cluster, self._clock, self._reread_s = cluster, clock, settings.edge_reread_s
        self._answers: dict[tuple[Kind, Key], _Answer] = {}
        self._pruned_s = clock()
        self._outage = Outage()

    @property
    def is_complete(self) -> bool:
        return all(mirror.is_synced for mirror in self.needed)

    def running_on(self, device: Object) -> list[Running]:
        """The workloads that the device's name and labels select, by name.

        Computed here: status.workloads and the labels on the device keep a workload whose selector has moved on.
        """
        metadata = device["metadata"]
        words = {name: metadata[name] for name in ("name", "namespace", "labels") if name in metadata}
        selected = EdgeDevice.of({"metadata": words}, where="EdgeDevice", fix="Correct its labels")
        known = self._workloads.get(metadata.get("namespace", ""), {})
        names = {one.metadata.name for one in running_on(selected, (one.parsed for one in known.values()))}
        return [known[name] for name in sorted(names)]

    async def device(self, key: Key) -> Object | None:
        """A device that no watch shows, as the API server has it: a watch may be behind. Raises ClusterError."""
        return await self._asked_for(EDGE_DEVICE, key, is_absence_believed=False)

    async def read(self, kind: Kind, key: Key) -> Object | None:
        """What a watch shows, else the object as it was when last asked for. Raises ClusterError where neither is."""
        for mirror in self._mirrors.get(kind, ()):
            if key in mirror.objects:
                return mirror.objects[key]
        return await self._asked_for(kind, key)

    async def _asked_for(self, kind: Kind, key: Key, *, is_absence_believed: bool = True) -> Object | None:
        """As it was at most some seconds ago; older while the API server does not answer, if that is believed."""
        now_s = self._clock()
        self._prune(now_s)
        known = self._answers.get((kind, key))
        if known and now_s < known.due_s:
            return known.object
        if known:
            known.due_s = now_s + _ABSENT_S  # one asks; who comes meanwhile has what is known
        try:
            found = await self._cluster.get(kind, *key)
        except ClusterError as exc:
            if self._outage.begins():
                _log.warning("object cannot be read", kind=kind.plural, namespace=key[0], name=key[1], error=exc)
            if known is None or (known.object is None and not is_absence_believed):
                raise
            return known.object
        if self._outage.ends():
            _log.info("objects can be read again")
        wait_s = self._reread_s if found else min(_ABSENT_S, self._reread_s)
        self._answers[kind, key] = _Answer(found, now_s + wait_s)
        return found

    def _prune(self, now_s: float) -> None:
        """Forget what nobody has asked for: secrets of devices that are gone do not stay."""
        if now_s - self._pruned_s < self._reread_s:
            return
        self._pruned_s = now_s
        for place in [one for one, answer in self._answers.items() if answer.due_s + 10 * self._reread_s < now_s]:
            del self._answers[place]

    def _workload_changed(self, key: Key, old: Object | None, new: Object | None) -> None:
        namespace, name = key
        if new is None or new["metadata"].get("deletionTimestamp"):
            is_moved = self._workloads.get(namespace, {}).pop(name, None) is not None
        else:
            is_moved = old is None or mark_of(old) != mark_of(new)
            if is_moved:
                self._take_workload(key, new)
        if is_moved:
            self.epochs[namespace] = self.epochs.get(namespace, 0) + 1

    def _take_workload(self, key: Key, new: Object) -> None:
        namespace, name = key
        where = f"EdgeWorkload {namespace}/{name}"
        try:
            parsed = EdgeWorkload.of(new, where=where, fix="Correct it; until then no device is told of it")
        except ConfigError as exc:
            self._workloads.get(namespace, {}).pop(name, None)
            _log.warning("workload cannot be read", workload=name, namespace=namespace, error=exc)
            return
        if not has_safe_paths(parsed):
            _log.warning("data paths left out", workload=name, namespace=namespace, reason="unsafe-path")
            new = new | {"spec": {field: value for field, value in new["spec"].items() if field != "data"}}
        self._workloads.setdefault(namespace, {})[name] = Running(parsed, new, mark_of(new))


def mark_of(found: Object) -> tuple[Any, ...]:
    """What moves when a person or a controller changes what an object wants, and not with its status."""
    metadata: Mapping[str, Any] = found["metadata"]
    return tuple(metadata.get(name) for name in ("uid", "generation", "labels", "annotations", "deletionTimestamp"))
