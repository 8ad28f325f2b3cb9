"""The sidecar of a workload's Pod: one description, rendered for Kubernetes or for podman. Pure.

`native` is an init container that restarts for ever (Kubernetes 1.29): it starts before the workload and is stopped
after it, so the last file is still sent. `container` stands beside the others, for older clusters and for podman,
which runs no init container for ever and leaves probes of the kubelet's kind to programs in the image. podman does not
know `envFrom.prefix`: there the bucket's words come without one, which `run` takes for external storage.
The drain is the answer to SIGTERM. There is no preStop hook: it would run before the workload has stopped.
Source: Kubernetes, "Sidecar Containers"; podman-kube-play(1), the fields that it supports.
"""

import enum
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from replicator.config.manifests import DataPath, DataSpec


class Form(enum.StrEnum):
    """How the sidecar stands in the Pod."""

    NONE = "none"
    NATIVE = "native"
    CONTAINER = "container"


class Kept(enum.StrEnum):
    """Where the export is: a directory of the device that outlives the Pod, or one that ends with it."""

    HOST_PATH = "hostPath"
    EMPTY_DIR = "emptyDir"


VOLUMES_DIR = "/var/local/yggdrasil/device/volumes"
"""Where Flotta's agent keeps the exports of a device's workloads."""
NAME = "replicator"
STATE_DIR = "/var/lib/replicator"
TMP = "replicator-tmp"
"""Its volume for temporary files."""
PORT = 9477
USER = 65532
"""The image's own user, who fits where the volume is made for him."""

_PROBED_S, _STARTED_WITHIN_S = 10, 60
_DRAIN_SHARE = 2 / 3
"""Of the grace period: what is left is for what cannot be sent any more, and for closing."""

_CLUSTER_CA = {
    "name": "OBC_tls.crt",
    "valueFrom": {"configMapKeyRef": {"name": "openshift-service-ca.crt", "key": "service-ca.crt", "optional": True}},
}
"""The CA that signs in-cluster services; OpenShift puts this ConfigMap into every namespace."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where the bucket's words stand: a ConfigMap and a Secret, and whether they are a claim's."""

    config_map: str
    secret: str
    is_claim: bool

    @property
    def prefix(self) -> str:
        """What the sidecar's variables begin with, so that no word of one is taken for the other's."""
        return "OBC_" if self.is_claim else "EXTERNAL_"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a sidecar is made of. `user` is the uid that it runs as, the owner of the export directory."""

    form: Form
    image: str
    bucket: Bucket
    grace_s: int
    user: int
    has_own_volume: bool
    """The export is a volume of the Pod (emptyDir) and belongs to whom the Pod says; else a directory of the host."""

    def container(self, *, workload: str, data: DataSpec, export: str, state: str) -> dict[str, Any]:
        """The container; `export` and `state` are names of volumes, no `export` where others mount it."""
        made: dict[str, Any] = {"name": NAME, "image": self.image}
        if self.form is Form.NATIVE:
            made["restartPolicy"] = "Always"
        variables = self._environment(workload=workload, data=data)
        made["env"] = [{"name": name, "value": value} for name, value in variables]
        if self.bucket.is_claim:
            made["env"].append(_CLUSTER_CA)
        made["envFrom"] = [
            {"prefix": self.bucket.prefix, "configMapRef": {"name": self.bucket.config_map}},
            {"prefix": self.bucket.prefix, "secretRef": {"name": self.bucket.secret}},
        ]
        made["ports"] = [{"name": "metrics", "containerPort": PORT}]
        if self.form is Form.NATIVE:
            made |= _probes()
        made["resources"] = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
        made["securityContext"] = self._posture()
        mounts = {export: "/export", state: STATE_DIR, TMP: "/tmp"}  # noqa: S108 - the container's own
        made["volumeMounts"] = [{"name": name, "mountPath": path} for name, path in mounts.items() if name]
        return made

    def _environment(self, *, workload: str, data: DataSpec) -> Iterator[tuple[str, str]]:
        yield "REPLICATOR_WORKLOAD", workload
        if data.egress:
            yield "REPLICATOR_EGRESS", _mappings(data.egress)
        if data.ingress:
            yield "REPLICATOR_INGRESS", _mappings(data.ingress)
        yield "REPLICATOR_DRAIN_TIMEOUT_S", str(int(self.grace_s * _DRAIN_SHARE))
        yield "REPLICATOR_HTTP_LISTEN", f"0.0.0.0:{PORT}"
        yield "REPLICATOR_LOG_FORMAT", "json"

    def _posture(self) -> dict[str, Any]:
        """No privilege. Uid 0 without capabilities is no more than the owner of root's files."""
        posture: dict[str, Any] = {
            "runAsUser": self.user,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if self.form is Form.NATIVE:
            posture |= {"runAsNonRoot": self.user != 0, "seccompProfile": {"type": "RuntimeDefault"}}
        return posture


def _mappings(paths: Sequence[DataPath]) -> str:
    """The setting's text: its short form where the names allow it."""
    if any(mark in name for path in paths for name in (path.source, path.target) for mark in ",=["):
        return json.dumps([{"source": path.source, "target": path.target} for path in paths])
    return ",".join(f"{path.source}={path.target}" for path in paths)


def _probes() -> dict[str, Any]:
    """Started: the configuration is read. Ready: fresh within bounds. Alive: the process, never the bucket."""

    def ask(path: str) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": "metrics"}}

    return {
        "startupProbe": ask("/healthz") | {"periodSeconds": 1, "failureThreshold": _STARTED_WITHIN_S},
        "readinessProbe": ask("/readyz") | {"periodSeconds": _PROBED_S},
        "livenessProbe": ask("/healthz") | {"periodSeconds": _PROBED_S, "timeoutSeconds": 5, "failureThreshold": 6},
    }
