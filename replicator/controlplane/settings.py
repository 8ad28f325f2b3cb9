"""Settings of the operator: what it makes, how a claim's endpoint is found, and where it listens.

Each is a variable REPLICATOR_CONTROL_<NAME>; there are no flags, for a Deployment has none. OBC_AUTO_CREATE, Flotta's
own word, is read where auto_create is not set. Anything unknown or out of bounds is one ConfigError.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from replicator.config.fields import Count, ListenAddress, LogLevel, Number
from replicator.config.shapes import Shape, did_you_mean, explain
from replicator.controlplane import storage
from replicator.errors import ConfigError

PREFIX = "REPLICATOR_CONTROL_"

_FLOTTAS_AUTO_CREATE = "OBC_AUTO_CREATE"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
OptionalName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]


class ControlSettings(Shape, use_attribute_docstrings=True):
    """The effective settings. Each docstring's first line is its help."""

    namespace: OptionalName = ""
    """The one namespace that is served; empty serves all."""
    auto_create: bool = False
    """A claim for every device that names no external storage; else only where the EdgeDevice says createOBC."""
    storage_class: Name = "openshift-storage.noobaa.io"
    """StorageClass of new claims."""
    unregister_grace_s: Number = Field(default=900.0, ge=0, le=7 * 86400)
    """Seconds that a device that leaves may take to send the rest, before its claim is deleted."""
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
    ca_secret: OptionalName = "router-ca"  # noqa: S105 -- a name
    """Secret with the authority that signed the endpoint's certificate; empty tells devices none."""
    ca_namespace: Name = "openshift-ingress-operator"
    """Its namespace."""
    ca_key: str = "tls.crt"
    """Which of its keys."""
    lease_name: Name = "replicator-operator"
    """Lease by which one of several replicas is the active one."""
    lease_namespace: OptionalName = ""
    """Its namespace; empty is the service account's own."""
    workers: Count = Field(default=8, ge=1, le=64)
    """Devices that are looked at at the same time."""
    resync_s: Number = Field(default=600.0, ge=1, le=86400)
    """Seconds within which every device is looked at again, though nobody told of a change."""
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
    def storage_rules(self) -> storage.Rules:
        """How a claim's bucket is told."""
        return storage.Rules(**{name: getattr(self, name) for name in _STORAGE_RULES})


_STORAGE_RULES = (
    *("endpoint", "endpoint_host", "endpoint_port", "region", "route_name", "route_namespace"),
    *("ca_secret", "ca_namespace", "ca_key"),
)
VARIABLES: Mapping[str, str] = {PREFIX + name.upper(): name for name in ControlSettings.model_fields}
"""Each variable and its field."""


def load(environ: Mapping[str, str]) -> ControlSettings:
    """The effective settings. Raises ConfigError; nothing else, whatever the words are."""
    words = {VARIABLES[variable]: value for variable, value in environ.items() if variable in VARIABLES}
    if _FLOTTAS_AUTO_CREATE in environ:
        words.setdefault("auto_create", environ[_FLOTTAS_AUTO_CREATE])
    for variable in environ:
        if variable.startswith(PREFIX) and variable not in VARIABLES:
            problem = f"there is no such setting{did_you_mean(variable, VARIABLES)}"
            raise ConfigError(where=f"environment {variable}", problem=problem, fix="Correct its name, or remove it")
    try:
        return ControlSettings.model_validate(words)
    except ValidationError as exc:
        field, problem = explain(exc)
        where = f"environment {PREFIX}{field.upper()}" if field else "settings of the operator"
        raise ConfigError(where=where, problem=problem, fix="Correct the variable in the Deployment") from None
