"""Carries a plan out: one request after the other, each of which may be done twice.

A plan that was broken off anywhere is made anew from a fresh look, and ends the same. What was written meanwhile by
others is never overwritten: finalizers and status go with the version that was looked at. Provisioning does not wait
for the right to write a status or an Event. Never: a decision.
Source: Kubernetes' API conventions for finalizers, conditions and Events; server-side apply.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import CLAIM, EDGE_DEVICE, EVENT
from replicator.controlplane.operator.claims import DEVICE_VERSION, OURS
from replicator.controlplane.operator.desired import FINALIZER, REFUSED
from replicator.controlplane.operator.reading import Object, name_of, stamp, text, texts, uid_of
from replicator.controlplane.operator.world import Action, Claim, Hold, Notice, Plan, Release, Unclaim
from replicator.errors import ClusterError, Conflict, Forbidden, Invalid
from replicator.observe import logs

MANAGER = "replicator-operator"

_MESSAGE_CHARS = 1024
"""Of an Event: the API server's own limit."""
_NAME_CHARS = 200

log = logs.get("operator")


async def carry_out(cluster: Cluster, device: Object, plan: Plan) -> None:
    """Do all of it, in order. Raises ClusterError: look again, soon after a Conflict, later after others."""
    place = f"{text(device, 'metadata', 'namespace')}/{name_of(device)}"
    version = text(device, "metadata", "resourceVersion")
    try:
        for action in plan.actions:
            version = await _do(cluster, device, action, version)
            log.info("storage of a device changed", device=place, operation=type(action).__name__.lower())
    except (Forbidden, Invalid) as refusal:
        notice = Notice(REFUSED, f"the API server refused a step for the device's storage: {refusal}")
        await _tell(cluster, device, [notice])
        raise
    if plan.status:
        change = {"metadata": {"resourceVersion": version}, "status": dict(plan.status)}
        try:
            await cluster.patch(EDGE_DEVICE, *_key(device), change, subresource="status")
        except (Forbidden, Invalid) as refusal:
            log.warning("status of a device not written", device=place, error=refusal)
    await _tell(cluster, device, plan.notices)


async def _do(cluster: Cluster, device: Object, action: Action, version: str) -> str:
    """One action; gives the device's version after it."""
    match action:
        case Hold():
            held = [*texts(device, "metadata", "finalizers"), FINALIZER]
            return await _set_finalizers(cluster, device, held, version)
        case Release():
            kept = [one for one in texts(device, "metadata", "finalizers") if one != FINALIZER]
            return await _set_finalizers(cluster, device, kept, version)
        case Claim(wanted):
            await cluster.apply(CLAIM, dict(wanted), manager=MANAGER)
        case Unclaim(name, uid):
            await cluster.delete(CLAIM, text(device, "metadata", "namespace"), name, uid=uid)
    return version


async def _set_finalizers(cluster: Cluster, device: Object, wanted: list[str], version: str) -> str:
    change = {"metadata": {"finalizers": wanted, "resourceVersion": version, "uid": uid_of(device)}}
    return text(await cluster.patch(EDGE_DEVICE, *_key(device), change), "metadata", "resourceVersion")


async def _tell(cluster: Cluster, device: Object, notices: Sequence[Notice]) -> None:
    """Events of these texts, each once for a device: its name is made of what it says."""
    for notice in notices:
        try:
            await cluster.create(EVENT, _event(device, notice, datetime.now(UTC)))
        except Conflict:
            continue  # it is there
        except ClusterError as refusal:
            log.warning("event on a device not written", device=name_of(device), error=refusal)


def _event(device: Object, notice: Notice, now: datetime) -> dict[str, Any]:
    namespace, name = _key(device)
    digest = hashlib.sha256("\0".join((uid_of(device), notice.reason, notice.message)).encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name[:_NAME_CHARS].rstrip('-.')}.{digest}", "namespace": namespace, "labels": OURS},
        "involvedObject": {
            "apiVersion": DEVICE_VERSION,
            "kind": "EdgeDevice",
            "name": name,
            "namespace": namespace,
            "uid": uid_of(device),
        },
        "type": "Warning" if notice.is_warning else "Normal",
        "reason": notice.reason,
        "message": notice.message[:_MESSAGE_CHARS],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": stamp(now),
        "lastTimestamp": stamp(now),
        "count": 1,
    }


def _key(device: Object) -> tuple[str, str]:
    return text(device, "metadata", "namespace"), name_of(device)
