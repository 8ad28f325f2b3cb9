"""The kinds of objects that we speak of, and where they lie at the API server. Pure.

Source: Kubernetes API concepts, resource URIs: the core beneath /api/v1, all others beneath /apis/<group>/<version>.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Object = dict[str, Any]
"""An object as the API server gives it."""

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of namespaced objects; `group` is empty for the core."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """What stands in the objects' `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of one object, or without a name of all in `namespace`; "" = of every namespace."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [self.plural, *([name] if name else []), *([subresource] if subresource else [])]
        return "/" + "/".join(quote(part, safe="") for part in parts)


_FLOTTA = "management.project-flotta.io"

EDGE_DEVICE = Kind(_FLOTTA, "v1alpha1", "edgedevices", "EdgeDevice")
EDGE_DEVICE_SET = Kind(_FLOTTA, "v1alpha1", "edgedevicesets", "EdgeDeviceSet")
EDGE_WORKLOAD = Kind(_FLOTTA, "v1alpha1", "edgeworkloads", "EdgeWorkload")
CLAIM = Kind("objectbucket.io", "v1alpha1", "objectbucketclaims", "ObjectBucketClaim")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
SECRET = Kind("", "v1", "secrets", "Secret")
EVENT = Kind("", "v1", "events", "Event")
ROUTE = Kind("route.openshift.io", "v1", "routes", "Route")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")


def key_of(obj: Object) -> Key:
    meta = obj.get("metadata") or {}
    return meta.get("namespace", ""), meta.get("name", "")


def uid_of(obj: Object) -> str:
    """Which object it is: one that is made again under the same name has another."""
    return str((obj.get("metadata") or {}).get("uid", ""))


def version_of(obj: Object) -> str:
    return str((obj.get("metadata") or {}).get("resourceVersion", ""))


def is_older(one: str, other: str) -> bool:
    """Whether resourceVersion `one` came before `other`; False where they cannot be compared.

    Source: Kubernetes API concepts: within one kind they are decimal numbers that grow.
    """
    return one.isdecimal() and other.isdecimal() and int(one) < int(other)
