"""What a device is told: API objects -> the message, byte for byte the same for the same words. Pure.

Owns: the device-configuration message and the envelope around it, the mark by which a client knows it again, and which
Secrets and ConfigMaps a workload needs. Never: reading an object; which bucket (`storage`); which workloads.
What a set gives takes the place of its members' own, field by field. What concerns the logs of Flotta's agent and its
lists of allowed metrics is not told.
Source: Flotta's configuration assembler and swagger models, the envelope of yggdrasil.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from replicator.config.manifests import EdgeWorkload
from replicator.config.settings import Settings
from replicator.config.targets import WorkloadPaths, build
from replicator.controlplane.edge_api.specification import yaml_of
from replicator.controlplane.storage import Bucket, Object
from replicator.errors import ConfigError
from replicator.model import Storage

_OF_PODMAN = "podman/"
_DEFAULT_HEARTBEAT_S = 60
_DEFAULT_SAMPLES, _DEFAULT_TIMEOUT_S = 30_000, 10
_AUTH_FILE = ".dockerconfigjson"
_FIX = "Correct it; until then the device keeps what it was told last"
_ANY_STORAGE = Storage("https://storage", "bucket", "", SecretStr(""), SecretStr(""))
"""For looking at paths alone."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A device's message, but for what differs from answer to answer."""

    etag: str
    _before: bytes = field(repr=False)
    _behind: bytes = field(repr=False)

    @classmethod
    def of(cls, device_id: str, content: Mapping[str, Any]) -> "Rendering":
        before = b'{"device_id":%s,"version":' % _json(device_id)
        behind = b"," + _json(content)[1:]
        digest = hashlib.sha256(before + behind).hexdigest()
        return cls(f'"{digest[:32]}"', before, behind)

    def message(self, *, version: str, message_id: str, sent: str) -> bytes:
        """The whole message. `version` is the EdgeDevice's resourceVersion now; it is no part of the mark."""
        content = self._before + _json(version) + self._behind
        return envelope("data", content, directive="device", message_id=message_id, sent=sent)


@dataclass(frozen=True, slots=True)
class References:
    """Secrets and ConfigMaps by name, with the keys that have to be there; None: the object itself may be missing."""

    secrets: Mapping[str, frozenset[str] | None]
    config_maps: Mapping[str, frozenset[str] | None]


@dataclass(frozen=True, slots=True)
class Contents:
    """All that the message of one device is made of. Secrets and ConfigMaps by name, those of its own namespace."""

    device: Object
    device_set: Object | None
    workloads: Sequence[Object]
    """Those that the device runs."""
    bucket: Bucket | None
    secrets: Mapping[str, Object] = field(repr=False)
    config_maps: Mapping[str, Object]


def envelope(kind: str, content: bytes, *, message_id: str, sent: str, directive: str = "") -> bytes:
    """The envelope of yggdrasil around content that is JSON already."""
    named = b'"directive":%s,' % _json(directive) if directive else b""
    ours = (_json(kind), named, _json(message_id), _json(sent), content)
    return b'{"type":%s,%s"message_id":%s,"version":1,"sent":%s,"content":%s}' % ours


def disconnect(*, message_id: str, sent: str) -> bytes:
    """The command that ends a device's work."""
    content = b'{"command":"disconnect","arguments":null}'
    return envelope("command", content, message_id=message_id, sent=sent)


def references(workloads: Iterable[Object]) -> References:
    """What the containers, volumes and image registries of these workloads name."""
    secrets: dict[str, frozenset[str] | None] = {}
    config_maps: dict[str, frozenset[str] | None] = {}
    for workload in workloads:
        for into, name, key, is_optional in _named_in(workload):
            found = secrets if into == "secret" else config_maps
            if is_optional:
                found.setdefault(name, None)
            else:
                found[name] = (found.get(name) or frozenset()) | ({key} if key else frozenset())
        if registry := _registry(workload):
            secrets[registry] = (secrets.get(registry) or frozenset()) | {_AUTH_FILE}
    return References(secrets, config_maps)


def render(given: Contents) -> Rendering:
    """The message of a device. Raises ConfigError when a Secret or ConfigMap that has to be there is not."""
    device, is_leaving = given.device, bool(given.device["metadata"].get("deletionTimestamp"))
    content: dict[str, Any] = {"configuration": _configuration(given)}
    if not is_leaving:
        _check_references(given)
        secrets = [_secret(given.secrets[name]) for name in sorted(given.secrets) if name in _told_secrets(given)]
        workloads = sorted(given.workloads, key=lambda one: str(one["metadata"]["name"]))
        content |= _filled(secrets=secrets, workloads=[_workload(one, given) for one in workloads])
    return Rendering.of(device["metadata"]["name"], content)


def has_safe_paths(workload: EdgeWorkload) -> bool:
    """Whether the data paths are such as a device may follow; admission refuses others, where it is installed."""
    data, name = workload.spec.data, workload.metadata.name
    try:
        build([WorkloadPaths(name, data.egress, data.ingress, "", "")], storage=_ANY_STORAGE, settings=_defaults())
    except ConfigError:
        return False
    return True


@functools.cache
def _defaults() -> Settings:
    return Settings()


def _configuration(given: Contents) -> dict[str, Any]:
    spec = (given.device if given.device_set is None else given.device_set).get("spec") or {}
    heartbeat = spec.get("heartbeat") or {}
    told: dict[str, Any] = {
        "heartbeat": {
            "period_seconds": heartbeat.get("periodSeconds") or _DEFAULT_HEARTBEAT_S,
            "hardware_profile": _picked(heartbeat.get("hardwareProfile") or {}, include="include", scope="scope"),
        },
        "metrics": _device_metrics(spec.get("metrics") or {}),
        "mounts": [
            _picked(mount, device="device", folder="directory", type="type", options="options")
            for mount in spec.get("mounts") or ()
            if mount
        ],
    }
    if os_words := spec.get("osInformation"):
        names = {"automaticallyUpgrade": "automatically_upgrade", "commitID": "commit_id"}
        told["os"] = _picked(os_words, **names, hostedObjectsURL="hosted_objects_url")
    if given.bucket:
        told["storage"] = {"s3": _s3(given.bucket)}
    return told


def _device_metrics(spec: Mapping[str, Any]) -> dict[str, Any]:
    given = spec.get("receiverConfiguration") or {}
    receiver = {
        "request_num_samples": given.get("requestNumSamples") or _DEFAULT_SAMPLES,
        "timeout_seconds": given.get("timeoutSeconds") or _DEFAULT_TIMEOUT_S,
    }
    told: dict[str, Any] = {"receiver": receiver | _picked(given, url="url")}
    if retention := spec.get("retention"):
        told["retention"] = _picked(retention, maxHours="max_hours", maxMiB="max_mib")
    for ours, theirs in (("system", "system"), ("dataTransfer", "data_transfer")):
        if (part := spec.get(ours)) is not None:
            told[theirs] = _picked(part, interval="interval", disabled="disabled")
    return told


def _s3(bucket: Bucket) -> dict[str, Any]:
    return _filled(
        bucket_host=bucket.host,
        bucket_port=bucket.port,
        bucket_name=bucket.name,
        bucket_region=bucket.region,
        aws_access_key_id=bucket.access_key_id,
        aws_secret_access_key=bucket.secret_access_key,
        aws_ca_bundle=bucket.ca_bundle,
    )


def _workload(workload: Object, given: Contents) -> dict[str, Any]:
    metadata, spec = workload["metadata"], workload.get("spec") or {}
    told: dict[str, Any] = {
        "name": metadata["name"],
        "namespace": metadata.get("namespace", ""),
        "specification": yaml_of(_pod_spec(workload)),
    }
    told |= _filled(annotations=_of_podman(metadata.get("annotations")), labels=_of_podman(metadata.get("labels")))
    if (data := spec.get("data")) is not None:
        # Both sides are always there, null where there is nothing: the agent's own model has it so.
        told["data"] = {side: [_path(one) for one in data.get(side) or ()] or None for side in ("egress", "ingress")}
    named = references([workload]).config_maps
    config_maps = [_config_map(given.config_maps[name]) for name in sorted(named) if name in given.config_maps]
    registry = _registry(workload)
    auth_file = _decoded(given.secrets[registry], _AUTH_FILE) if registry else ""
    told |= _filled(configmaps=config_maps, imageRegistries=_filled(authFile=auth_file))
    told |= _filled(metrics=_workload_metrics(spec.get("metrics") or {}))
    return told


def _path(path: Mapping[str, Any]) -> dict[str, str]:
    return {"source": path["source"], "target": path["target"]}


def _workload_metrics(spec: Mapping[str, Any]) -> dict[str, Any]:
    if not spec.get("port"):
        return {}
    containers = {
        name: _picked(one, disabled="disabled", port="port", path="path")
        for name, one in (spec.get("containers") or {}).items()
    }
    return _picked(spec, path="path", port="port", interval="interval") | _filled(containers=containers)


def _pod_spec(workload: Object) -> dict[str, Any]:
    """As the agent's own encoder writes it: a container has `resources`, also where they are empty."""
    spec = dict(((workload.get("spec") or {}).get("pod") or {}).get("spec") or {})
    for kind in ("initContainers", "containers"):
        if containers := spec.get(kind):
            spec[kind] = [{"resources": {}} | container for container in containers]
    return spec


def _secret(secret: Object) -> dict[str, str]:
    """`data` is JSON within JSON: key -> base64, as the Secret has it."""
    return {"data": _json(secret.get("data") or {}).decode(), "name": secret["metadata"]["name"]}


def _config_map(config_map: Object) -> str:
    words = {key: config_map[key] for key in ("data", "binaryData", "immutable") if config_map.get(key)}
    metadata = {"creationTimestamp": None, "name": config_map["metadata"]["name"]}
    return yaml_of({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata} | words)


def _decoded(secret: Object, key: str) -> str:
    return base64.b64decode(secret["data"][key]).decode(errors="replace")


def _told_secrets(given: Contents) -> set[str]:
    """Those that containers name; those of registries are told with their workload."""
    return {name for workload in given.workloads for into, name, _, _ in _named_in(workload) if into == "secret"}


def _check_references(given: Contents) -> None:
    wanted = references(given.workloads)
    for kind, names, found in (
        ("Secret", wanted.secrets, given.secrets),
        ("ConfigMap", wanted.config_maps, given.config_maps),
    ):
        for name, keys in names.items():
            where = f"EdgeDevice {given.device['metadata'].get('namespace', '')}/{given.device['metadata']['name']}"
            if keys is not None and name not in found:
                raise ConfigError(where=where, problem=f"needs {kind} {name!r}, which is not there", fix=_FIX)
            missing = sorted((keys or set()) - set((found.get(name) or {}).get("data") or {}))
            if missing:
                problem = f"needs the key {missing[0]!r} of {kind} {name!r}, which is not there"
                raise ConfigError(where=where, problem=problem, fix=_FIX)


_Named = tuple[str, str, str, bool]
"""secret or configMap, its name, a key in it or '', whether it may be missing."""


def _named_in(workload: Object) -> Iterator[_Named]:
    spec = ((workload.get("spec") or {}).get("pod") or {}).get("spec") or {}
    for kind, called in (("secret", "secretName"), ("configMap", "name")):
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
            whole = (source.get(f"{kind}Ref") for source in container.get("envFrom") or ())
            keys = ((one.get("valueFrom") or {}).get(f"{kind}KeyRef") for one in container.get("env") or ())
            for reference in filter(None, [*whole, *keys]):
                yield kind, reference.get("name", ""), reference.get("key", ""), bool(reference.get("optional"))
        for reference in filter(None, (volume.get(kind) for volume in spec.get("volumes") or ())):
            yield kind, reference.get(called, ""), "", bool(reference.get("optional"))


def _registry(workload: Object) -> str:
    reference = ((workload.get("spec") or {}).get("imageRegistries") or {}).get("secretRef") or {}
    return str(reference.get("name", ""))


def _of_podman(words: Mapping[str, str] | None) -> dict[str, str]:
    return {key.removeprefix(_OF_PODMAN): word for key, word in (words or {}).items() if key.startswith(_OF_PODMAN)}


def _picked(given: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """The fields of these names under the names they are told by; what is empty is left out."""
    return {theirs: given[ours] for ours, theirs in names.items() if given.get(ours)}


def _filled(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
