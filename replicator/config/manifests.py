"""The Kubernetes objects that tell a device what to keep in step: EdgeWorkload, EdgeDevice, its set, ConfigMap, Secret.

Owns: their shapes, the decoding of a Secret (one base64 layer), and which devices a workload selects. Unknown keys in
`spec.data`, `spec.deviceSelector` and `spec.storage.s3` are errors; all other foreign fields and kinds pass.
Source: Flotta's custom resources, group management.project-flotta.io; Kubernetes LabelSelector semantics.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic.alias_generators import to_camel

from replicator.config.documents import parse_yaml
from replicator.config.shapes import Shape, Strict
from replicator.errors import ConfigError

_GROUP = "management.project-flotta.io"
_MEMBER_OF = "flotta/member-of"
"""Label of a device: the name of its EdgeDeviceSet, in the same namespace."""


class _Foreign(Shape, alias_generator=to_camel):
    pass


class _Ours(Strict, alias_generator=to_camel):
    pass


class Metadata(_Foreign):
    """An object's name. A namespace left out stands for any: a manifest is often applied with `-n`."""

    name: str = Field(min_length=1)
    namespace: str = ""
    labels: dict[str, str] = Field(default={})


class _Object(_Foreign):
    metadata: Metadata
    _where: str = PrivateAttr(default="")

    def model_post_init(self, context: Any, /) -> None:
        self._where = context or ""

    @property
    def where(self) -> str:
        """The file, and the document in it if there are several, for people."""
        return self._where

    @property
    def full_name(self) -> str:
        return f"{type(self).__name__} {self.metadata.namespace or '(no namespace)'}/{self.metadata.name}"


class DataPath(_Ours):
    """One mapping. Egress: `source` is the directory; ingress: `target` is. The other is in the bucket."""

    source: str
    target: str


class DataSpec(_Ours):
    """The mappings of one workload, each way."""

    egress: tuple[DataPath, ...] = ()
    ingress: tuple[DataPath, ...] = ()


class LabelRequirement(_Ours):
    """One matchExpressions entry of a LabelSelector."""

    key: str = Field(min_length=1)
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _values_fit_operator(self) -> Self:
        if bool(self.values) != (self.operator in ("In", "NotIn")):
            raise ValueError(f"operator {self.operator} {'takes no values' if self.values else 'needs values'}")
        return self

    def is_met_by(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                # A device without the label is "not in" as well: Kubernetes says so.
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class LabelSelector(_Ours):
    """Kubernetes' LabelSelector: all parts must hold, so an empty one selects everything."""

    match_labels: dict[str, str] = Field(default={})
    match_expressions: tuple[LabelRequirement, ...] = ()

    def is_met_by(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.is_met_by(labels) for requirement in self.match_expressions
        )


class _PodTemplate(_Foreign):
    spec: dict[str, Any] = Field(default={})


class _WorkloadSpec(_Foreign):
    device: str = ""
    device_selector: LabelSelector | None = None
    data: DataSpec = DataSpec()
    pod: _PodTemplate = _PodTemplate()


class EdgeWorkload(_Object):
    """A workload, the devices it is for, and its data paths."""

    spec: _WorkloadSpec = _WorkloadSpec()

    def selects(self, device: "EdgeDevice") -> bool:
        """Whether this workload runs on `device`: by `spec.device`, else by selector, else not at all."""
        if not is_same_namespace(self.metadata.namespace, device.metadata.namespace):
            return False
        if self.spec.device:
            return self.spec.device == device.metadata.name
        selector = self.spec.device_selector
        return selector is not None and selector.is_met_by(device.metadata.labels)


class _S3(_Ours):
    config_map_name: str = ""
    secret_name: str = ""
    create_obc: bool = Field(default=False, alias="createOBC")


class _Storage(_Foreign):
    s3: _S3 = _S3()


class _DeviceSpec(_Foreign):
    storage: _Storage = _Storage()


class _DeviceStatus(_Foreign):
    data_obc: str = ""


class EdgeDevice(_Object):
    """A device: its labels, and where its storage is described."""

    spec: _DeviceSpec = _DeviceSpec()
    status: _DeviceStatus = _DeviceStatus()

    @property
    def s3(self) -> _S3:
        return self.spec.storage.s3

    @property
    def member_of(self) -> str:
        """The name of its EdgeDeviceSet; '' when it is in none."""
        return self.metadata.labels.get(_MEMBER_OF, "")


class EdgeDeviceSet(_Object):
    """What a set's devices have in common: its fields stand in the place of theirs."""

    spec: _DeviceSpec = _DeviceSpec()

    @property
    def s3(self) -> _S3:
        return self.spec.storage.s3


class ConfigMap(_Object):
    """A bucket's address, among other uses."""

    data: dict[str, str] = Field(default={})


class Secret(_Object):
    """Its words, as written: `data` in base64, `stringData` plain and stronger."""

    data: dict[str, str] = Field(default={}, repr=False)
    string_data: dict[str, str] = Field(default={}, repr=False)

    def decoded(self, key: str) -> str | None:
        """The word, after exactly one layer of base64; None when there is no such key."""
        if key in self.string_data:
            return self.string_data[key]
        if key not in self.data:
            return None
        try:
            return base64.b64decode("".join(self.data[key].split()), validate=True).decode()
        except (binascii.Error, ValueError):
            fix = f"Encode it once (printf %s VALUE | base64 -w0), or put it under stringData, in {self.where}"
            raise ConfigError(where=f"{self.full_name}: {key}", problem="is not base64 of text", fix=fix) from None


Manifest = EdgeWorkload | EdgeDevice | EdgeDeviceSet | ConfigMap | Secret

_KINDS: dict[str, tuple[str, type[Manifest]]] = {
    "EdgeWorkload": (_GROUP, EdgeWorkload),
    "EdgeDevice": (_GROUP, EdgeDevice),
    "EdgeDeviceSet": (_GROUP, EdgeDeviceSet),
    "ConfigMap": ("", ConfigMap),
    "Secret": ("", Secret),
}


def parse(text: str, *, where: str) -> tuple[Manifest, ...]:
    """The manifests of our kinds in a YAML text of one or more documents; `kind: List` is unfolded."""
    documents = [document for document in parse_yaml(text, where=where) if document is not None]
    found: list[Manifest] = []
    for number, document in enumerate(documents, start=1):
        place = where if len(documents) == 1 else f"{where} document {number}"
        found += _read(document, place)
    return tuple(found)


def _read(document: Any, where: str) -> list[Manifest]:
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        fix = "Write apiVersion, kind and metadata, or move the file elsewhere"
        raise ConfigError(where=where, problem="is not a Kubernetes object: it has no kind", fix=fix)
    if document["kind"] == "List":
        items = document.get("items")
        return [one for item in (items if isinstance(items, list) else []) for one in _read(item, where)]
    group, model = _KINDS.get(document["kind"], ("", None))
    is_foreign = "apiVersion" in document and str(document["apiVersion"]).rpartition("/")[0] != group
    if model is None or is_foreign:
        return []
    return [model.of(document, where=where, fix="Correct the manifest")]


def is_same_namespace(one: str, other: str) -> bool:
    """Whether two namespaces may be one: a manifest that names none fits any."""
    return not one or not other or one == other
