"""Which kinds our API server knows: some built in, ours, and every CustomResourceDefinition in config/crd."""

import copy
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.apiserver.rules import Object, refuse

CRDS = Path(__file__).parents[2] / "config" / "crd"


@dataclass(frozen=True)
class Resource:
    """One kind as discovery shows it."""

    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool = True
    has_status: bool = False
    short_names: tuple[str, ...] = ()
    schema: Object | None = field(default=None, compare=False, hash=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def is_custom(self) -> bool:
        return "." in self.group and not self.group.endswith("k8s.io")

    @cached_property
    def _validator(self) -> Any:
        from jsonschema import Draft202012Validator

        return Draft202012Validator(_as_json_schema(self.schema))

    def admitted(self, obj: Object) -> Object:
        """`obj` as it would be stored: unknown fields dropped, defaults filled in, checked against the schema."""
        if self.schema is None:
            return obj
        obj = copy.deepcopy(obj)
        _prune(obj, self.schema, is_root=True)
        faults = sorted(self._validator.iter_errors(obj), key=lambda fault: list(map(str, fault.absolute_path)))
        if faults:
            told = "; ".join(f"{'.'.join(map(str, one.absolute_path)) or '<root>'}: {one.message}" for one in faults)
            name = obj["metadata"].get("name", "")
            refuse(422, "Invalid", f'{self.kind}.{self.group} "{name}" is invalid: {told}')
        return obj


BUILT_IN = (
    Resource("", "v1", "namespaces", "Namespace", is_namespaced=False, has_status=True, short_names=("ns",)),
    Resource("", "v1", "configmaps", "ConfigMap", short_names=("cm",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "events", "Event", short_names=("ev",)),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("route.openshift.io", "v1", "routes", "Route", has_status=True),
    Resource(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", is_namespaced=False
    ),
)

_FLOTTA = "management.project-flotta.io"
_OURS = (
    Resource(_FLOTTA, "v1alpha1", "edgedevices", "EdgeDevice", has_status=True),
    Resource(_FLOTTA, "v1alpha1", "edgedevicesets", "EdgeDeviceSet", has_status=True),
    Resource(_FLOTTA, "v1alpha1", "edgeworkloads", "EdgeWorkload", has_status=True),
    Resource("objectbucket.io", "v1alpha1", "objectbucketclaims", "ObjectBucketClaim", has_status=True),
)


@cache
def known(crds: Path | None = CRDS) -> dict[tuple[str, str, str], Resource]:
    """Every resource by (group, version, plural); what a definition in `crds` says stands for our short form."""
    found = {(one.group, one.version, one.plural): one for one in (*BUILT_IN, *_OURS)}
    for path in sorted(crds.glob("*.yaml")) if crds else ():
        for document in yaml.safe_load_all(path.read_text()):
            if (document or {}).get("kind") == "CustomResourceDefinition":
                found |= {(one.group, one.version, one.plural): one for one in _defined(document["spec"])}
    return found


def _defined(spec: Object) -> list[Resource]:
    names = spec["names"]
    return [
        Resource(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            is_namespaced=spec["scope"] == "Namespaced",
            has_status="status" in (version.get("subresources") or {}),
            short_names=tuple(names.get("shortNames") or ()),
            schema=version["schema"]["openAPIV3Schema"],
        )
        for version in spec["versions"]
    ]


def _prune(value: Any, schema: Object, *, is_root: bool = False) -> None:
    """Drop what the schema does not know and fill in defaults, in place."""
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            _prune(item, schema["items"])
    if not isinstance(value, dict):
        return
    fields, rest = schema.get("properties") or {}, schema.get("additionalProperties")
    checked = set(value) - ({"apiVersion", "kind", "metadata"} if is_root else set())
    for name in checked:
        inner = fields.get(name, rest if isinstance(rest, dict) else None)
        is_open = schema.get("x-kubernetes-preserve-unknown-fields") or rest is True
        has_default = inner is not None and "default" in inner and not inner.get("nullable")
        if (inner is None and not is_open) or (value[name] is None and has_default):
            del value[name]
    for name, inner in fields.items():
        if name not in value and "default" in inner:
            value[name] = copy.deepcopy(inner["default"])
    for name in checked & set(value):
        inner = fields.get(name, rest)
        if isinstance(inner, dict):
            _prune(value[name], inner)


def _as_json_schema(schema: Any) -> Any:
    """The OpenAPI v3 schema in the words of JSON Schema; rules in CEL are not evaluated."""
    if isinstance(schema, list):
        return [_as_json_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        name: {key: _as_json_schema(inner) for key, inner in value.items()}
        if name in {"properties", "patternProperties"}
        else value
        if name in {"enum", "default", "required", "example"}
        else _as_json_schema(value)
        for name, value in schema.items()
        if not name.startswith("x-") and name not in {"nullable", "format", "description"}
    }
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if schema.get("nullable") and "type" in result:
        kinds = result["type"] if isinstance(result["type"], list) else [result["type"]]
        result["type"] = [*kinds, "null"]
    return result
