"""The rhythm of sweeps: the promised interval, what may stretch it, and doubts. On a clock that jumps."""

import asyncio
import itertools
import random
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from replicator.detect import patrol as rhythm
from replicator.detect.patrol import Patrol, Rhythm
from replicator.detect.sweep import Report
from replicator.errors import BucketMissing, TransferError, Unavailable
from replicator.model import Direction, Hint, Prefix, Storage, Target
from replicator.observe.metrics import Metrics

STORAGE = Storage("http://store", "b", "r", SecretStr("id"), SecretStr("secret"))
TARGET = Target("w", Direction.EGRESS, "/nowhere", "", Prefix("p/"), STORAGE)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that does not wait: when nothing is to be done, its clock jumps to the next timer."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        super().__init__()
        select = self._selector.select  # type: ignore[attr-defined]
        self._selector.select = lambda timeout: select(self._jump(timeout))  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now_s

    def _jump(self, timeout: float | None) -> float:
        assert timeout is not None, "nothing will ever happen"
        self.now_s += timeout
        return 0.0


class ScriptedSweep:
    """Sweeps that take and cost what the test says; `began` are their times since the patrol began."""

    def __init__(self, loop: JumpingLoop) -> None:
        self._loop = loop
        self._start_s = loop.now_s
        self.began: list[float] = []
        self.running = self.most = 0
        self.takes_s = 0.0
        self.report = Report()
        self.error: Unavailable | None = None
        self.hints: list[Hint] = []
        self.then: Callable[[int], None] = lambda _: None
        self.doubts = 0

    def doubt(self) -> None:
        self.doubts += 1

    async def run(self, found) -> Report:
        self.began.append(round(self._loop.now_s - self._start_s, 3))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.takes_s)
        await found(self.hints)
        self.running -= 1
        self.then(len(self.began))
        if self.error:
            raise self.error
        return self.report


class Intake:
    def __init__(self) -> None:
        self.hints: list[Hint] = []

    def put(self, lane, hint: Hint, *, is_event: bool = False) -> bool:
        self.hints.append(hint)
        return True

    async def wait_until(self, *, at_most: int) -> None:
        return None


class Admission:
    def __init__(self) -> None:
        self.losses = 0
        self.error: TransferError | None = None
        self.is_open = True
        self.told: list[str] = []

    def admits(self, now_s: float) -> bool:
        return self.is_open

    def released(self) -> None:
        self.told.append("released")

    def succeeded(self) -> None:
        self.told.append("succeeded")

    def failed(self, key: str, error, now_s: float) -> None:
        self.told.append(error.reason)


class SilentWatcher:
    """A watcher that emits nothing and says of itself what the test wants."""

    def __init__(self) -> None:
        self.health = SimpleNamespace(is_armed=False, is_proven=False, degraded="")

    async def run(self) -> None:
        return None

    def swept(self, directories: int) -> None:
        return None

    def promote(self, relpaths: list[str]) -> None:
        return None


class Stage:
    """A patrol whose watcher, sweeps, clock and gate the test plays."""

    def __init__(self, loop: JumpingLoop, monkeypatch, *, is_egress: bool = True, **changes) -> None:
        self.loop = loop
        self.sweep = ScriptedSweep(loop)
        self.intake, self.admission, self.metrics = Intake(), Admission(), Metrics()
        self.late: dict[str, float] = {}
        """When the object of a path is to be looked at again, by the loop's clock."""
        monkeypatch.setattr(rhythm, "sweep_of", lambda lane: self.sweep)
        times = {"sweep_interval_s": 15.0, "sweep_cpu_share": 0.05, "quiet_s": 0.5, "ceiling_s": 2.0}
        self.patrol = Patrol(
            SimpleNamespace(target=TARGET, is_egress=is_egress, late_due=self.late_due),  # type: ignore[arg-type]
            rhythm=Rhythm(watcher="off", **(times | changes)),
            intake=self.intake,
            admission=self.admission,
            metrics=self.metrics,
        )
        self.patrol.watcher = SilentWatcher()  # type: ignore[assignment]

    def late_due(self, now_s: float) -> list[str]:
        return [relpath for relpath, due_s in self.late.items() if due_s <= now_s]

    def prove(self, *, is_proven: bool = True, degraded: str = "") -> None:
        """Have the watcher say that events arrive, or why not."""
        health = SimpleNamespace(is_armed=True, is_proven=is_proven, degraded=degraded)
        self.patrol.watcher.health = health  # type: ignore[assignment]

    def run_for(self, seconds: float) -> list[float]:
        """When sweeps began in so many seconds."""

        async def run() -> None:
            task = asyncio.create_task(self.patrol.run())
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.loop.run_until_complete(run())
        return self.sweep.began

    def at(self, after_s: float, deed: Callable[[], object]) -> None:
        self.loop.call_later(after_s, deed)


@pytest.fixture
def loop(monkeypatch):
    one = JumpingLoop()
    monkeypatch.setattr(rhythm, "time", SimpleNamespace(monotonic=one.time, time=one.time))
    yield one
    one.close()


@pytest.fixture
def stage(loop, monkeypatch) -> Stage:
    """An egress patrol without jitter."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return Stage(loop, monkeypatch)


def test_sweeps_keep_the_interval_from_beginning_to_beginning(stage):
    """What a sweep takes is part of its interval."""
    stage.sweep.takes_s = 2

    assert stage.run_for(50) == [0, 15, 30, 45]


def test_interval_is_up_to_a_tenth_shorter(loop, monkeypatch):
    """A fleet that starts together does not poll together, and nobody waits longer than promised."""
    stage = Stage(loop, monkeypatch)

    began = stage.run_for(3000)
    pauses = [round(after - before, 3) for before, after in itertools.pairwise(began)]
    assert 13.5 <= min(pauses) < 14 < max(pauses) <= 15


@pytest.mark.fault("G1")
def test_dear_sweep_comes_less_often_while_events_are_proven(stage):
    """3 s of CPU time at a share of 0.05 make a minute between sweeps; status tells the interval in force."""
    stage.prove()
    stage.sweep.report = Report(cpu_s=3.0)

    assert stage.patrol.interval_s == 15  # nothing is known before the first sweep
    assert stage.run_for(130) == [0, 60, 120]
    assert stage.patrol.interval_s == 60


def test_cheap_sweep_keeps_the_interval(stage):
    """Below its share a sweep comes every 15 s, proven events or not."""
    stage.prove()
    stage.sweep.report = Report(cpu_s=0.7)

    assert stage.run_for(40) == [0, 15, 30]


def test_cpu_share_is_a_setting(loop, monkeypatch):
    """Who grants a whole core has the interval kept longer."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    stage = Stage(loop, monkeypatch, sweep_cpu_share=1.0)
    stage.prove()
    stage.sweep.report = Report(cpu_s=20.0)

    assert stage.run_for(45) == [0, 20, 40]


@pytest.mark.parametrize(("is_proven", "degraded"), [(False, ""), (True, "watch limit reached")])
def test_dear_sweep_keeps_the_promise_while_events_are_not_proven(stage, is_proven, degraded):
    """Where nobody vouches for the events, a change is found within 15 s, whatever it costs."""
    stage.prove(is_proven=is_proven, degraded=degraded)
    stage.sweep.report = Report(cpu_s=3.0)

    assert stage.run_for(35) == [0, 15, 30]
    assert stage.patrol.interval_s == 15


def test_events_that_cease_in_a_long_pause_end_it(stage):
    """The proof is looked at every 15 s; without it the next sweep is due at once."""
    stage.prove()
    stage.sweep.report = Report(cpu_s=15.0)
    stage.at(50, lambda: stage.prove(degraded="the canary did not come back"))

    assert stage.run_for(85) == [0, 60, 75]


def test_doubt_is_answered_at_once(stage):
    """A whole-target hint ends the pause, also a long one."""
    stage.prove()
    stage.sweep.report = Report(cpu_s=3.0)
    stage.at(20, lambda: stage.patrol._take(Hint(None)))

    assert stage.run_for(85) == [0, 20, 80]


def test_flood_of_doubts_keeps_a_distance(stage):
    """Doubts without end cost a sweep a second, and of dear ones half a core."""
    for tenth in range(1, 60):
        stage.at(tenth / 10, lambda: stage.patrol._take(Hint(None)))
    assert stage.run_for(4.5) == [0, 1, 2, 3, 4]

    stage.sweep.began.clear()
    stage.sweep.takes_s, stage.sweep.report = 3.0, Report(busy_s=3.0)
    for second in range(1, 40):
        stage.at(second, lambda: stage.patrol._take(Hint(None)))
    began = stage.run_for(25)
    pauses = [round(after - before, 3) for before, after in itertools.pairwise(began)]
    assert pauses == [6.0] * len(pauses)
    assert len(pauses) >= 3


def test_sweep_that_waited_for_the_queue_delays_no_doubt(stage):
    """A first sweep takes as long as its files need; only its work counts for the distance."""
    stage.sweep.takes_s, stage.sweep.report = 3600.0, Report(busy_s=2.0)
    stage.sweep.then = lambda number: setattr(stage.sweep, "takes_s", 0.0)
    stage.at(1800, lambda: stage.patrol._take(Hint(None)))

    assert stage.run_for(3605)[:2] == [0, 3602]


def test_two_sweeps_at_once_follow_each_other(stage):
    """Whoever asks for a sweep while one runs gets its own after it."""
    stage.sweep.takes_s = 5

    async def both() -> None:
        await asyncio.gather(stage.patrol.sweep(), stage.patrol.sweep())

    stage.loop.run_until_complete(both())
    assert (stage.sweep.began, stage.sweep.most) == ([0, 5], 1)


def test_failed_sweep_leaves_the_last_report_and_the_rhythm(stage):
    """An error is shown and told to the gate; what was known stays known, and the next sweep comes in time."""
    stage.sweep.then = lambda number: setattr(stage.sweep, "error", Unavailable("no route") if number == 2 else None)

    assert stage.run_for(20) == [0, 15]
    assert stage.patrol.report is stage.sweep.report
    assert isinstance(stage.patrol.error, Unavailable)
    assert stage.admission.told == ["unavailable"]
    assert stage.run_for(5)[2:] == [20]
    assert stage.patrol.error is None


def test_ingress_asks_the_gate_and_egress_does_not(loop, monkeypatch):
    """With the endpoint closed nothing is listed, but what waits on the disk is known all the same."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    ingress, egress = (Stage(loop, monkeypatch, is_egress=is_egress) for is_egress in (False, True))
    ingress.admission.is_open = egress.admission.is_open = False

    assert ingress.run_for(20) == []
    assert len(egress.run_for(20)) == 2
    ingress.admission.is_open = True
    assert len(ingress.run_for(20)) == 2
    assert ingress.admission.told == ["succeeded", "succeeded"]


def test_changes_that_only_a_sweep_found_are_counted(stage):
    """The running proof of the watcher: what no event had announced, once a first sweep has been and events are on."""
    stage.prove()
    stage.sweep.hints = [Hint("a"), Hint("b")]
    stage.sweep.then = lambda number: stage.patrol._take(Hint("a")) if number == 1 else None
    stage.at(14, lambda: stage.patrol._take(Hint("b")))

    stage.run_for(20)
    found = stage.metrics.sweep_found.labels("w", "egress", TARGET.id)._value.get()
    assert found == 1  # b was announced a second before; of a, the event is long over


def test_path_whose_object_is_to_be_looked_at_is_hinted_once_it_is_due(stage):
    """By the next sweep; it proves nothing about the watcher, for nothing changed on the device."""
    stage.prove()
    stage.late = {"a": stage.loop.time() + 20}

    stage.run_for(16)
    assert stage.intake.hints == []
    stage.run_for(20)
    assert {hint.relpath for hint in stage.intake.hints} == {"a"}
    assert stage.metrics.sweep_found.labels("w", "egress", TARGET.id)._value.get() == 0


def test_bucket_that_was_missing_is_doubted_once_it_answers_until_a_sweep_is_sure(stage):
    """While the gate is closed nothing is asked; then each sweep lists until one has nothing left to ask."""
    stage.run_for(1)
    stage.admission.losses, stage.admission.error = 1, BucketMissing("no such bucket")
    stage.run_for(1)
    assert stage.sweep.doubts == 0

    stage.admission.error = None
    for report in (Report(is_doubtful=True), Report(blocked="no directory"), Report(), Report()):
        stage.sweep.report = report
        stage.run_for(1)

    assert stage.sweep.doubts == 3


def test_failed_look_into_a_loss_is_made_again(stage):
    """A sweep that could not list has answered nothing."""
    stage.admission.losses, stage.sweep.error = 1, Unavailable("no route")
    stage.run_for(1)
    stage.sweep.error = None
    stage.run_for(1)
    stage.run_for(1)

    assert stage.sweep.doubts == 2
