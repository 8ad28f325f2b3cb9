"""What one device has to do, by the cluster's objects at one moment; and that moment's form on disk. Pure.

Owns: the way from objects as the API server gives them to an inventory, and what of it is kept: the fields that count,
of the objects that count. Never: how objects are come by (`watched`), or what is told of them (`kubernetes`).
Source: Flotta's configuration assembler; workloads that are being deleted run no more.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from replicator.cluster.kinds import Object, uid_of
from replicator.config.device import Inventory, running_on
from replicator.config.manifests import ConfigMap, EdgeDevice, EdgeDeviceSet, EdgeWorkload, Manifest, Secret
from replicator.errors import ConfigError
from replicator.observe import logs

log = logs.get("config")

_FIX = "Correct it in the cluster; the last good configuration stays in force"
_SHAPES: Mapping[str, type[Manifest]] = {
    shape.__name__: shape for shape in (EdgeDevice, EdgeDeviceSet, EdgeWorkload, ConfigMap, Secret)
}
_Shape = TypeVar("_Shape", EdgeDevice, EdgeDeviceSet, EdgeWorkload, ConfigMap, Secret)


@dataclass(frozen=True, slots=True)
class Sighting:
    """The device as an object, whatever else is true of it."""

    uid: str
    """One that is made anew under the name of another has another."""
    is_leaving: bool
    """It is being deleted: what is on the device is to be sent, and then no more."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The device, and all that its configuration is made of."""

    device: EdgeDevice
    sighting: Sighting
    inventory: Inventory


def shaped(shape: type[_Shape], found: Object) -> _Shape:
    """What we need of an object. Raises ConfigError."""
    metadata = found["metadata"]
    where = f"{shape.__name__} {metadata.get('namespace', '')}/{metadata['name']}"
    return shape.of(found, where=where, fix=_FIX)


def sighting(found: Object) -> Sighting:
    return Sighting(uid_of(found), is_leaving=_is_leaving(found))


def workloads_for(device: EdgeDevice, found: Iterable[Object]) -> list[EdgeWorkload]:
    """The workloads that are there; only those for the device come with their paths, and have to make sense."""
    workloads: list[EdgeWorkload] = []
    for one in found:
        if _is_leaving(one):
            continue
        spec = one.get("spec") or {}
        try:
            addressed = shaped(
                EdgeWorkload, {**one, "spec": {key: spec.get(key) for key in ("device", "deviceSelector")}}
            )
        except ConfigError as error:
            log.warning("workload left out, nobody can tell for which devices it is", error=error)
            continue
        workloads.append(shaped(EdgeWorkload, one) if addressed.selects(device) else addressed)
    return workloads


def to_text(moment: Moment) -> str:
    """The moment as it is kept: with the bucket's credentials, so for nobody else's eyes."""
    inventory = moment.inventory
    workloads = running_on(moment.device, inventory.workloads)
    objects: tuple[Manifest, ...] = (
        moment.device,
        *inventory.sets,
        *workloads,
        *inventory.config_maps,
        *inventory.secrets,
    )
    return json.dumps({"uid": moment.sighting.uid, "objects": [_plain(one) for one in objects]})


def from_text(text: str, *, where: str) -> Moment:
    """The moment that was kept. Raises ConfigError for any other text."""
    try:
        kept = json.loads(text)
        found = [shaped(_SHAPES[one["kind"]], one) for one in kept["objects"]]  # type: ignore[type-var]
        (device,) = [one for one in found if isinstance(one, EdgeDevice)]
        return Moment(device, Sighting(str(kept["uid"]), is_leaving=False), Inventory.of(found))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ConfigError(where=where, problem="is not what was kept there", fix="Remove it") from None


def _is_leaving(found: Object) -> bool:
    """Finalizers hold what is being deleted until all is done."""
    return bool(found["metadata"].get("deletionTimestamp"))


def _plain(one: Manifest) -> dict[str, Any]:
    without = {"spec": {"pod"}} if isinstance(one, EdgeWorkload) else None
    return {"kind": type(one).__name__} | one.model_dump(by_alias=True, exclude_defaults=True, exclude=without)
