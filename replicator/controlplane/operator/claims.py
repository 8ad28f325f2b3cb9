"""Whose a claim is, and how it looks when it is a device's. Pure.

A claim is the device's if it has the device's name, and the device for its owner. One that nobody owns is adopted; one
of somebody else is left alone.
Source: lib-bucket-provisioner's ObjectBucketClaim; Kubernetes' ownerReferences and server-side apply.
"""

import enum
from typing import Any

from replicator.controlplane.operator.reading import Object, mappings, name_of, text, uid_of

OURS = {"app.kubernetes.io/managed-by": "replicator"}
DEVICE_VERSION = "management.project-flotta.io/v1alpha1"
CLAIM_VERSION = "objectbucket.io/v1alpha1"


class Tenure(enum.Enum):
    """Whose the claim of the device's name is."""

    ABSENT = enum.auto()
    OWN = enum.auto()
    UNOWNED = enum.auto()
    OF_PREDECESSOR = enum.auto()
    FOREIGN = enum.auto()


def tenure_of(claim: Object | None, device: Object) -> Tenure:
    if claim is None:
        return Tenure.ABSENT
    owners = mappings(claim, "metadata", "ownerReferences")
    if not owners:
        return Tenure.UNOWNED
    if any(text(owner, "uid") == uid_of(device) for owner in owners):
        return Tenure.OWN
    mine = ("EdgeDevice", name_of(device))
    is_of_name = all((text(owner, "kind"), text(owner, "name")) == mine for owner in owners)
    return Tenure.OF_PREDECESSOR if is_of_name else Tenure.FOREIGN


def new_claim(device: Object, *, storage_class: str) -> Object:
    """A claim for a device that has none."""
    name = name_of(device)
    return _owned(device, {"generateBucketName": name, "storageClassName": storage_class}, labels=OURS)


def adopted(device: Object, claim: Object) -> Object:
    """Our ownership and nothing else: a label may be another's field, and an apply that names it a conflict for ever.

    The words of its spec go along as they are: what an apply of ours once set and leaves out, it would remove.
    """
    words = ("generateBucketName", "storageClassName")
    return _owned(device, {word: text(claim, "spec", word) for word in words if text(claim, "spec", word)})


def _owned(device: Object, spec: Object, *, labels: Object | None = None) -> Object:
    owner = {
        "apiVersion": DEVICE_VERSION,
        "kind": "EdgeDevice",
        "name": name_of(device),
        "uid": uid_of(device),
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata: dict[str, Any] = {
        "name": name_of(device),
        "namespace": text(device, "metadata", "namespace"),
        "ownerReferences": [owner],
    }
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": CLAIM_VERSION, "kind": "ObjectBucketClaim", "metadata": metadata, "spec": spec}
