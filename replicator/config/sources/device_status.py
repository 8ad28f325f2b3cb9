"""A report of replication -> the status of the device's EdgeDevice object.

Owns: that a status is written onto the object as it is now, and onto no other of its name. Never: when it is told, what
is in it (`observe.standing`).
Source: Kubernetes' API conventions: a merge patch with a resourceVersion is refused (409) when the object moved.
"""

import dataclasses
import datetime as dt

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import EDGE_DEVICE, Object
from replicator.errors import Conflict
from replicator.observe.standing import Report, as_status

_ATTEMPTS = 5
"""On an object that others write as well: Flotta does once a heartbeat, the operator rarely."""


async def tell(cluster: Cluster, report: Report, *, namespace: str, name: str, uid: str) -> bool:
    """Whether the EdgeDevice of that `uid` has it in its status; False when there is none any more.

    `is_drained` is the source's to grant: to a device that leaves, whose targets it knew. Raises ClusterError: Conflict
    where the object moved each time, Forbidden or Invalid where the status may not be written so.
    """
    for attempts_left in reversed(range(_ATTEMPTS)):
        device = await cluster.get(EDGE_DEVICE, namespace, name)
        if device is None or device["metadata"]["uid"] != uid:
            return False
        try:
            await cluster.patch(EDGE_DEVICE, namespace, name, _change(device, report), subresource="status")
        except Conflict:
            if not attempts_left:
                raise
        else:
            break
    return True


def _change(device: Object, report: Report) -> Object:
    meta = device["metadata"]
    if report.is_drained and (deleted := meta.get("deletionTimestamp")):
        # The drain began after that, whatever the device's own clock says.
        report = dataclasses.replace(report, at_ts=max(report.at_ts, dt.datetime.fromisoformat(deleted).timestamp()))
    status = as_status(report, device.get("status") or {})
    return {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": status}
