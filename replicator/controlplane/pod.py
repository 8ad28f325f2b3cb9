"""The Pod that runs a workload on a device: its own containers, each with /export, and the sidecar if wanted. Pure.

Owns: the export volume, its name and place. Never: the workload's own words, which pass as they are.
Source: Flotta's device agent, which adds the volume and the mounts when it renders a workload; Kubernetes' rule for
names of volumes (a DNS label of at most 63 characters).
"""

import copy
import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import SecretStr

from replicator.config.manifests import EdgeWorkload, Manifest
from replicator.config.settings import Settings
from replicator.config.targets import WorkloadPaths, build
from replicator.controlplane.sidecar import NAME, TMP, VOLUMES_DIR, Form, Kept, Sidecar
from replicator.errors import ConfigError
from replicator.model import Storage

EXPORT = "/export"

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAX_LABEL = 63
_OF_PODMAN = "podman/"
"""Labels of the workload that begin so are the Pod's, without it."""

_OURS = ".replicator"
"""Beside the workloads' own directories; no workload is called so."""

_ANY_STORAGE = Storage("https://storage", "bucket", "", SecretStr(""), SecretStr(""))
"""For looking at paths alone."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the export lives: a directory of the device that outlives the Pod, or with the Pod."""

    kept: Kept = Kept.HOST_PATH
    volumes_dir: str = VOLUMES_DIR

    def __post_init__(self) -> None:
        if not PurePosixPath(self.volumes_dir).is_absolute() or ".." in PurePosixPath(self.volumes_dir).parts:
            raise ConfigError(where="--volumes-dir", problem="is not an absolute path", fix="Name it from '/' on")

    def export(self, workload: str) -> dict[str, Any]:
        """The source of the volume."""
        return self._volume(f"{self.volumes_dir}/{workload}")

    def state(self, workload: str) -> dict[str, Any]:
        """The journal's: kept where the export is kept. Where volumes are, podman's user may make directories."""
        return self._volume(f"{self.volumes_dir}/{_OURS}/{workload}")

    def _volume(self, path: str) -> dict[str, Any]:
        if self.kept is Kept.EMPTY_DIR:
            return {"emptyDir": {}}
        return {"hostPath": {"path": path, "type": "DirectoryOrCreate"}}


def render(workload: EdgeWorkload, *, place: Place, sidecar: Sidecar | None, device: str = "") -> dict[str, Any]:
    """The Pod of a workload. `device` is told to its containers as DEVICE_ID.

    Raises ConfigError when the workload has no containers, or claims a name or path that is ours.
    """
    name = workload.metadata.name
    spec = copy.deepcopy(workload.spec.pod.spec)
    check(workload, spec, has_sidecar=sidecar is not None)
    volume = volume_name("export", name)
    for container in spec["containers"]:
        mounts = container.get("volumeMounts") or []
        container["volumeMounts"] = [*mounts, {"name": volume, "mountPath": EXPORT}]
        if device:
            container["env"] = [*(container.get("env") or []), {"name": "DEVICE_ID", "value": device}]
    spec["volumes"] = [*(spec.get("volumes") or []), {"name": volume, **place.export(name)}]
    if sidecar:
        add_sidecar(spec, workload, sidecar=sidecar, place=place, export=volume)
    metadata: dict[str, Any] = {"name": name}
    if workload.metadata.namespace:
        metadata["namespace"] = workload.metadata.namespace
    given = workload.metadata.labels.items()
    labels = {key.removeprefix(_OF_PODMAN): text for key, text in given if key.startswith(_OF_PODMAN)}
    if sidecar:
        labels["replicator"] = "sidecar"
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def chosen(manifests: Sequence[Manifest], *, name: str, where: str) -> EdgeWorkload:
    """The workload of that name, or the only one. Raises ConfigError."""
    workloads = [one for one in manifests if isinstance(one, EdgeWorkload)]
    fitting = [one for one in workloads if name in ("", one.metadata.name)]
    if len(fitting) != 1:
        known = ", ".join(sorted(one.metadata.name for one in workloads)) or "none"
        problem = f"{len(fitting)} workloads could be meant"
        raise ConfigError(where=where, problem=problem, fix=f"Name one with --workload; there are: {known}")
    return fitting[0]


def volume_name(purpose: str, workload: str) -> str:
    """`export-<workload>`, or where Kubernetes refuses that, the same made fit with a digest of the whole name."""
    name = f"{purpose}-{workload}"
    if _LABEL.fullmatch(name):
        return name
    digest = hashlib.sha256(workload.encode()).hexdigest()[:8]
    fit = re.sub(r"[^a-z0-9-]+", "-", name.lower())[: _MAX_LABEL - len(digest) - 1]
    return f"{fit.rstrip('-')}-{digest}"


def user_of(workload: EdgeWorkload, *, kept: Kept, default: int) -> int:
    """The uid that fits the export: the workload's own, else its owner where it is a directory of the host: root."""
    spec = workload.spec.pod.spec
    containers = spec.get("containers")
    contexts = [spec, *(containers if isinstance(containers, list) else ())]
    users = [(one.get("securityContext") or {}).get("runAsUser") for one in contexts if isinstance(one, dict)]
    found = [user for user in users if isinstance(user, int)]
    return found[-1] if found else (0 if kept is Kept.HOST_PATH else default)


def check(workload: EdgeWorkload, spec: dict[str, Any], *, has_sidecar: bool) -> None:
    """Raises ConfigError for a Pod that could not run, or paths that lead elsewhere."""
    data, where = workload.spec.data, f"{workload.where}: spec.data"
    paths = WorkloadPaths(workload.metadata.name, data.egress, data.ingress, f"{where}.egress", f"{where}.ingress")
    build([paths], storage=_ANY_STORAGE, settings=_defaults())
    if has_sidecar and not (data.egress or data.ingress):
        problem = "maps nothing, so a sidecar has nothing to do"
        raise ConfigError(where=where, problem=problem, fix="Add egress or ingress, or leave the sidecar out")
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers or not all(isinstance(one, dict) for one in containers):
        where = f"{workload.where}: spec.pod.spec.containers"
        raise ConfigError(where=where, problem="is missing", fix="Describe at least one container")
    for number, container in enumerate(containers):
        where = f"{workload.where}: spec.pod.spec.containers[{number}]"
        for mount in container.get("volumeMounts") or []:
            if isinstance(mount, dict) and PurePosixPath(str(mount.get("mountPath"))) == PurePosixPath(EXPORT):
                problem = f"mounts {EXPORT}, which every container gets by itself"
                raise ConfigError(where=f"{where}.volumeMounts", problem=problem, fix="Take it out")


@functools.cache
def _defaults() -> Settings:
    return Settings()


def _check_names(spec: dict[str, Any], workload: EdgeWorkload, volumes: Sequence[str]) -> None:
    """Raises ConfigError where something of the workload's own is called as something of the sidecar's."""
    own = {
        "containers": {NAME},
        "initContainers": {NAME},
        "volumes": set(volumes),
    }
    for field, names in own.items():
        for number, one in enumerate(spec.get(field) or ()):
            if isinstance(one, dict) and one.get("name") in names:
                where = f"{workload.where}: spec.pod.spec.{field}[{number}].name"
                raise ConfigError(where=where, problem=f"is {one['name']!r}, the sidecar's", fix="Name it otherwise")


def add_sidecar(
    spec: dict[str, Any], workload: EdgeWorkload, *, sidecar: Sidecar, place: Place, export: str = ""
) -> None:
    """Put the sidecar into the spec of the workload's Pod. `export` is the volume; '' where others mount it.

    Raises ConfigError when the workload claims a name that is the sidecar's.
    """
    name = workload.metadata.name
    state = volume_name("replicator", name)
    _check_names(spec, workload, [state, TMP])
    made = sidecar.container(workload=name, data=workload.spec.data, export=export, state=state)
    if sidecar.form is Form.NATIVE:
        spec["initContainers"] = [made, *(spec.get("initContainers") or [])]
    else:
        spec["containers"].append(made)
    spec["volumes"] = [
        *(spec.get("volumes") or []),
        {"name": state, **place.state(name)},
        {"name": TMP, "emptyDir": {}},
    ]
    own_s = spec.get("terminationGracePeriodSeconds")
    spec["terminationGracePeriodSeconds"] = max(own_s if isinstance(own_s, int) else 0, sidecar.grace_s)
    if sidecar.has_own_volume and sidecar.form is Form.NATIVE:
        # Kubernetes gives the volume to this group; it does nothing for a directory of the host.
        spec["securityContext"] = {"fsGroup": sidecar.user} | (spec.get("securityContext") or {})
