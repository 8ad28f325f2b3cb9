"""The running process: configuration in, engine in the middle, HTTP out, signals, drain, exit.

Owns every long-running task; each is named, and one that returns is a fault that ends the process (the journal makes a
restart cheap). A new configuration is applied by difference; a broken one changes nothing and is shown.
Source: Kubernetes pod lifecycle (SIGTERM, then SIGKILL after the grace period): the drain ends by itself.
"""

import asyncio
import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from replicator import drain, report
from replicator.config.documents import stamps
from replicator.config.settings import Settings
from replicator.config.sources.follow import POLL_S
from replicator.config.sources.source import Source
from replicator.detect.announce import announce
from replicator.detect.patrol import Patrol
from replicator.engine import Engine
from replicator.errors import ConfigError, ReplicatorError
from replicator.explain import explain
from replicator.heartbeat import Heartbeat
from replicator.model import Target
from replicator.observe import http, logs
from replicator.observe.metrics import Metrics
from replicator.observe.notifications import Notice
from replicator.observe.pages import Inbox
from replicator.observe.status import ConfigView, Snapshot
from replicator.stores import heap
from replicator.stores.files.export import ignore_lease_signals

log = logs.get("supervisor")


class Tasks:
    """The long-running tasks by their names. One that returns is a fault that ends the process, unless it may."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tasks

    def complaints(self) -> list[str]:
        return [f"task {name} has ended" for name, task in self._tasks.items() if task.done()]

    def start(
        self,
        group: asyncio.TaskGroup,
        name: str,
        work: Callable[[], Coroutine[Any, Any, None]],
        *,
        may_end: bool = False,
    ) -> None:
        async def guarded() -> None:
            await work()  # made here: a task may be cancelled before it begins
            if may_end:
                self._tasks.pop(name, None)
                return
            raise ReplicatorError(f"task {name} ended by itself, which it never should; restart replicator")

        self._tasks[name] = group.create_task(guarded(), name=name)

    async def end(self, name: str) -> None:
        """Cancel a task and wait for its end; nothing when it has ended so already."""
        if task := self._tasks.pop(name, None):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def cancel(self) -> None:
        """Cancel all that are left."""
        for task in self._tasks.values():
            task.cancel()


class Supervisor:
    """One process that replicates until it is told to stop."""

    def __init__(self, engine: Engine, source: Source, reread: Callable[[], Settings]) -> None:
        """`reread` loads the settings anew: caps and budgets may change while transfers run. Raises ConfigError."""
        self._engine = engine
        self._source = source
        self._reread = reread
        self._config = ConfigView(source=engine.settings.source, generation=0, valid=False)
        self._tasks = Tasks()
        self._heartbeat = Heartbeat(source, self.snapshot, engine.metrics)
        self._is_reread_wanted = asyncio.Event()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()

    async def run(self) -> None:
        """Replicate until SIGTERM or SIGINT, then drain. Raises ConfigError when the first configuration is invalid."""
        changes = self._source.changes()
        first = await anext(changes)
        if isinstance(first, ConfigError):
            raise first
        async with self._serving(), asyncio.TaskGroup() as group:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.stop, number)
            self._tasks.start(group, "workers", self._engine.workers.run)
            await self._apply(first, group)
            self._tasks.start(group, "configuration", functools.partial(self._follow, changes, group))
            self._tasks.start(group, "settings", self._follow_settings)
            self._tasks.start(group, "heartbeat", self._heartbeat.run)
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._is_reread_wanted.set)
            await self._stop.wait()
            await self._drain(group)
            await self._heartbeat.last()
            self._tasks.cancel()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Begin the drain; a second call ends it."""
        log.info("signal received", signal=signal.Signals(number).name)
        (self._stop_now if self._stop.is_set() else self._stop).set()

    def snapshot(self) -> Snapshot:
        """Everything at this moment, as people see it."""
        return report.snapshot(self._engine, self._config, is_draining=self._stop.is_set())

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        listen = self._engine.settings.http_listen
        if not listen:
            yield
            return
        server = await http.serve(
            listen,
            snapshot=self.snapshot,
            metrics=self._engine.metrics,
            complaints=self._tasks.complaints,
            inbox=_inbox(self._engine),
            explain=functools.partial(explain, self._engine),
        )
        log.info("listening", address=server.address)
        try:
            yield
        finally:
            await server.close()

    async def _follow(self, changes: AsyncIterator[tuple[Target, ...] | ConfigError], group: asyncio.TaskGroup) -> None:
        async for change in changes:
            if isinstance(change, ConfigError):
                self._config = dataclasses.replace(self._config, valid=False, error=str(change))
                log.error("configuration rejected, the last good one stays in force", error=change)
            else:
                await self._apply(change, group)

    async def _follow_settings(self) -> None:
        """Read the settings again when their file changes, and on SIGHUP."""
        config = self._engine.settings.config
        paths = [config] if config else []
        while True:
            self._is_reread_wanted.clear()
            mark = await asyncio.to_thread(stamps, paths)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_reread_wanted.wait(), POLL_S if paths else None)
            if not self._is_reread_wanted.is_set() and await asyncio.to_thread(stamps, paths) == mark:
                continue
            try:
                waiting = self._engine.adjust(await asyncio.to_thread(self._reread))
            except ConfigError as error:
                log.error("settings rejected, the last good ones stay in force", error=error)
            else:
                log.info("settings read again", waiting=", ".join(waiting))

    async def _apply(self, targets: tuple[Target, ...], group: asyncio.TaskGroup) -> None:
        """Bring the running lanes to the wanted ones; those whose target did not change notice nothing."""
        self._engine.renew(targets)
        wanted = {target.id: target for target in targets}
        await self._tasks.end("departure")
        parting = [patrol for id_, patrol in self._engine.patrols.items() if id_ not in wanted]
        left = await drain.part(self._engine, parting, self._end_patrol)
        if wanted or drain.is_sent(left):
            drain.tell_left(self._engine, parting)
            self._heartbeat.part(left)
            for patrol in list(self._engine.patrols.values()):
                id_ = patrol.lane.target.id
                if wanted.get(id_) != patrol.lane.target or f"patrol {id_}" not in self._tasks:
                    await self._detach(patrol, group)
        else:
            self._tasks.start(group, "departure", functools.partial(self._depart, parting, group), may_end=True)
        # All are open before the first one looks: egress knows the files of ingress by the lanes beside it.
        opened = [await self._engine.open(target) for target in targets if target.id not in self._engine.patrols]
        for patrol in opened:
            self._tasks.start(group, f"patrol {patrol.lane.target.id}", patrol.run)
        new = self._config.generation + 1
        self._config = dataclasses.replace(self._config, generation=new, valid=True, error="", applied_ts=time.time())
        self._heartbeat.applied(wanted)
        log.info("configuration applied", generation=self._config.generation, targets=len(targets))

    async def _depart(self, patrols: Sequence[Patrol], group: asyncio.TaskGroup) -> None:
        """Nothing is wanted any more, and not all is sent: go on until it is, or until something else is told."""
        log.info("device leaves, and goes on sending", pending_files=len(self._engine.queue))
        left = await drain.send_all(self._engine, patrols, self._end_patrol)
        self._heartbeat.part(left)
        for patrol in patrols:
            await self._detach(patrol, group)
        self._heartbeat.applied(())

    async def _detach(self, patrol: Patrol, group: asyncio.TaskGroup) -> None:
        await self._end_patrol(patrol.lane.target.id)
        self._engine.detach(patrol)
        group.create_task(self._engine.release(patrol.lane), name=f"release {patrol.lane.target.id}")

    async def _drain(self, group: asyncio.TaskGroup) -> None:
        """Stop intake, look once more at every egress target, send what is settled; report what is left."""
        await self._tasks.end("configuration")
        await self._tasks.end("departure")
        all_of_them = list(self._engine.patrols.values())
        await drain.end_intake(self._engine, all_of_them, self._end_patrol)
        rest = drain.send_the_rest(self._engine, all_of_them, self._end_patrol)
        sending = group.create_task(rest, name="drain")
        skip = group.create_task(self._stop_now.wait(), name="second-signal")
        await asyncio.wait(
            {sending, skip}, timeout=self._engine.settings.drain_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        sending.cancel()
        skip.cancel()
        drain.tell_left(self._engine, all_of_them)
        log.info("drained", pending_files=len(self._engine.queue))

    async def _end_patrol(self, id_: str) -> None:
        await self._tasks.end(f"patrol {id_}")


def _inbox(engine: Engine) -> Inbox | None:
    """Where event notifications go, if anywhere."""
    if not engine.settings.notifications:
        return None
    logs.hide(engine.settings.notifications_token)

    def take(notice: Notice) -> None:
        announce(notice, engine.patrols.values(), waiting_jobs=len(engine.queue), metrics=engine.metrics)

    return Inbox(engine.settings.notifications_token, take)


def main(settings: Settings, source: Source, *, reread: Callable[[], Settings]) -> None:
    """`replicator run`: ends normally only after a signal. Raises ConfigError or JournalError."""
    ignore_lease_signals()
    heap.keep_small()
    try:
        asyncio.run(_run(settings, source, reread))
    except* ReplicatorError as errors:
        raise _first(errors) from errors


async def _run(settings: Settings, source: Source, reread: Callable[[], Settings]) -> None:
    async with Engine(settings, Metrics()) as engine:
        await Supervisor(engine, source, reread).run()


def _first(errors: BaseExceptionGroup[ReplicatorError]) -> ReplicatorError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ReplicatorError)  # noqa: S101 - what except* selected
    return error
