"""The engine room: journal, queue, workers, limits and stores, and the lanes that run on them.

Owns what lanes share, and opens and closes them. Never: signals, configuration sources, HTTP (the supervisor's), or
what a difference means.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from replicator.config.settings import Settings
from replicator.detect.patrol import Patrol, Rhythm
from replicator.endpoints import Endpoints
from replicator.model import Direction, Storage, Target
from replicator.observe import logs
from replicator.observe.metrics import Metrics
from replicator.stores.files.export import Export
from replicator.stores.journal.journal import Journal
from replicator.stores.lane import Lane
from replicator.stores.objects import ObjectStore
from replicator.stores.s3.engine import open_store
from replicator.stores.s3.network import Limits
from replicator.transfer import egress, ingress
from replicator.transfer.concurrency import Concurrency
from replicator.transfer.gate import SMALL_PER_BULK, Gate
from replicator.transfer.job import Job
from replicator.transfer.limits import ByteBudget, Room
from replicator.transfer.outcome import Means
from replicator.transfer.pace import Bandwidth, DataBudget
from replicator.transfer.publisher import Publisher
from replicator.transfer.queue import Queue
from replicator.transfer.retry import RetryPolicy
from replicator.transfer.settle import Settling
from replicator.transfer.workers import Workers

log = logs.get("engine")

_SPARE_CONNECTIONS = 4
"""For listings and parts beside the whole-object transfers."""


def limits_of(settings: Settings) -> Limits:
    """What settings let a store take of the network, and of time."""
    return Limits(
        connections=settings.transfers + _SPARE_CONNECTIONS,
        connect_timeout_s=settings.connect_timeout_s,
        read_timeout_s=settings.read_timeout_s,
        min_rate_bytes_s=settings.min_rate_bytes_s,
        part_size_bytes=settings.part_size_bytes,
    )


class _Threads(ThreadPoolExecutor):
    """The event loop's threads. Their end waits for nobody: a listing that is never answered must not keep us."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().shutdown(wait=False, cancel_futures=cancel_futures)


class Engine:
    """Everything that moves files. Use as `async with Engine(settings, metrics) as engine`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Raises ConfigError or JournalError when the state directory cannot be used."""
        self.settings = settings
        self.metrics = metrics
        self.started_ts = time.time()
        self.patrols: dict[str, Patrol] = {}
        self.queue = Queue(bulk_bytes=settings.part_size_bytes)
        self.journal = Journal.open(str(settings.state_dir))
        if self.journal.distrust:
            log.error(
                "journal is set aside, a fresh one begins; contents are compared, none deleted",
                reason=self.journal.distrust,
                path=self.journal.set_aside,
                fix="Remove the file once everything is in step; of a damaged one keep a copy for a report.",
            )
        self._policy = RetryPolicy(max_s=settings.retry_max_s, parked_s=settings.parked_retry_s)
        self._endpoints = Endpoints(self._open_store, lambda: Gate(self._policy, Concurrency(self.settings.transfers)))
        self._ingress_by_root: dict[str, list[Lane]] = {}
        self.means = Means(
            part_size_bytes=settings.part_size_bytes,
            min_rate_bytes_s=settings.min_rate_bytes_s,
            quiet_s=settings.debounce_quiet_s,
            open_file_ceiling_s=settings.open_file_ceiling_s,
            resume_after_s=settings.resume_after_s,
            budget=ByteBudget(settings.transfer_memory_bytes),
            room=Room(floor_bytes=settings.free_space_floor_bytes),
            bandwidth=Bandwidth(settings.bandwidth),
            data=DataBudget(settings.data_budget, usage=self.journal),
        )
        self.publisher = Publisher(self.queue, self.means.room, retry_s=settings.sweep_interval_s)
        self.settling = Settling(
            self.queue, self.journal, policy=self._policy, metrics=metrics, on_ended=self.publisher.wake
        )
        # Large files have slots beside the small ones.
        threads = settings.transfers + max(1, settings.transfers // SMALL_PER_BULK)
        self.workers = Workers(self.queue, self.settling, self.publisher, threads=threads, means=self.means)

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_default_executor(_Threads(thread_name_prefix="loop"))
        gc.freeze()  # what is loaded by now lives as long as the process: no need to look at it again and again
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._endpoints.close()
        await asyncio.to_thread(self._close_journal)

    def _close_journal(self) -> None:
        self.means.data.flush()
        self.journal.close()

    async def open(self, target: Target) -> Patrol:
        """Open a lane for the target and mend what a crash left in it. The caller runs the patrol."""
        is_egress = target.direction is Direction.EGRESS
        endpoint = self._endpoints.of(target.storage)
        endpoint.lanes += 1  # before anything is waited for: the last lane may be on its way out
        beside = self._ingress_by_root.setdefault(target.root, [])
        lane = Lane(
            target=target,
            # What ingress replaces is replaced by rename, so that other links to it stay what they are.
            export=Export(target.root, target.subdir, hard_links=target.options.hard_links if is_egress else "allow"),
            objects=endpoint.store,
            journal=self.journal,
            number=self.journal.target(target.identity),
            ingress_beside=beside,
        )
        await asyncio.to_thread((egress if is_egress else ingress).recover, lane)
        if not is_egress:
            beside.append(lane)
        self.queue.add_lane(lane, endpoint.gate.of(target.id))
        self.publisher.add(lane)
        patrol = Patrol(
            lane,
            rhythm=Rhythm(
                watcher=self.settings.watcher,
                sweep_interval_s=self.settings.sweep_interval_s,
                sweep_cpu_share=self.settings.sweep_cpu_share,
                quiet_s=self.settings.debounce_quiet_s,
                ceiling_s=self.settings.debounce_ceiling_s,
            ),
            intake=self.queue,
            admission=endpoint.gate.of(target.id),
            metrics=self.metrics,
        )
        self.patrols[target.id] = patrol
        log.info("target started", target=target.id, origin=target.origin)
        return patrol

    def detach(self, patrol: Patrol) -> None:
        """Take a lane whose patrol has ended out of everything that is seen; `release` it afterwards."""
        lane = patrol.lane
        del self.patrols[lane.target.id]
        self.queue.remove_lane(lane)
        beside = self._ingress_by_root[lane.target.root]
        if lane in beside:
            beside.remove(lane)
        self.metrics.forget_target(lane.target)
        log.info("target stopped", target=lane.target.id)

    async def release(self, lane: Lane) -> None:
        """Let a detached lane's transfers in flight finish, then give up its store."""
        await self.workers.leave(lane)
        await self._endpoints.leave(lane.target.storage)

    def renew(self, targets: Iterable[Target]) -> None:
        """Give running lanes the new words of their bucket, where only credentials, authorities or region changed.

        Queue, watches and all that sweeps know stay, and what was refused is tried again at once.
        """
        for old, patrols in _renewals(self.patrols.values(), targets):
            new = next(iter(patrols.values())).storage
            if new in self._endpoints or len(patrols) != self._endpoints[old].lanes:
                continue  # somebody else counts on one of the stores, such as a lane on its way out
            jobs = [job for patrol in patrols for job in self.queue.jobs(patrol.lane) if job.is_running]
            store = self._endpoints.renew(old, new, is_idle=_idleness(jobs))
            for patrol, target in patrols.items():
                patrol.lane.renew(target, store)
                self.queue.hurry(patrol.lane)
                patrol.hurry()
            log.info("credentials renewed", origin=new.origin, targets=len(patrols))

    def adjust(self, settings: Settings) -> list[str]:
        """Take over what may change while transfers run; the names of what differs and waits for a restart."""
        self.means.bandwidth.replace(settings.bandwidth)
        self.means.data.replace(settings.data_budget)
        now = {"bandwidth": settings.bandwidth, "data_budget": settings.data_budget}
        self.settings = self.settings.model_copy(update=now)
        return [name for name in type(settings).model_fields if getattr(settings, name) != getattr(self.settings, name)]

    @property
    def concurrency(self) -> int:
        """Small files that may be moved at a time now, at the endpoint that bears the most."""
        limits = (gate.concurrency.limit for gate in self._endpoints.gates())
        return max(limits, default=self.settings.transfers)

    def gate(self, target: Target) -> Gate:
        """The gate before the target, behind that of its endpoint."""
        return self._endpoints[target.storage].gate.of(target.id)

    def _open_store(self, storage: Storage) -> ObjectStore:
        limits = limits_of(self.settings)
        return open_store(self.settings.s3_engine, storage, limits, on_request=self.metrics.requested)


def _renewals(patrols: Iterable[Patrol], targets: Iterable[Target]) -> Iterator[tuple[Storage, dict[Patrol, Target]]]:
    """Each storage that all who have it exchange for one other, and the patrols with their new targets."""
    wanted = {target.id: target for target in targets}
    by_storage: dict[Storage, dict[Patrol, Target | None]] = {}
    for patrol in patrols:
        target = wanted.get(patrol.lane.target.id)
        is_renewal = target is not None and target.is_renewal(patrol.lane.target)
        by_storage.setdefault(patrol.lane.target.storage, {})[patrol] = target if is_renewal else None
    for old, found in by_storage.items():
        renewed = {patrol: target for patrol, target in found.items() if target}
        if len(renewed) == len(found) and len({target.storage for target in renewed.values()}) == 1:
            yield old, renewed


def _idleness(jobs: Sequence[Job]) -> Callable[[], bool]:
    """Tells whether none of these runs any more."""
    return lambda: not any(job.is_running for job in jobs)
