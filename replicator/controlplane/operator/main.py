"""`replicator operator`: hears of changes, looks at each device that they touch, and has it carried out.

An event is a hint: it only puts a device's key into the line; what is true is read afresh. Of several replicas the one
that holds the Lease does so; whoever loses it ends, and is started anew by whoever started it.
Never: a decision (`desired`), what a status says of a workload (`fleet`).
"""

import asyncio
import collections
import contextlib
import os
import random
import signal
import socket
import time
import uuid
from datetime import UTC, datetime, timedelta

from replicator.cluster.access import Access, find
from replicator.cluster.client import Cluster
from replicator.cluster.kinds import CLAIM, EDGE_DEVICE, EDGE_DEVICE_SET, EDGE_WORKLOAD, Key
from replicator.cluster.lease import Lease, Timing, held
from replicator.controlplane.operator.desired import REFUSED, plan
from replicator.controlplane.operator.driver import carry_out
from replicator.controlplane.operator.fleet import Fleet
from replicator.controlplane.operator.hearing import Hearing
from replicator.controlplane.operator.line import Line
from replicator.controlplane.operator.look import Look, judge_by
from replicator.controlplane.operator.watching import watch
from replicator.controlplane.operator.world import DRAINING, GOING, Plan, Rules, Unclaim, World
from replicator.controlplane.settings import OperatorSettings
from replicator.controlplane.storage import Reason
from replicator.errors import ClusterError, Conflict, Forbidden, Invalid, Unreachable
from replicator.observe import logs
from replicator.observe.http import serve_pages
from replicator.observe.operator_metrics import OperatorMetrics
from replicator.observe.request import Answer

KINDS = (EDGE_DEVICE, EDGE_DEVICE_SET, CLAIM, EDGE_WORKLOAD)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 300.0
_USUAL_CONFLICTS = 3
"""In a row: others write as well. More of them are a field that somebody else will not part with."""

log = logs.get("operator")


class Operator:
    """All that runs while this replica is the active one."""

    def __init__(self, cluster: Cluster, settings: OperatorSettings, metrics: OperatorMetrics) -> None:
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._look = Look(cluster, settings.rules)
        self._judge = judge_by(settings.rules)
        grace = timedelta(seconds=settings.unregister_grace_s)
        self._rules = Rules(settings.storage_class, settings.auto_create, grace)
        self._line = Line()
        self._fleet = Fleet()
        self._hearing = Hearing(self._line, self._fleet)
        self._failures: dict[Key, int] = {}
        self._standings: dict[Key, str] = {}
        """Of the devices where something is amiss, or that leave."""
        self.is_ready = False

    async def run(self) -> None:
        """For ever. Raises ReplicatorError when it cannot go on."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._settings.workers):
                group.create_task(self._work(), name=f"worker {number}")
            group.create_task(self._tell_workloads(), name="workloads")
            group.create_task(self._resync(), name="resync")
            await watch(
                self._cluster.access,
                KINDS,
                namespace=self._settings.namespace,
                hear=self._hearing.hear,
                ready=self._become_ready,
            )

    def publish(self) -> None:
        """Set the gauges, when somebody asks."""
        self._metrics.devices.set(len(self._hearing))
        self._metrics.waiting.set(len(self._line))
        self._standings = {key: standing for key, standing in self._standings.items() if key in self._hearing}
        counts = collections.Counter(self._standings.values())
        for reason in (*Reason, REFUSED):
            self._metrics.without_bucket.labels(reason).set(counts[reason])
        for step in (DRAINING, GOING):
            self._metrics.leaving.labels(step).set(counts[step])

    def _become_ready(self) -> None:
        self.is_ready = True
        log.info("operator started", source=self._cluster.access.server)

    async def _work(self) -> None:
        while True:
            key = await self._line.take()
            try:
                await self._see_to(key)
            finally:
                self._line.done(key)

    async def _see_to(self, key: Key) -> None:
        """Look at a device and do what is to be done; whatever goes wrong with one never stops the others."""
        began_s = time.monotonic()
        try:
            again_s = await self.reconcile(key)
        except Exception as error:  # noqa: BLE001 -- a fault of ours at one device
            outcome = _outcome(error)
            again_s = self._pause_s(key)
            if not isinstance(error, Conflict) or self._failures[key] > _USUAL_CONFLICTS:
                log.warning("device not looked after", device="/".join(key), error=error, next_attempt_s=round(again_s))
        else:
            outcome = "done"
            self._failures.pop(key, None)
        self._metrics.looks.labels(outcome).inc()
        self._metrics.look_seconds.observe(time.monotonic() - began_s)
        if again_s is not None and key in self._hearing:
            self._line.put(key, after_s=again_s)

    async def reconcile(self, key: Key) -> float | None:
        """One look at one device, and what it leads to; when to look again by itself. Raises ClusterError."""
        world = await self._look.at(key)
        if world.device is None:
            self._hearing.forget(key)
            self._failures.pop(key, None)
            return None
        found = self._plan(world)
        await carry_out(self._cluster, world.device, found)
        for action in found.actions:
            self._metrics.actions.labels(type(action).__name__.lower()).inc()
            if isinstance(action, Unclaim) and action.is_overdue:
                self._metrics.overdue_drains.inc()
        self._standings.pop(key, None)
        if found.standing:
            self._standings[key] = found.standing
        return found.again_s

    def _plan(self, world: World) -> Plan:
        return plan(world, self._rules, self._judge)

    def _pause_s(self, key: Key) -> float:
        """Exponential, with full jitter; short at first, for most failures are a version that moved."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 16)))  # noqa: S311

    async def _resync(self) -> None:
        """Look at every device once a period, spread over it: what no event told, and what is gone unheard."""
        while True:
            await asyncio.sleep(self._settings.resync_s)
            for key in self._hearing.devices:
                self._line.put(key, after_s=random.uniform(0, self._settings.resync_s))  # noqa: S311 -- a spread

    async def _tell_workloads(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tell_s)
            await self.tell_workloads()

    async def tell_workloads(self) -> None:
        """Write what has changed of each workload's sum; what cannot be written is tried again the next time."""
        for key, found, change in list(self._fleet.changes(datetime.now(UTC))):
            try:
                await self._cluster.patch(EDGE_WORKLOAD, *key, change, subresource="status")
            except Conflict:
                continue  # its newer version is on its way to us
            except ClusterError as error:
                log.warning("status of a workload not written", workload="/".join(key), error=error)
            else:
                self._fleet.was_told(key, found)


def _outcome(error: Exception) -> str:
    match error:
        case Conflict():
            return "conflict"
        case Forbidden() | Invalid():
            return "refused"
        case Unreachable():
            return "unreachable"
        case _:
            return "failed"


def main(settings: OperatorSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises ReplicatorError when it cannot go on, as when the Lease is lost."""
    asyncio.run(run(settings, find(os.environ)))


async def run(settings: OperatorSettings, access: Access, *, timing: Timing | None = None) -> None:
    """The same on this event loop."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for word in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, NotImplementedError):  # not the main thread, as in a test
            loop.add_signal_handler(word, stopped.set)
    serving = asyncio.create_task(serve(settings, access, timing=timing), name="operator")
    stopping = asyncio.create_task(stopped.wait(), name="signals")
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not serving.done():
            log.info("operator stops")
            serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def serve(settings: OperatorSettings, access: Access, *, timing: Timing | None = None) -> None:
    """Wait for the Lease, and be the operator while it lasts. Raises LeaseLost."""
    metrics = OperatorMetrics()
    holder = f"{socket.gethostname()}_{uuid.uuid4()}"
    active: list[Operator] = []

    def exposition() -> Answer:
        for operator in active:
            operator.publish()
        return Answer(200, metrics.render(), metrics.content_type)

    def readiness() -> Answer:
        """A replica that waits for its turn is ready for it."""
        is_ready = all(operator.is_ready for operator in active)
        return Answer(200, b"ready\n") if is_ready else Answer(503, b"not watching yet\n")

    pages = {"/healthz": lambda: Answer(200, b"alive\n"), "/readyz": readiness, "/metrics": exposition}
    async with contextlib.AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(Cluster(access))
        if settings.http_listen:
            door = await serve_pages(settings.http_listen, pages)
            stack.push_async_callback(door.close)
            log.info("http server started", address=door.address)
        lease = Lease(
            cluster, settings.lease_namespace or access.namespace, settings.lease_name, holder=holder, timing=timing
        )
        async with held(lease):
            metrics.leader.set(1)
            operator = Operator(cluster, settings, metrics)
            active.append(operator)
            await operator.run()
