"""The manifests of one moment -> the targets of one device: one rule, whoever brought them.

Owns: the steps from an inventory to targets, and which bucket a described device has. What a device runs is decided by
`device`, what words are worth by `storage`, which mappings are refused by `targets`.
"""

import dataclasses
from collections.abc import Callable

from replicator.config.device import Inventory, claim_words, external_words, running_on
from replicator.config.manifests import EdgeDevice, EdgeWorkload
from replicator.config.settings import Settings
from replicator.config.storage import Scheme, Words, choose
from replicator.config.targets import WorkloadPaths, build, served
from replicator.errors import ConfigError
from replicator.model import Storage, Target
from replicator.observe import logs

log = logs.get("config")


def targets_of(
    inventory: Inventory, device: EdgeDevice | None, settings: Settings, *, where: str, storage: Callable[[], Storage]
) -> tuple[Target, ...]:
    """What the device has to keep in step. `where` names the place for people; `storage` is asked if it is needed."""
    running = running_on(device, inventory.workloads)
    if not running and settings.volumes_dir is None and not settings.workload:
        raise _no_workload(inventory, device, where)
    workloads = served([_paths(workload) for workload in running], settings)
    if not any(one.egress or one.ingress for one in workloads):
        # A device without data paths needs no bucket.
        return ()
    return build(workloads, storage=storage(), settings=settings)


def _nothing() -> Words | None:
    return None


def storage_of_device(
    device: EdgeDevice,
    inventory: Inventory,
    *,
    scheme: Scheme,
    mounted_claim: Callable[[], Words | None] = _nothing,
    mounted_external: Callable[[], Words | None] = _nothing,
    mounts: tuple[str, ...] = (),
    claim_authority: str = "",
) -> Storage:
    """The device's bucket; words mounted as files (`mounts`, for people) stand in for objects that are not there.

    `claim_authority`: PEM to trust for a claim whose Secret has none, for provisioners write no authority.
    """
    owner = inventory.set_of(device) or device
    if device.member_of and owner is device:
        log.warning(
            "device set cannot be read, the device's own storage counts", field=f"{device.where}: flotta/member-of"
        )
    return choose(
        claim=lambda: _trusting(claim_words(device, inventory, mounted=mounted_claim()), claim_authority),
        external=lambda: external_words(device, inventory, mounted=mounted_external()),
        scheme=scheme,
        looked_at=(
            f"{device.where}: status.dataObc and a ConfigMap and Secret named like the device",
            f"{owner.where}: spec.storage.s3.configMapName and secretName",
            *mounts,
        ),
    )


def _trusting(words: Words | None, authority: str) -> Words | None:
    if words is None or not authority or words.get("tls.crt"):
        return words
    return dataclasses.replace(words, values={**words.values, "tls.crt": authority})


def _paths(workload: EdgeWorkload) -> WorkloadPaths:
    return WorkloadPaths(
        workload=workload.metadata.name,
        egress=workload.spec.data.egress,
        ingress=workload.spec.data.ingress,
        egress_where=f"{workload.where}: spec.data.egress",
        ingress_where=f"{workload.where}: spec.data.ingress",
    )


def _no_workload(inventory: Inventory, device: EdgeDevice | None, where: str) -> ConfigError:
    names = ", ".join(sorted(one.metadata.name for one in inventory.workloads)) or "none"
    who = f" for EdgeDevice {device.metadata.name}" if device is not None else ""
    fix = f"Add one, or correct spec.device or spec.deviceSelector. Found: {names}"
    return ConfigError(where=where, problem=f"there is no EdgeWorkload{who}", fix=fix)
