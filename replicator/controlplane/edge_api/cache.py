"""Messages, each rendered once and kept until something in it moves.

A kept message knows the version of every object that it was made of, and is compared with them when its device asks:
some dictionary look-ups, no rendering. So nothing has to be told to the cache, a change that touches every device costs
nothing until they ask, and no lost notice leaves an old message in force.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from replicator.cluster.kinds import (
    CLAIM,
    CONFIG_MAP,
    EDGE_DEVICE_SET,
    ROUTE,
    SECRET,
    Key,
    Kind,
    Object,
    key_of,
    uid_of,
    version_of,
)
from replicator.controlplane.edge_api.messages import Contents, Rendering, references, render
from replicator.controlplane.edge_api.sidecars import Rules as Sidecars
from replicator.controlplane.edge_api.sidecars import with_sidecars
from replicator.controlplane.edge_api.world import World, mark_of
from replicator.controlplane.storage import Bucket, Places, Reason, Rules, bucket_of, places, set_of
from replicator.errors import ConfigError
from replicator.observe import logs
from replicator.observe.edge_metrics import EdgeMetrics

_log = logs.get("edge-api")

_Version = tuple[str, str] | None


@dataclass(slots=True)
class _Kept:
    device: Object
    epoch: int
    """Of the workloads when they were looked at last."""
    workloads: tuple[tuple[Any, ...], ...] = ()
    had_bucket: bool = False
    """It has one, or had one and is to have it again."""
    seen: dict[tuple[Kind, Key], _Version] = field(default_factory=dict)
    outcome: Rendering | ConfigError | None = None


class Renderings:
    """The message of each device as of now."""

    def __init__(self, world: World, rules: Rules, sidecars: Sidecars, metrics: EdgeMetrics) -> None:
        self._world, self._rules, self._sidecars, self._metrics = world, rules, sidecars, metrics
        self._kept: dict[Key, _Kept] = {}

    async def of(self, device: Object) -> Rendering:
        """Raises ConfigError where there is no whole message, ClusterError where that cannot be found out."""
        key = key_of(device)
        kept = self._kept.get(key)
        if kept is None or not await self._holds(kept, device):
            kept = self._kept[key] = await self._made(device)
        if isinstance(kept.outcome, ConfigError):
            raise kept.outcome
        assert kept.outcome  # noqa: S101 - `_made` has set it
        return kept.outcome

    def forget(self, key: Key) -> None:
        self._kept.pop(key, None)

    async def _holds(self, kept: _Kept, device: Object) -> bool:
        if device is not kept.device:
            if _device_mark(device) != _device_mark(kept.device):
                return False
            kept.device = device
        epoch = self._world.epochs.get(key_of(device)[0], 0)
        if epoch != kept.epoch:
            if tuple(one.mark for one in self._world.running_on(device)) != kept.workloads:
                return False
            kept.epoch = epoch
        for (kind, key), version in kept.seen.items():
            if _version(await self._world.read(kind, key)) != version:
                return False
        return True

    async def _made(self, device: Object) -> _Kept:
        namespace, name = key_of(device)
        before = self._kept.get(key_of(device))
        kept = _Kept(device, self._world.epochs.get(namespace, 0), had_bucket=before is not None and before.had_bucket)
        running = self._world.running_on(device)
        kept.workloads = tuple(one.mark for one in running)
        is_leaving = bool(device["metadata"].get("deletionTimestamp"))
        wanted = references([] if is_leaving else [one.object for one in running])
        device_set = await self._read(kept, EDGE_DEVICE_SET, set_of(device))
        contents = Contents(
            device=device,
            device_set=device_set,
            workloads=[one.object for one in running],
            bucket=await self._bucket(kept, device_set),
            secrets=await self._named(kept, SECRET, wanted.secrets),
            config_maps=await self._named(kept, CONFIG_MAP, wanted.config_maps),
        )
        self._metrics.renderings.inc()
        try:
            kept.outcome = render(with_sidecars(contents, self._sidecars, had_bucket=kept.had_bucket))
        except ConfigError as exc:
            _log.warning("device keeps what it was told", device=f"{namespace}/{name}", error=exc)
            kept.outcome = exc
        return kept

    async def _bucket(self, kept: _Kept, device_set: Object | None) -> Bucket | None:
        looked_at = places(kept.device, device_set, self._rules) or Places(is_claim=False)
        found = bucket_of(
            kept.device,
            device_set,
            claim=await self._read(kept, CLAIM, looked_at.claim),
            config_map=await self._read(kept, CONFIG_MAP, looked_at.config_map),
            secret=await self._read(kept, SECRET, looked_at.secret),
            route=await self._read(kept, ROUTE, looked_at.route),
            ca=await self._read(kept, SECRET, looked_at.ca),
            rules=self._rules,
        )
        if isinstance(found, Bucket):
            kept.had_bucket = True
            return found
        if found.reason is Reason.NO_STORAGE:
            kept.had_bucket = False
        else:
            who = "/".join(key_of(kept.device))
            _log.warning("device has no bucket", device=who, reason=found.reason, error=found.text)
        return None

    async def _named(self, kept: _Kept, kind: Kind, names: Mapping[str, Any]) -> dict[str, Object]:
        namespace = key_of(kept.device)[0]
        found = {name: await self._read(kept, kind, (namespace, name)) for name in names if name}
        return {name: one for name, one in found.items() if one is not None}

    async def _read(self, kept: _Kept, kind: Kind, key: Key | None) -> Object | None:
        if key is None or not key[1]:
            return None
        found = await self._world.read(kind, key)
        kept.seen[kind, key] = _version(found)
        return found


def _version(found: Object | None) -> _Version:
    return None if found is None else (uid_of(found), version_of(found))


def _device_mark(device: Object) -> tuple[Any, ...]:
    """What of a device is in its message; a heartbeat moves nothing of it."""
    return (*mark_of(device), (device.get("status") or {}).get("dataObc"))
