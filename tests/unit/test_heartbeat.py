"""When the control plane is told, what it is told of targets that ended, and that nothing waits for it."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from replicator import drain, heartbeat
from replicator.errors import ConfigError
from replicator.heartbeat import Heartbeat
from replicator.model import Direction
from replicator.observe.metrics import Metrics
from replicator.observe.standing import Report, Stand, Standing
from replicator.observe.status import ConfigView, Snapshot, State, TargetView
from tests.waiting import eventually

HOUR_S = 3600.0
SENT = Standing("w", Stand.SYNCED, last_upload_ts=5.0)
LEFT = Standing("w", Stand.LAGGING, pending_files=2, pending_bytes=20)


def view_of(id_="w/egress/a", **changes) -> TargetView:
    plain = TargetView(id_, "w", Direction.EGRESS, "a/", "/export/a", "s3://b/a/", "https://s3", "test", State.IN_STEP)
    return dataclasses.replace(plain, **changes)


def snapshot_of(*views: TargetView) -> Snapshot:
    config = ConfigView(source="env", generation=1, valid=True)
    return Snapshot("1", 9.0, 0.0, False, True, (), config, 0, 1, 0, None, views)


class Scene:
    """A heartbeat, who is told, and the state of the device."""

    def __init__(self) -> None:
        self.heartbeat_s = HOUR_S
        self.views: tuple[TargetView, ...] = (view_of(),)
        self.looks = 0
        self.told: list[Report] = []
        self.fault: ConfigError | None = None
        self.metrics = Metrics()

    async def tell(self, report: Report) -> None:
        if self.fault:
            raise self.fault
        self.told.append(report)

    def read(self):
        raise NotImplementedError

    def changes(self):
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        self.looks += 1
        return snapshot_of(*self.views)

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(self, self.snapshot, self.metrics, look_s=0.002)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Heartbeat]:
        one = self.heartbeat()
        task = asyncio.create_task(one.run())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def looked(self, times: int = 5) -> None:
        """Wait until the state was looked at so often again."""
        seen = self.looks
        await eventually(lambda: self.looks >= seen + times)

    def count(self, outcome: str) -> float:
        samples = [s for metric in self.metrics.heartbeats.collect() for s in metric.samples]
        return sum(s.value for s in samples if s.labels["outcome"] == outcome and s.name.endswith("_total"))


@pytest.fixture
def scene() -> Scene:
    return Scene()


# When


async def test_told_at_the_start_and_then_not_before_the_period(scene):
    """One report, however often the state is looked at meanwhile."""
    async with scene.running():
        await scene.looked(10)

        assert [report.state for report in scene.told] == [Stand.SYNCED]
        assert scene.count("told") == 1


async def test_told_every_period(scene):
    """The same state is told again when the period is over."""
    scene.heartbeat_s = 0.01
    async with scene.running():
        await eventually(lambda: len(scene.told) >= 3)


async def test_told_when_the_state_is_another_one(scene, monkeypatch):
    """A state word that changes does not wait for the period."""
    monkeypatch.setattr(heartbeat, "_SOONEST", 0.0)
    async with scene.running():
        await eventually(lambda: scene.told)
        scene.views = (view_of(state=State.BLOCKED, cause="access-denied"),)
        await eventually(lambda: len(scene.told) == 2)

        assert scene.told[1].standings == (Standing("w", Stand.BLOCKED, "access-denied"),)
        await scene.looked()
        assert len(scene.told) == 2


async def test_state_that_comes_and_goes_makes_no_flood(scene):
    """Within a quarter of the period a change is not told at once."""
    async with scene.running():
        await eventually(lambda: scene.told)
        scene.views = (view_of(state=State.BEHIND),)
        await scene.looked()

        assert len(scene.told) == 1


async def test_told_at_once_after_another_configuration(scene):
    """Whoever waits for the end of targets need not wait for the period."""
    async with scene.running() as one:
        await eventually(lambda: scene.told)
        scene.views = ()
        one.part({"w/egress/a": SENT})
        one.applied(())
        await eventually(lambda: len(scene.told) == 2)

        assert scene.told[1].is_drained


async def test_source_that_tells_nobody_is_left_alone(scene):
    """Without a period nothing is looked at but after a configuration, and nothing is counted."""
    scene.heartbeat_s = 0.0
    async with scene.running() as one:
        await eventually(lambda: scene.looks == 1)
        one.applied(("w/egress/a",))
        await eventually(lambda: scene.looks == 2)
        await one.last()

        assert (scene.looks, scene.count("told")) == (2, 0)


async def test_outage_is_one_warning_and_ends_with_one_line(scene, caplog):
    """It is tried again and again, counted each time, and the warning comes once an outage."""
    caplog.set_level(logging.INFO, logger="replicator")
    scene.heartbeat_s = 0.01
    scene.fault = ConfigError(where="https://edge", problem="does not take the heartbeat (500)", fix="Wait")
    async with scene.running():
        await eventually(lambda: scene.count("failed") >= 3)
        scene.fault = None
        await eventually(lambda: scene.told)

    lines = [record.getMessage() for record in caplog.records if record.name == "replicator.heartbeat"]
    assert [line.split(",")[0].split("  ")[0] for line in lines] == [
        "control plane cannot be told",
        "control plane is told again",
    ]


async def test_last_report_is_told_and_waits_for_nobody(scene, monkeypatch):
    """At the end one more is told; who does not answer in time does not keep the process."""
    monkeypatch.setattr(heartbeat, "_LAST_S", 0.01)
    one = scene.heartbeat()
    await one.last()
    assert len(scene.told) == 1

    async def never(_: Report) -> None:
        await asyncio.Event().wait()

    scene.tell = never
    await asyncio.wait_for(one.last(), 20)


# What


def ended(scene: Scene, left: dict[str, Standing], wanted: tuple[str, ...] = ()) -> Report:
    one = scene.heartbeat()
    one.part(left)
    one.applied(wanted)
    return one.report()


def test_drained_is_when_nothing_runs_and_nothing_is_left(scene):
    """A target that runs, or one that ended with files left, is no proof."""
    running, scene.views = scene.views, ()

    assert ended(scene, {"w/egress/a": SENT}).is_drained
    assert not ended(scene, {"w/egress/a": SENT, "w/egress/b": LEFT}).is_drained
    scene.views = running
    assert not ended(scene, {"w/egress/b": SENT}).is_drained


def test_workload_that_ended_is_told_with_what_is_left(scene):
    """Its files and its last upload are still there when nothing of it runs."""
    scene.views = ()

    assert ended(scene, {"w/egress/a": SENT, "w/egress/b": LEFT}).standings == (
        dataclasses.replace(LEFT, last_upload_ts=5.0),
    )


def test_debt_of_an_ended_target_is_remembered_and_its_success_is_not(scene):
    """While others run, of those that ended only what they left is told."""
    scene.views = (view_of("x/egress/a", workload="x"),)
    ids = ("x/egress/a",)

    names = [one.workload for one in ended(scene, {"w/egress/a": SENT}, ids).standings]
    assert names == ["x"]
    names = [one.workload for one in ended(scene, {"w/egress/a": LEFT}, ids).standings]
    assert names == ["w", "x"]


def test_target_that_is_back_answers_for_itself(scene):
    """What it left at its end is its own to find again."""
    one = scene.heartbeat()
    one.part({"w/egress/a": LEFT})
    one.applied(("w/egress/a",))

    assert one.report().standings == (Standing("w", Stand.SYNCED),)
    scene.views = ()
    assert one.report().is_drained


def test_target_that_is_being_drained_is_told_once(scene):
    """Between its drain and its end it is both in the snapshot and among the ended."""
    one = scene.heartbeat()
    one.part({"w/egress/a": LEFT})

    assert one.report().standings == (Standing("w", Stand.SYNCED),)


# The proof


class Ended:
    """A patrol, as far as the proof looks at it."""

    def __init__(self, swept_s: float | None) -> None:
        self.swept_s = swept_s


PROOFS: dict[str, tuple[dict, float | None, Stand, str]] = {
    "all is sent": ({}, 11.0, Stand.SYNCED, ""),
    "swept before": ({}, 9.0, Stand.LAGGING, "starting"),
    "never swept": ({}, None, Stand.LAGGING, "starting"),
    "files wait": ({"state": State.BEHIND, "pending_files": 1}, 11.0, Stand.LAGGING, ""),
    "nothing moves": ({"state": State.BLOCKED, "cause": "refused"}, 11.0, Stand.BLOCKED, "refused"),
    "files cannot be read": ({"skipped_by_reason": {"unreadable": 2}}, 11.0, Stand.BLOCKED, "unreadable"),
    "a request may come in late": ({"late_writes": 3}, 11.0, Stand.LAGGING, "late-writes"),
    "rules leave files out": ({"skipped_by_reason": {"symlink": 1}}, 11.0, Stand.SYNCED, ""),
}


@pytest.mark.parametrize("case", PROOFS)
def test_target_is_drained_by_a_whole_look_from_afterwards_alone(case, monkeypatch):
    """A look from before, one that could not see all, and whatever waits, prove nothing."""
    changes, swept_s, state, reason = PROOFS[case]
    view: Callable[..., TargetView] = lambda *_: view_of(**changes)  # noqa: E731
    monkeypatch.setattr(drain, "target_view", view)

    standing = drain._proven(None, Ended(swept_s), since_s=10.0)  # type: ignore[arg-type]

    assert (standing.state, standing.reason) == (state, reason)
