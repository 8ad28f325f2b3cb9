"""The product's own engine over a real directory and a real journal, driven step by step in one thread.

Everything that runs here is the product: engine, sweeps, queue, workers, settling. What is not: the store (a bucket in
memory), the clock (passed in), and threads, each of whose turns is one call here. Sizes are scaled down, so that every
way a body can go is taken by a few KB.
"""

import asyncio
import contextlib
import io
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from replicator import engine as engine_module
from replicator import report
from replicator.config.settings import load
from replicator.detect import egress_sweep, ingress_sweep, marker, patrol
from replicator.engine import Engine
from replicator.errors import ReplicatorError
from replicator.model import Direction, Hint, Prefix, Storage, Target, TargetOptions
from replicator.observe import logs
from replicator.observe.metrics import Metrics
from replicator.observe.status import ConfigView, Snapshot, to_json
from replicator.stores.files import beneath, openfile, publish, remove, temp
from replicator.stores.files.export import ignore_lease_signals
from replicator.transfer import (
    content,
    egress,
    ingress,
    job,
    outcome,
    pace,
    pull,
    push,
    queue,
    resumable,
    settle,
    turns,
    workers,
)
from tests.model.bucket import Bucket, MemoryStore
from tests.model.faults import Crash, FaultyOs, FaultyStore, Injector, watch_journal

SMALL, PART, RANGED = 512, 2048, 6000
"""Bytes: the largest file of a run, a part, and from where on downloads come in ranges."""

CANARY = "canary-secret-0123456789"

OUT, IN = "out", "in"
SENT, COMING, ECHO = "sent/", "incoming/", "echo/"

_HOT_LOOP = 400


class _NothingDue(Exception):
    """A worker would have to wait."""


class _Inline(ThreadPoolExecutor):
    """Threads whose turn comes at once, so that one seed is one story."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - a crash as well as an error
            future.set_exception(error)
        return future


class _NoLoop:
    """asyncio whose threads are this one."""

    @staticmethod
    async def to_thread(work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


class Clock:
    """Both clocks; they move only when they are told to."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.now_s = 1000.0
        self.wall_s = 1_700_000_000.0

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall_s += seconds

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.wall_s

    def thread_time(self) -> float:
        return 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class _LaterClock(Clock):
    """For the egress sweep: what it looks at was written long ago."""

    def time_ns(self) -> int:
        return time.time_ns() + 10**12


CLOCK = Clock()
_current: list[Injector] = []


@contextlib.contextmanager
def scaled_down() -> Iterator[None]:
    """The seams, for as long as the model runs."""
    ignore_lease_signals()
    with pytest.MonkeyPatch.context() as patch:
        for module in (queue, settle, workers, push, outcome, pull, pace, resumable, job, patrol, marker, report):
            if hasattr(module, "time"):
                patch.setattr(module, "time", CLOCK)
        patch.setattr(egress_sweep, "time", _LaterClock())
        faulty = FaultyOs(lambda: _current[0] if _current else None)
        for room in (temp, publish, beneath, remove, openfile):
            patch.setattr(room, "os", faulty)
        for room in (turns, egress, ingress):
            patch.setattr(room, "SMALL_BYTES", SMALL)
        for room in (pull, ingress):
            patch.setattr(room, "RANGED_FROM_BYTES", RANGED)
        patch.setattr(egress, "_HEAD_FROM_BYTES", SMALL // 2)
        patch.setattr(pull, "RANGE_BYTES", PART)
        patch.setattr(content, "_MIB", 1)
        patch.setattr(pull, "ThreadPoolExecutor", _Inline)
        patch.setattr(resumable, "ThreadPoolExecutor", _Inline)
        for module in (egress_sweep, ingress_sweep, engine_module):
            patch.setattr(module, "asyncio", _NoLoop())
        yield
        _current.clear()


class Process:
    """One replicator after the other over the same state directory; `start`, then steps, then `kill` or `stop`."""

    def __init__(self, home: Path, bucket: Bucket, injector: Injector, *, streams: bool, frees: bool) -> None:
        self.home = home
        self.injector = injector
        self.log = io.StringIO()
        self.puts_off = 0.0
        self._bucket = bucket
        inner = MemoryStore(bucket, streams=streams)
        self.store = FaultyStore(inner, bucket, injector, lambda: CLOCK.advance(10**6))
        settings = load(
            {"state_dir": str(home / "state"), "watcher": "off", "free_space_floor_bytes": "0"}, {}
        ).settings
        self._settings = settings.model_copy(update={"part_size_bytes": PART, "transfers": 2})
        self.targets = (
            self._target(Direction.EGRESS, OUT, SENT, delete_after_upload=frees),
            self._target(Direction.INGRESS, IN, COMING),
            self._target(Direction.EGRESS, IN, ECHO),
        )
        self.engine: Engine | None = None
        _current[:] = [injector]

    def _target(self, direction: Direction, subdir: str, prefix: str, **options: Any) -> Target:
        secret = SecretStr(CANARY)
        storage = Storage("https://here", "bucket", "here", SecretStr("access-key"), secret)
        root = str(self.home / "export")
        return Target("w", direction, root, subdir, Prefix(prefix), storage, TargetOptions(**options), "model")

    def start(self) -> bool:
        """Whether it came up; a crash or a full disk on the way ends it at once."""
        random.seed(1)
        logs.configure(level="info", format="json", stream=self.log)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine_module, "open_store", lambda *_, **__: self.store)
            try:
                self.engine = Engine(self._settings, Metrics())
                watch_journal(self.engine.journal, self.injector)
                self.engine.settling.close()
                self.engine.queue._wait = _nothing_due  # type: ignore[method-assign]
                for target in self.targets:
                    self.run(self.engine.open(target))
            except (Crash, ReplicatorError):
                self.kill()
                return False
        return True

    @staticmethod
    def run(work: Coroutine[Any, Any, Any]) -> Any:
        """Drive what never has to wait."""
        try:
            work.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("it waits for something that never comes")

    def kill(self) -> None:
        """Drop everything that is in memory; what is on its way has no effect any more."""
        engine, self.engine = self.engine, None
        if engine is not None:
            with contextlib.suppress(sqlite3.Error):
                engine.journal._opened.close()
        self.injector.revive()

    def stop(self) -> None:
        """End as after a signal."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.journal.close()

    def sweep(self, number: int) -> None:
        """One sweep of one target."""
        if self.engine is not None:
            one = self.engine.patrols[self.targets[number].id]
            self._guarded(lambda: self.run(one.sweep()))

    def hint(self, number: int, relpath: str, *, is_event: bool) -> None:
        if self.engine is not None:
            lane = self.engine.patrols[self.targets[number].id].lane
            self.engine.queue.put(lane, Hint(relpath), is_event=is_event)

    def work(self, steps: int = _HOT_LOOP) -> int:
        """Let a worker take what is due and settle it, so many times at most; how many there were."""
        for done in range(steps):
            if self.engine is None or not self._guarded(self._step):
                return done
        assert steps < _HOT_LOOP, "work does not end though no time passes"
        return steps

    def _step(self) -> bool:
        engine = self.engine
        assert engine is not None
        try:
            taken = engine.queue.take()
        except _NothingDue:
            return False
        assert taken is not None
        raised, before = self.injector.raised, self.put_off()
        engine.workers._work(*taken)
        engine.settling.run()
        if self.injector.raised > raised:
            assert self.put_off() > before, "an error of the store moved no counter"
        return True

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Crash:
            self.kill()
        except ReplicatorError:  # a journal that cannot be trusted ends the process
            self.kill()
        return None

    def put_off(self) -> float:
        """Attempts that were put off, and jobs that ended well on a second request."""
        assert self.engine is not None
        samples = [sample for metric in self.engine.metrics.retries.collect() for sample in metric.samples]
        return sum(sample.value for sample in samples)

    def snapshot(self) -> Snapshot:
        assert self.engine is not None
        config = ConfigView(source="model", generation=1, valid=True, applied_ts=CLOCK.time())
        return report.snapshot(self.engine, config, is_draining=False)

    def told(self) -> str:
        """Everything that leaves the process: logs, status, metrics, journal."""
        snapshot = self.snapshot()
        assert self.engine is not None
        self.engine.metrics.publish(snapshot)
        state = b"".join(path.read_bytes() for path in sorted((self.home / "state").iterdir()))
        pages = self.engine.metrics.render().decode() + str(to_json(snapshot))
        return self.log.getvalue() + pages + state.decode("latin-1")


def _nothing_due(now_s: float) -> None:
    raise _NothingDue


def quiet_logs() -> None:
    """Give the loggers back to the tests that follow."""
    logging.getLogger().handlers = []
    logging.getLogger("replicator").setLevel(logging.NOTSET)


def room_for_models() -> str:
    """A directory in memory where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
