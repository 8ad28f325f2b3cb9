"""Reads all there is to know about one device, and says whether its storage can be used.

Reads by name, and only names that an object can have; Secrets only those that the device's own storage names. What
all devices share (the Route, the authority) is read once a minute. Never: a write, a word of a Secret that is kept.
"""

import asyncio
import time
from datetime import UTC, datetime

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import CLAIM, CONFIG_MAP, EDGE_DEVICE, EDGE_DEVICE_SET, ROUTE, SECRET, Key, Kind
from replicator.controlplane import storage
from replicator.controlplane.operator.desired import set_of
from replicator.controlplane.operator.reading import Object, is_name, mapping, text
from replicator.controlplane.operator.world import Judge, Verdict, World

_SHARED_S = 60.0


class Look:
    """One reader for all devices. `rules` say where a claim's endpoint and authority stand."""

    def __init__(self, cluster: Cluster, rules: storage.Rules) -> None:
        self._cluster = cluster
        self._rules = rules
        self._shared: dict[tuple[Kind, Key], tuple[float, Object | None]] = {}

    async def at(self, key: Key) -> World:
        """The device's world now. Raises ClusterError."""
        namespace, name = key
        now = datetime.now(UTC)
        device = await self._read(EDGE_DEVICE, key)
        if device is None:
            return World(None, now)
        told, member_of = text(device, "status", "dataObc"), set_of(device)
        device_set, own, other = await asyncio.gather(
            self._read(EDGE_DEVICE_SET, (namespace, member_of)),
            self._read(CLAIM, (namespace, name)),
            self._read(CLAIM, (namespace, told if told != name else "")),
        )
        claims = {called: found for called, found in ((name, own), (told, other)) if called and found is not None}
        found = World(device, now, device_set=device_set, claims=claims)
        return await self._with_words(found, name if own else "")

    async def _with_words(self, world: World, claim: str) -> World:
        """The ConfigMaps, Secrets, Route and authority beside it, for the storage as it is and as it may become."""
        device = world.device or {}
        as_told = {**device, "status": {**mapping(device, "status"), "dataObc": claim}}
        places = [
            storage.places(one, world.device_set, self._rules) for one in ([device, as_told] if claim else [device])
        ]
        config_maps = {place.config_map for place in places if place and place.config_map}
        secrets = {place.secret for place in places if place and place.secret}
        route = next((place.route for place in places if place and place.route), None)
        ca = next((place.ca for place in places if place and place.ca), None)
        return World(
            world.device,
            world.now,
            device_set=world.device_set,
            claims=world.claims,
            config_maps=await self._read_all(CONFIG_MAP, config_maps),
            secrets=await self._read_all(SECRET, secrets),
            route=await self._share(ROUTE, route),
            authority=await self._share(SECRET, ca),
        )

    async def _read(self, kind: Kind, key: Key) -> Object | None:
        """None also for a name that no object can have: it must not become a part of a request's path."""
        namespace, name = key
        if not is_name(name):
            return None
        return await self._cluster.get(kind, namespace, name)

    async def _read_all(self, kind: Kind, keys: set[Key]) -> dict[str, Object]:
        found = await asyncio.gather(*(self._read(kind, key) for key in keys))
        return {key[1]: one for key, one in zip(keys, found, strict=True) if one is not None}

    async def _share(self, kind: Kind, key: Key | None) -> Object | None:
        if key is None:
            return None
        until_s, found = self._shared.get((kind, key), (0.0, None))
        if time.monotonic() >= until_s:
            found = await self._read(kind, key)
            self._shared[kind, key] = time.monotonic() + _SHARED_S, found
        return found


def judge_by(rules: storage.Rules) -> Judge:
    """The verdict that devices will meet: the very rule by which they are told their bucket."""

    def judge(world: World) -> Verdict:
        device = world.device or {}
        place = storage.places(device, world.device_set, rules)
        claim, config_map, secret = (key[1] if key else "" for key in _keys(place))
        found = storage.bucket_of(
            device,
            world.device_set,
            claim=world.claims.get(claim),
            config_map=world.config_maps.get(config_map),
            secret=world.secrets.get(secret),
            route=world.route,
            ca=world.authority,
            rules=rules,
        )
        if isinstance(found, storage.StorageFault):
            return Verdict(is_ready=False, reason=str(found.reason), message=found.text)
        reason = "OBCBound" if place and place.is_claim else "External"
        return Verdict(is_ready=True, reason=reason, message=f"bucket {found.name!r} at {found.host}:{found.port}")

    return judge


def _keys(place: storage.Places | None) -> tuple[Key | None, Key | None, Key | None]:
    return (place.claim, place.config_map, place.secret) if place else (None, None, None)
