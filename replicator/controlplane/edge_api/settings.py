"""Settings of the Edge API server: whom it serves, how a claim's endpoint is found, and where it listens.

Each is a variable REPLICATOR_CONTROL_<NAME>; there are no flags, for a Deployment has none. Anything unknown or out of
bounds is one ConfigError. Credentials are in files and in the cluster, never here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from replicator.config.fields import Count, ListenAddress, LogLevel, Number, PemFile
from replicator.config.shapes import Shape, did_you_mean, explain
from replicator.controlplane.storage import Rules
from replicator.errors import ConfigError

PREFIX = "REPLICATOR_CONTROL_"


class EdgeApiSettings(Shape, use_attribute_docstrings=True):
    """The effective settings. Each docstring's first line is its help."""

    namespace: str = ""
    """Namespace whose devices are served; empty: all."""
    edge_listen: ListenAddress = "0.0.0.0:8043"
    """host:port for devices; the port is that of Flotta's Edge API."""
    http_listen: ListenAddress = "127.0.0.1:9478"
    """host:port of /metrics, /healthz and /readyz, without TLS."""
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
    edge_drain_s: Number = Field(default=5.0, ge=0, le=300)
    """Seconds after SIGTERM in which connections are still taken, until every balancer knows."""

    endpoint: Literal["route", "claim", "fixed"] = "route"
    """Where devices reach the bucket of a claim: a Route, what the claim's ConfigMap says, or the fixed host."""
    endpoint_host: str = ""
    """Host for `fixed`."""
    endpoint_port: Count = Field(default=443, ge=1, le=65535)
    """Port for `fixed`."""
    region: str = ""
    """Region told for claims; empty: the claim's own, else none."""
    route_name: str = "s3"
    """Name of the Route to the object store."""
    route_namespace: str = "openshift-storage"
    """Its namespace."""
    ca_secret: str = "router-ca"  # noqa: S105 - a name
    """Secret with the authority of that endpoint; empty: devices trust what they trust anyway."""
    ca_namespace: str = "openshift-ingress-operator"
    """Its namespace."""
    ca_key: str = "tls.crt"
    """Its key."""

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
    def rules(self) -> Rules:
        """How a claim's bucket is told."""
        return Rules(**{name: getattr(self, name) for name in Rules.__dataclass_fields__})


VARIABLES: Mapping[str, str] = {PREFIX + name.upper(): name for name in EdgeApiSettings.model_fields}
"""Each variable and its field."""


def load(environ: Mapping[str, str]) -> EdgeApiSettings:
    """The effective settings. Raises ConfigError; nothing else, whatever the words are."""
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in VARIABLES:
            problem = f"there is no such setting{did_you_mean(variable, VARIABLES)}"
            raise ConfigError(where=f"environment {variable}", problem=problem, fix="Correct its name, or remove it")
    try:
        words = {field: environ[variable] for variable, field in VARIABLES.items() if variable in environ}
        return EdgeApiSettings.model_validate(words)
    except ValidationError as exc:
        field, problem = explain(exc)
        where = f"environment {PREFIX}{field.upper()}" if field else "settings of the Edge API server"
        raise ConfigError(where=where, problem=problem, fix="Correct the variable in the Deployment") from None
