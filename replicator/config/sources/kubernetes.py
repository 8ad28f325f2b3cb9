"""The cluster as a source: the device's own objects are watched, and what they say is told once it is new.

Owns: the rhythm: changes are waited for together, silence is noticed, a start does not wait for ever. Never: which
objects count (`watched`), what they say (`moment`), what is told of it and kept (`course`), requests (`cluster`), the
status that a report becomes (`device_status`).
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from replicator.cluster.access import find
from replicator.cluster.client import Cluster
from replicator.config.settings import Settings
from replicator.config.sources import device_status
from replicator.config.sources.course import Course
from replicator.config.sources.follow import SETTLE_S, Snapshot, is_same
from replicator.config.sources.watched import Watched
from replicator.errors import ConfigError
from replicator.model import Target
from replicator.observe.standing import Report

_PATIENCE_S = 5.0
"""A start waits so long for the API server before it goes by what was kept."""
_SILENCE_S = 150.0
"""Without a word for so long the API server is away: an idle watch gets a bookmark a minute."""
_TICK_S = 2.0
"""Between looks at whether it is silent."""
_ROUNDS = 20
"""Then objects that never stand still are taken as they are."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Batch:
    """Snapshots that are told one after the other."""

    snapshots: list[Snapshot]
    is_of_silence: bool
    """The cluster has not said this."""


class KubernetesSource:
    """A device's workloads and bucket, as its cluster tells them."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        settle_s: float = SETTLE_S,
        patience_s: float = _PATIENCE_S,
        silence_s: float = _SILENCE_S,
    ) -> None:
        """Raises ConfigError when no API server is known."""
        self._settings = settings
        self._course = Course(settings, environ)
        self._ended = ""
        """Uid of the device that leaves, once nothing of it runs any more."""
        self._access = find(environ)
        self._namespace = settings.namespace or self._access.namespace
        self._settle_s, self._patience_s, self._silence_s = settle_s, patience_s, silence_s
        is_whole = settings.volumes_dir is not None and not settings.workload
        self.heartbeat_s = settings.kubernetes_heartbeat_s if is_whole else 0.0

    def read(self) -> tuple[Target, ...]:
        """The targets, from the cluster or, where it cannot be asked, as it told them last. Raises ConfigError."""
        snapshot = asyncio.run(self._first())
        if isinstance(snapshot, ConfigError):
            raise snapshot
        return snapshot

    async def changes(self) -> AsyncIterator[Snapshot]:
        """The first snapshot as soon as it is known, then one each time that the cluster tells something new.

        What is wrong in the cluster is no reason to end, not even at the start: there, nothing runs until it is right.
        """
        last: Snapshot | None = None
        async with contextlib.aclosing(self._told()) as batches:
            async for batch in batches:
                for snapshot in batch.snapshots:
                    if last is None and isinstance(snapshot, ConfigError):
                        yield ()
                    if last is None or not is_same(snapshot, last):
                        yield snapshot
                    last = snapshot
                # Whoever asks for more has done what was told, so a device that leaves has been parted with.
                self._ended = self._course.uid if self._course.is_leaving else ""

    async def tell(self, report: Report) -> None:
        """Have it in the device's status. Drained is said of a device that has left, and then nothing of it is kept."""
        course = self._course
        is_drained = report.is_drained and self._ended == course.uid != ""
        if self.heartbeat_s and course.uid:
            report = dataclasses.replace(report, is_drained=is_drained)
            async with Cluster(self._access) as cluster:
                await device_status.tell(cluster, report, namespace=self._namespace, name=course.name, uid=course.uid)
        if is_drained:
            await asyncio.to_thread(course.drained)

    async def _first(self) -> Snapshot:
        async with contextlib.aclosing(self._told()) as batches:
            batch = await anext(batches)
            return batch.snapshots[0 if batch.is_of_silence else -1]

    async def _told(self) -> AsyncGenerator[_Batch]:
        """What is to be told, after changes, and at the beginning of a silence."""
        course, was_silent, is_due = self._course, False, True
        async with Cluster(self._access) as cluster:
            watched = Watched(cluster, self._namespace, self._settings)
            try:
                while True:
                    silence = watched.silence(patience_s=self._patience_s, silence_s=self._silence_s)
                    told: list[Snapshot] | None = []
                    if silence and not was_silent:
                        told = await asyncio.to_thread(
                            course.silent, self._access.server, silence.since_ts, silence.problem
                        )
                    elif not silence and (is_due or was_silent):
                        told = await _heard(course, watched)
                    if told:
                        yield _Batch(told, is_of_silence=silence is not None)
                    was_silent = silence is not None
                    is_due = await _has_changed(watched.changed, settle_s=self._settle_s) or told is None
            finally:
                await watched.close()


async def _heard(course: Course, watched: Watched) -> list[Snapshot] | None:
    """None while it is not all known, and nothing can be told."""
    told = course.gone() if watched.has_seen_end_of(course.uid) else []
    try:
        moment = watched.moment()
    except ConfigError as error:
        # In a thread, because it writes what is kept.
        return told + await asyncio.to_thread(course.refused, watched.sighting(), error)
    return told + await asyncio.to_thread(course.heard, moment) if moment else told or None


async def _has_changed(changed: asyncio.Event, *, settle_s: float) -> bool:
    """Wait until it is worth looking again; whether that is for a change, with all that come with it."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(changed.wait(), _TICK_S)
    is_changed, rounds = changed.is_set(), 0
    while changed.is_set() and rounds < _ROUNDS:
        changed.clear()
        await asyncio.sleep(settle_s)
        rounds += 1
    return is_changed
