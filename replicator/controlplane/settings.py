"""Settings of the control plane's two programs: whom they serve, how a claim's endpoint is found, where they listen.

Each is a variable REPLICATOR_CONTROL_<NAME>; there are no flags, for a Deployment has none. Both programs may be given
one environment: what the other one reads is passed over. Anything unknown or out of bounds is one ConfigError.
Credentials are in files and in the cluster, never here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from replicator.config.fields import Count, ListenAddress, LogLevel, Number, PemFile
from replicator.config.shapes import Shape, did_you_mean, explain
from replicator.controlplane import storage
from replicator.controlplane.sidecar import VOLUMES_DIR
from replicator.errors import ConfigError

PREFIX = "REPLICATOR_CONTROL_"

_FLOTTAS_AUTO_CREATE = "OBC_AUTO_CREATE"
"""Flotta's own word, read where auto_create is not set."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
OptionalName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]


class ControlSettings(Shape, use_attribute_docstrings=True):
    """What both programs read. Each docstring's first line is its help."""

    namespace: OptionalName = ""
    """The one namespace that is served; empty serves all."""
    endpoint: Literal["route", "claim", "fixed"] = "route"
    """Where devices reach a claim's bucket: by a Route, by the claim's own host and port, or at endpoint_host."""
    endpoint_host: str = ""
    """Host that devices are told (endpoint fixed)."""
    endpoint_port: Count = Field(default=443, ge=1, le=65535)
    """Port that devices are told (endpoint fixed)."""
    region: str = ""
    """Region that devices are told for claims; empty is the claim's own, if it has one."""
    route_name: Name = "s3"
    """Name of the Route (endpoint route)."""
    route_namespace: Name = "openshift-storage"
    """Its namespace."""
    ca_secret: OptionalName = "router-ca"  # noqa: S105 - a name
    """Secret with the authority that signed the endpoint's certificate; empty tells devices none."""
    ca_namespace: Name = "openshift-ingress-operator"
    """Its namespace."""
    ca_key: str = "tls.crt"
    """Which of its keys."""
    http_listen: ListenAddress = "127.0.0.1:9478"
    """host:port of /metrics, /healthz and /readyz; empty is off."""
    log_level: LogLevel = "info"
    """Least severe messages to log."""
    log_format: Literal["auto", "text", "json"] = "auto"
    """Form of the log; auto is text on a terminal, else JSON."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.endpoint == "fixed" and not self.endpoint_host:
            raise ValueError("endpoint fixed needs endpoint_host")
        return self

    @property
    def rules(self) -> storage.Rules:
        """How a claim's bucket is told."""
        return storage.Rules(**{name: getattr(self, name) for name in storage.Rules.__dataclass_fields__})

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Each variable and its field."""
        return {PREFIX + name.upper(): name for name in cls.model_fields}


class OperatorSettings(ControlSettings):
    """Settings of `replicator operator`."""

    auto_create: bool = False
    """A claim for every device that names no external storage; else only where the EdgeDevice says createOBC."""
    storage_class: Name = "openshift-storage.noobaa.io"
    """StorageClass of new claims."""
    unregister_grace_s: Number = Field(default=900.0, ge=0, le=7 * 86400)
    """Seconds that a device that leaves may take to send the rest, before its claim is deleted."""
    lease_name: Name = "replicator-operator"
    """Lease by which one of several replicas is the active one."""
    lease_namespace: OptionalName = ""
    """Its namespace; empty is the service account's own."""
    workers: Count = Field(default=8, ge=1, le=64)
    """Devices that are looked at at the same time."""
    resync_s: Number = Field(default=600.0, ge=1, le=86400)
    """Seconds within which every device is looked at again, though nobody told of a change."""
    tell_s: Number = Field(default=60.0, ge=1, le=86400)
    """Seconds between two looks at what the statuses of EdgeWorkloads should say."""


class EdgeApiSettings(ControlSettings):
    """Settings of `replicator edge-api`."""

    edge_listen: ListenAddress = "0.0.0.0:8043"
    """host:port for devices; the port is that of Flotta's Edge API."""
    edge_cert: PemFile = Path("/etc/replicator/edge-api/tls.crt")
    """PEM file of the server's certificate; read again when it changes."""
    edge_key: PemFile = Path("/etc/replicator/edge-api/tls.key")
    """PEM file of its key."""
    edge_ca: PemFile = Path("/etc/replicator/edge-api/ca.crt")
    """PEM file of the authority that signs devices' certificates; no other is trusted."""
    edge_min_tls: Literal["1.2", "1.3"] = "1.3"
    """Oldest TLS that is spoken; Flotta's agents speak 1.3."""
    edge_connections: Count = Field(default=10_000, ge=1, le=1_000_000)
    """Connections at a time, each some 75 KiB; a device keeps one."""
    edge_keepalive_s: Number = Field(default=180.0, gt=0, le=86400)
    """Seconds that a silent connection is kept: above a device's poll, because a handshake is the dear part."""
    edge_rate: Number = Field(default=2.0, gt=0, le=1e6)
    """Requests a second of one device in the long run; an agent of Flotta makes 0.4."""
    edge_burst: Count = Field(default=20, ge=1, le=10_000)
    """Requests of one device that may come at once."""
    edge_reread_s: Number = Field(default=30.0, gt=0, le=3600)
    """Seconds until a Secret or ConfigMap without the watched label is asked for again."""
    edge_watched_labels: str = "bucket-provisioner"
    """Label selector of the Secrets and ConfigMaps that are watched, the one of claims' provisioners; empty: none."""
    sidecar: Literal["off", "container"] = "off"
    """For workloads without the annotation: whether replicator stands in their Pods, instead of their data paths."""
    sidecar_image: str = ""
    """Its image, as devices pull it; without one there are no sidecars."""
    sidecar_volumes_dir: Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9_-][^/]*)+$")] = VOLUMES_DIR
    """Where devices keep exports, a directory a workload; sidecars keep their journals below it."""
    edge_drain_s: Number = Field(default=5.0, ge=0, le=300)
    """Seconds after SIGTERM in which connections are still taken, until every balancer knows."""

    @model_validator(mode="after")
    def _has_an_image(self) -> Self:
        if self.sidecar != "off" and not self.sidecar_image:
            raise ValueError("sidecar needs sidecar_image")
        return self


_Settings = TypeVar("_Settings", bound=ControlSettings)
_KNOWN = OperatorSettings.variables() | EdgeApiSettings.variables()


def load(model: type[_Settings], environ: Mapping[str, str]) -> _Settings:
    """The effective settings of one program. Raises ConfigError; nothing else, whatever the words are."""
    variables = model.variables()
    words = {variables[variable]: value for variable, value in environ.items() if variable in variables}
    if _FLOTTAS_AUTO_CREATE in environ and "auto_create" in model.model_fields:
        words.setdefault("auto_create", environ[_FLOTTAS_AUTO_CREATE])
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in _KNOWN:
            problem = f"there is no such setting{did_you_mean(variable, _KNOWN)}"
            raise ConfigError(where=f"environment {variable}", problem=problem, fix="Correct its name, or remove it")
    try:
        return model.model_validate(words)
    except ValidationError as exc:
        field, problem = explain(exc)
        where = f"environment {PREFIX}{field.upper()}" if field else "settings of the control plane"
        raise ConfigError(where=where, problem=problem, fix="Correct the variable in the Deployment") from None
