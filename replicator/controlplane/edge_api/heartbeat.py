"""Heartbeats of devices -> the status of their EdgeDevice, as one merge patch each.

Owns: what of a heartbeat is taken, and how often the API server is bothered. A status that cannot be written is told
and dropped: the next heartbeat has it. One exception: that a device has drained is answered only once it is written,
since its bucket waits for that word.
Source: Flotta's heartbeat; workloads are entered into a status by Flotta, and only their last upload is ours.
"""

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from replicator.cluster.client import Cluster
from replicator.cluster.kinds import EDGE_DEVICE, Key, Object, key_of, uid_of, version_of
from replicator.controlplane.edge_api.outage import Outage
from replicator.errors import ClusterError, Conflict
from replicator.observe import logs
from replicator.observe.edge_metrics import EdgeMetrics
from replicator.observe.standing import Report, as_status, from_json

_LEAST_S = 10.0
"""Between two patches of one device."""
_SIGN_OF_LIFE_S = 300.0
"""A status that says the same is written as often, so that its age tells that the device lives."""
_MAX_WORKLOADS = 1000

_log = logs.get("edge-api")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What of one is taken."""

    report: Report | None
    uploads: Mapping[str, str]
    """By workload: when it last uploaded."""

    @classmethod
    def of(cls, content: object) -> "Heartbeat":
        """Raises ValueError, which quotes nothing, for no heartbeat."""
        if not isinstance(content, dict):
            raise _bad("content")
        workloads = content.get("workloads") or []
        if not isinstance(workloads, list) or len(workloads) > _MAX_WORKLOADS:
            raise _bad("workloads")
        uploads = {}
        for workload in workloads:
            if not isinstance(workload, dict) or not isinstance(workload.get("name"), str):
                raise _bad("workloads.name")
            if (upload := workload.get("last_data_upload")) and (moment := _time(upload)):
                uploads[workload["name"]] = moment
        report = content.get("replication")
        return cls(None if report is None else from_json(report), uploads)

    @property
    def is_drained(self) -> bool:
        return self.report is not None and self.report.is_drained

    def patch(self, device: Object, *, now_ts: float) -> dict[str, Any]:
        """The merge patch of the device's status; empty without news. Our time counts: a device's clock may be off."""
        previous = device.get("status") or {}
        patch = as_status(replace(self.report, at_ts=now_ts), previous) if self.report else {}
        listed = previous.get("workloads") or []
        told = [
            one | {"lastDataUpload": self.uploads[one["name"]]} if one.get("name") in self.uploads else one
            for one in patch.get("workloads", listed)
        ]
        return patch | ({"workloads": told} if told != listed else {})


class Heartbeats:
    """Takes what devices tell of themselves."""

    def __init__(
        self,
        cluster: Cluster,
        metrics: EdgeMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster, self._metrics = cluster, metrics
        self._clock, self._now, self._sleep = clock, now, sleep
        self._outage = Outage()
        self._written: dict[Key, tuple[float, Mapping[str, Any]]] = {}
        """When a device's status was written last, and what it said, without its times."""
        self._deferred: dict[Key, Heartbeat] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, device: Object, heartbeat: Heartbeat) -> bool:
        """Whether the device may take it for told."""
        key = key_of(device)
        if self._is_same(key, _said(heartbeat.patch(device, now_ts=self._now()), device)):
            self._metrics.heartbeats.labels("same").inc()
            return True
        wait_s = self._wait_s(key)
        if wait_s > 0 and not heartbeat.is_drained:
            self._defer(key, heartbeat, wait_s)
            return True
        return await self._write(key, device, heartbeat) or not heartbeat.is_drained

    def forget(self, key: Key) -> None:
        self._written.pop(key, None)

    async def finish(self) -> None:
        """Give up what is deferred: devices tell it again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _is_same(self, key: Key, said: Mapping[str, Any]) -> bool:
        written_s, before = self._written.get(key, (0.0, None))
        return said == before and self._clock() - written_s < _SIGN_OF_LIFE_S

    def _wait_s(self, key: Key) -> float:
        if key not in self._written:
            return 0.0
        return self._written[key][0] + _LEAST_S - self._clock()

    def _defer(self, key: Key, heartbeat: Heartbeat, wait_s: float) -> None:
        self._metrics.heartbeats.labels("deferred").inc()
        is_waiting = key in self._deferred
        self._deferred[key] = heartbeat
        if not is_waiting:
            task = asyncio.create_task(self._write_later(key, wait_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _write_later(self, key: Key, wait_s: float) -> None:
        try:
            await self._sleep(wait_s)
        finally:
            heartbeat = self._deferred.pop(key)
        await self._write(key, None, heartbeat)

    async def _write(self, key: Key, device: Object | None, heartbeat: Heartbeat) -> bool:
        try:
            said = await self._patched(key, device, heartbeat)
        except ClusterError as exc:
            # A failed attempt counts for the rhythm, too: an API server in trouble is not asked more often.
            self._written[key] = self._clock(), {}
            self._metrics.heartbeats.labels("failed").inc()
            if self._outage.begins():
                _log.warning("status not written", device="/".join(key), code=exc.status, error=exc)
            return False
        self._written[key] = self._clock(), said
        if self._outage.ends():
            _log.info("status written again", device="/".join(key))
        self._metrics.heartbeats.labels("written").inc()
        return True

    async def _patched(self, key: Key, device: Object | None, heartbeat: Heartbeat) -> Mapping[str, Any]:
        """What the status says now. A conflict is tried once more, on a fresh object. Raises ClusterError."""
        namespace, name = key
        device = device or await self._cluster.get(EDGE_DEVICE, namespace, name)
        if device is None:
            return {}
        status = heartbeat.patch(device, now_ts=self._now())
        if not status:
            return {}
        change = {"metadata": {"resourceVersion": version_of(device)}, "status": status}
        try:
            await self._cluster.patch(EDGE_DEVICE, namespace, name, change, subresource="status")
        except Conflict:
            fresh = await self._cluster.get(EDGE_DEVICE, namespace, name)
            if fresh is None or version_of(fresh) == version_of(device):
                raise
            status = heartbeat.patch(fresh, now_ts=self._now())
            change = {"metadata": {"resourceVersion": version_of(fresh)}, "status": status}
            await self._cluster.patch(EDGE_DEVICE, namespace, name, change, subresource="status")
        return _said(status, device)


def _time(text: object) -> str:
    """RFC 3339 in UTC and whole seconds, as the API server stores it; '' for Go's zero, which is none."""
    try:
        moment = dt.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _bad("workloads.last_data_upload")
    return "" if moment.year == 1 else moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _bad(field: str) -> ValueError:
    return ValueError(f"not a heartbeat: {field}")


def _said(status: Mapping[str, Any], device: Object) -> dict[str, Any]:
    """What a status says of which device, but for when; that it has drained is a time there, and a word here."""
    replication = dict(status.get("replication") or {})
    is_drained = replication.pop("drainedAt", None) is not None
    for name in ("reportedAt", "oldestPendingSeconds"):
        replication.pop(name, None)
    uploads = [(one.get("name"), one.get("lastDataUpload")) for one in status.get("workloads") or ()]
    return {"uid": uid_of(device), "replication": replication, "is_drained": is_drained, "uploads": uploads}
