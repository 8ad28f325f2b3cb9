"""What one device runs, and where its bucket's words stand: rules over manifests, pure.

Owns: which EdgeDevice is meant, which EdgeWorkloads it runs, and which ConfigMap and Secret hold its in-cluster claim
and its external storage. Never: whether the words are right (`storage`), or paths (`targets`).
Source: Flotta's configuration assembler: status.dataObc names the claim, spec.storage.s3 the external resources. The
set's storage stands in the place of the device's as a whole, even where the set names none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from replicator.config.manifests import (
    ConfigMap,
    EdgeDevice,
    EdgeDeviceSet,
    EdgeWorkload,
    Manifest,
    Secret,
    is_same_namespace,
)
from replicator.config.storage import CONFIG_WORDS, SECRET_WORDS, Words
from replicator.errors import ConfigError

_Named = TypeVar("_Named", ConfigMap, Secret, EdgeDeviceSet)


@dataclass(frozen=True, slots=True)
class Inventory:
    """All manifests of one moment, by kind."""

    workloads: tuple[EdgeWorkload, ...]
    devices: tuple[EdgeDevice, ...]
    sets: tuple[EdgeDeviceSet, ...]
    config_maps: tuple[ConfigMap, ...]
    secrets: tuple[Secret, ...]

    @classmethod
    def of(cls, manifests: Iterable[Manifest]) -> "Inventory":
        """Sort manifests by kind. Raises ConfigError when one object is there twice."""
        seen: dict[str, Manifest] = {}
        for manifest in manifests:
            other = seen.setdefault(manifest.full_name, manifest)
            if other is not manifest:
                problem = f"{manifest.full_name} is also in {other.where}"
                raise ConfigError(where=manifest.where, problem=problem, fix="Keep one of them")
        return cls(
            workloads=tuple(one for one in seen.values() if isinstance(one, EdgeWorkload)),
            devices=tuple(one for one in seen.values() if isinstance(one, EdgeDevice)),
            sets=tuple(one for one in seen.values() if isinstance(one, EdgeDeviceSet)),
            config_maps=tuple(one for one in seen.values() if isinstance(one, ConfigMap)),
            secrets=tuple(one for one in seen.values() if isinstance(one, Secret)),
        )

    def device(self, wanted: str) -> EdgeDevice | None:
        """The EdgeDevice named `wanted`, or the only one when that is ''; None when there is none at all."""
        if not wanted and not self.devices:
            return None
        fitting = [device for device in self.devices if not wanted or device.metadata.name == wanted]
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(sorted(device.metadata.name for device in self.devices)) or "none"
        problem = f"no EdgeDevice is named {wanted!r}" if not fitting else f"{len(fitting)} EdgeDevices could be meant"
        fix = f"Set REPLICATOR_DEVICE to the name of one; there are: {names}"
        raise ConfigError(where="device", problem=problem, fix=fix)

    def set_of(self, device: EdgeDevice) -> EdgeDeviceSet | None:
        """The set that the device is a member of; None when it is in none, or its set is not there."""
        return _find(self.sets, name=device.member_of, namespace=device.metadata.namespace)


def running_on(device: EdgeDevice | None, workloads: Iterable[EdgeWorkload]) -> tuple[EdgeWorkload, ...]:
    """The workloads that select the device; all of them when no device is described."""
    return tuple(workload for workload in workloads if device is None or workload.selects(device))


def claim_words(device: EdgeDevice, inventory: Inventory, *, mounted: Words | None) -> Words | None:
    """The in-cluster claim's words: the objects that status.dataObc names or that are named like the device.

    A claim mounted as files stands in for objects that are not there. None when the device has no claim.
    """
    name = device.status.data_obc or device.metadata.name
    config_map, secret = _pair(device, inventory, config_map_name=name, secret_name=name)
    if config_map is not None and secret is not None:
        return _words(config_map, secret)
    if mounted is None and device.status.data_obc:
        kind = "ConfigMap" if config_map is None else "Secret"
        raise _missing(device, kind=kind, name=name, field="status.dataObc")
    return mounted


def external_words(device: EdgeDevice, inventory: Inventory, *, mounted: Words | None) -> Words | None:
    """External storage's words: the objects that spec.storage.s3 names, or their files. None when not configured."""
    owner = inventory.set_of(device) or device
    s3 = owner.s3
    if not s3.config_map_name and not s3.secret_name:
        return mounted
    config_map, secret = _pair(device, inventory, config_map_name=s3.config_map_name, secret_name=s3.secret_name)
    if config_map is not None and secret is not None:
        return _words(config_map, secret)
    if mounted is not None:
        return mounted
    if config_map is None:
        raise _missing(owner, kind="ConfigMap", name=s3.config_map_name, field="spec.storage.s3.configMapName")
    raise _missing(owner, kind="Secret", name=s3.secret_name, field="spec.storage.s3.secretName")


def _pair(
    device: EdgeDevice, inventory: Inventory, *, config_map_name: str, secret_name: str
) -> tuple[ConfigMap | None, Secret | None]:
    namespace = device.metadata.namespace
    config_map = _find(inventory.config_maps, name=config_map_name, namespace=namespace)
    return config_map, _find(inventory.secrets, name=secret_name, namespace=namespace)


def _find(objects: tuple[_Named, ...], *, name: str, namespace: str) -> _Named | None:
    """The object of that name; one that states exactly this namespace comes before one that states none."""
    fitting = [
        one for one in objects if one.metadata.name == name and is_same_namespace(one.metadata.namespace, namespace)
    ]
    return next(iter(sorted(fitting, key=lambda one: one.metadata.namespace != namespace)), None)


def _words(config_map: ConfigMap, secret: Secret) -> Words:
    values = {word: config_map.data[word] for word in CONFIG_WORDS if word in config_map.data}
    for word in SECRET_WORDS:
        text = secret.decoded(word)
        if text is not None:
            values[word] = text
    return Words(config=f"{config_map.full_name}: ", secret=f"{secret.full_name}: ", values=values)


def _missing(owner: EdgeDevice | EdgeDeviceSet, *, kind: str, name: str, field: str) -> ConfigError:
    where = f"{owner.where}: {field}"
    if not name:
        return ConfigError(where=where, problem="is empty though its sibling is set", fix=f"Name the {kind} there")
    full_name = f"{kind} {owner.metadata.namespace or '(no namespace)'}/{name}"
    fix = "Create it, or wait for its provisioner. With source files add its manifest, or mount it beneath storage/"
    return ConfigError(where=where, problem=f"{full_name} is not there", fix=fix)
