"""The objects that one device's configuration is made of, watched in the cluster for as long as they are.

Owns: which those are (ConfigMap, Secret and set by name alone, so that a role can name them), and what they say
together. Never: lists, watches and their faults (`cluster.mirror`), or what is told of it (`course`).
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import CONFIG_MAP, EDGE_DEVICE, EDGE_DEVICE_SET, EDGE_WORKLOAD, SECRET, Kind, Object
from replicator.cluster.mirror import Mirror
from replicator.config.device import Inventory
from replicator.config.manifests import ConfigMap, EdgeDevice, EdgeDeviceSet, Manifest, Secret
from replicator.config.settings import Settings
from replicator.config.sources.moment import Moment, Sighting, shaped, sighting, workloads_for
from replicator.errors import ConfigError

Wanted = tuple[Kind, str]
"""A kind, and the name of the one object that is meant; '' for all in the namespace."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""What Kubernetes takes for a name: a DNS subdomain."""


@dataclass(frozen=True, slots=True)
class Silence:
    """The API server is away, or does not tell all that is needed."""

    since_ts: float
    problem: str
    """What is in the way; '' where that is not known."""


class Watched:
    """What the cluster says of one device. For the event loop."""

    def __init__(self, cluster: Cluster, namespace: str, settings: Settings) -> None:
        """Raises ConfigError where settings name what cannot be an object."""
        self._cluster, self._namespace = cluster, namespace
        for variable, name in (("REPLICATOR_DEVICE", settings.device), ("REPLICATOR_WORKLOAD", settings.workload)):
            if name and not _NAME.fullmatch(name):
                fix = "Write its name in the cluster: small letters, digits, '-' and '.'"
                raise ConfigError(where=variable, problem=f"{name!r} is no object's name", fix=fix)
        self._device: Wanted = (EDGE_DEVICE, settings.device)
        self._workloads: Wanted = (EDGE_WORKLOAD, settings.workload)
        self._ears: dict[Wanted, _Ear] = {}
        self.changed = asyncio.Event()
        """Set when an object has changed, or was heard of for the first time."""

    def sighting(self) -> Sighting | None:
        """The device itself; None when it is not there, or not known yet."""
        with contextlib.suppress(ConfigError):
            return sighting(self._picked()) if self._is_known([self._device]) else None
        return None

    def has_seen_end_of(self, uid: str) -> bool:
        """Whether the removal of that device was watched. That it is not there any more says less."""
        ear = self._ears.get(self._device)
        return ear is not None and uid in ear.mirror.ended

    def moment(self) -> Moment | None:
        """All of it; None while a part is not known yet. Raises ConfigError for what makes no sense."""
        wanted = [self._device, self._workloads]
        if not self._is_known(wanted):
            return None
        raw = self._picked()
        device = shaped(EdgeDevice, raw)
        wanted += _set_of(device)
        if not self._is_known(wanted):
            return None
        sets = [shaped(EdgeDeviceSet, one) for one in self._objects(wanted, EDGE_DEVICE_SET)]
        wanted += _words_of(device, sets[0] if sets else device)
        if not self._is_known(wanted):
            return None
        self._keep_only(wanted)
        manifests: tuple[Manifest, ...] = (
            device,
            *sets,
            *workloads_for(device, self._objects(wanted, EDGE_WORKLOAD)),
            *(shaped(ConfigMap, one) for one in self._objects(wanted, CONFIG_MAP)),
            *(shaped(Secret, one) for one in self._objects(wanted, SECRET)),
        )
        return Moment(device, sighting(raw), Inventory.of(manifests))

    def silence(self, *, patience_s: float, silence_s: float) -> Silence | None:
        """Who is not heard for too long: for `patience_s` if it never was, else for `silence_s`. None: all is well."""
        for ear in self._ears.values():
            if ear.task.done():
                ear.task.result()  # which raises: a mirror never ends by itself
            age_s = ear.mirror.age_s()
            if age_s > silence_s if ear.mirror.is_synced else age_s > patience_s and not ear.mirror.is_refused:
                return Silence(time.time() - age_s, ear.mirror.problem)
        return None

    async def close(self) -> None:
        """Listen to nothing any more."""
        tasks = [ear.task for ear in self._ears.values()]
        self._keep_only(())
        await asyncio.gather(*tasks, return_exceptions=True)

    def _picked(self) -> Object:
        found = self._objects([self._device], EDGE_DEVICE)
        # By the names alone: which device it is must be known also where its spec makes no sense.
        named = Inventory.of(shaped(EdgeDevice, {"metadata": one["metadata"]}) for one in found)
        device = named.device(self._device[1])
        if device is None:
            fix = "Register the device, or correct REPLICATOR_DEVICE and REPLICATOR_NAMESPACE"
            raise ConfigError(where=f"namespace {self._namespace}", problem="there is no EdgeDevice", fix=fix)
        return next(one for one in found if one["metadata"]["name"] == device.metadata.name)

    def _objects(self, wanted: Iterable[Wanted], kind: Kind) -> list[Object]:
        return [one for key in wanted if key[0] == kind for one in self._ears[key].mirror.objects.values()]

    def _is_known(self, wanted: Iterable[Wanted]) -> bool:
        """Whether all of these were heard of; whatever nobody listens to yet is listened to from now on."""
        for kind, name in wanted:
            if (kind, name) not in self._ears:
                mirror = Mirror(self._cluster, kind, self._namespace, name=name)
                self._ears[kind, name] = _Ear(mirror, self.changed)
        known = [self._ears[one].mirror.is_synced or self._is_unreadable(*one) for one in wanted]
        return all(known)

    def _is_unreadable(self, kind: Kind, name: str) -> bool:
        """Whether the API server refuses it: a set is ignored then, without the others nothing can be said."""
        if not self._ears[kind, name].mirror.is_refused:
            return False
        if kind != EDGE_DEVICE_SET:
            where = f"{kind.kind} {self._namespace}/{name or '*'}"
            fix = "Allow get, list and watch of it in the role of this service account"
            raise ConfigError(where=where, problem="may not be read", fix=fix)
        return True

    def _keep_only(self, wanted: Iterable[Wanted]) -> None:
        for key in self._ears.keys() - set(wanted):
            self._ears.pop(key).task.cancel()


class _Ear:
    """A mirror that runs, and tells of every change and of the first list."""

    def __init__(self, mirror: Mirror, changed: asyncio.Event) -> None:
        self.mirror = mirror
        mirror.on_change = lambda *_: changed.set()
        self.task = asyncio.create_task(self._run(changed), name="mirror")

    async def _run(self, changed: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.mirror.run())
            await self.mirror.synced()
            changed.set()


def _set_of(device: EdgeDevice) -> list[Wanted]:
    return [(EDGE_DEVICE_SET, device.member_of)] if _NAME.fullmatch(device.member_of) else []


def _words_of(device: EdgeDevice, owner: EdgeDevice | EdgeDeviceSet) -> list[Wanted]:
    """The ConfigMap and the Secret that hold the device's bucket: the claim's, or those that `owner` names."""
    claim, s3 = device.status.data_obc, owner.s3
    named = ((CONFIG_MAP, claim or s3.config_map_name), (SECRET, claim or s3.secret_name))
    return [(kind, name) for kind, name in named if _NAME.fullmatch(name)]
