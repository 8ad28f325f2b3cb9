"""The watcher: which source runs, and what its guards notice."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from watchfiles import Change

from replicator.detect import canary as canary_module
from replicator.detect import guard as guard_module
from replicator.detect.watcher import Kind, Watcher
from replicator.model import Hint
from replicator.stores import inotify, kernel
from replicator.stores.inotify import OutOfWatches


class Watch:
    """A watcher at work on `<tmp>/export/out`, and what it told."""

    def __init__(self, root: Path, kind: Kind, source: Callable | None = None) -> None:
        self.out = root / "out"
        self.hints: list[str | None] = []
        self.causes: list[str] = []
        self.overflows = 0
        self.watcher = Watcher(
            kind,
            root=str(root),
            subdir="out",
            emit=lambda hint: self.hints.append(hint.relpath),
            on_restart=self.causes.append,
            on_overflow=self._overflowed,
        )
        if source is not None:
            setattr(self.watcher, "_make_source", source)  # noqa: B010  # a method of one object

    def _overflowed(self) -> None:
        self.overflows += 1

    @property
    def health(self):
        return self.watcher.health

    @contextlib.asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.watcher.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Fake:
    """A source that does as it is told."""

    def __init__(self, play: Callable) -> None:
        self.play = play
        self.counts: list[int] = []
        self.wanted: set[str] = set()

    async def run(self, listener) -> None:
        await self.play(listener)

    def promote(self, relpaths) -> None:
        self.wanted |= relpaths

    def recheck(self, directories: int) -> None:
        self.counts.append(directories)


async def armed_and_deaf(listener) -> None:
    listener.armed(can_hear=True)
    await asyncio.Event().wait()


@pytest.fixture
def root(home):
    (home / "export/out").mkdir(parents=True)
    return home / "export"


@pytest.fixture(params=["inotify", "watchfiles"])
def watch(root, request):
    return Watch(root, request.param)


async def test_each_source_tells_of_a_file_and_hears_its_canary(watch, until):
    """Armed, one hint for everything, proven by its own event, and then the file; the canary is no hint."""
    async with watch.running():
        await until(lambda: watch.health.is_proven)
        assert watch.hints == [None]
        assert (watch.health.is_armed, watch.health.degraded) == (True, "")
        (watch.out / "file").write_text("x")
        await until(lambda: "file" in watch.hints)

    assert set(watch.hints) == {None, "file"}
    assert not os.listdir(watch.out.parent / ".replicator/canary")


async def test_each_source_notices_a_replaced_directory(watch, monkeypatch, until):
    """Renamed away and another put in its place: watched again, looked at as a whole, without the slow look's help."""
    monkeypatch.setattr(guard_module, "_LOOK_S", 3600.0)
    async with watch.running():
        await until(lambda: watch.health.is_proven)
        watch.out.rename(watch.out.parent / "old")
        watch.out.mkdir()
        await until(lambda: watch.causes and watch.health.is_proven)
        assert (watch.causes, watch.health.degraded) == (["replaced"], "")
        assert watch.hints.count(None) >= 2
        (watch.out / "new").write_text("x")
        await until(lambda: "new" in watch.hints)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["made last", "removed last"])
async def test_directory_that_left_and_came_back_is_read(root, until, monkeypatch, order):
    """watchfiles tells both in no order: the directory may be there, so its files are told."""
    (root / "out/tree").mkdir()
    (root / "out/tree/new").write_text("x")
    path = f"{root}/out/tree"

    async def told(*_, **__):
        await asyncio.sleep(0)
        yield [(Change.deleted, path), (Change.added, path)][order]
        await asyncio.Event().wait()

    monkeypatch.setattr("replicator.detect.watchfiles.awatch", told)
    watch = Watch(root, "watchfiles")
    async with watch.running():
        await until(lambda: "tree/new" in watch.hints)


async def test_directory_that_is_missing_is_waited_for(watch, monkeypatch, until):
    """No error and no busy loop: it says so, and watches once the directory is there."""
    monkeypatch.setattr(guard_module, "_AWAIT_S", 0.02)
    watch.out.rmdir()
    async with watch.running():
        await until(lambda: "does not exist" in watch.health.degraded)
        watch.out.mkdir()
        await until(lambda: watch.health.is_proven)

        assert (watch.health.degraded, watch.causes) == ("", [])


async def test_what_was_moved_further_up_is_noticed_by_the_slow_look(root, monkeypatch, until):
    """No event of ours tells of a directory above the export; the comparison does."""
    monkeypatch.setattr(guard_module, "_LOOK_S", 0.05)
    (root.parent / "above").mkdir()
    root = root.rename(root.parent / "above/export")
    watch = Watch(root, "inotify")
    async with watch.running():
        await until(lambda: watch.health.is_proven)
        (root.parent).rename(root.parents[1] / "elsewhere")
        (root / "out").mkdir(parents=True)

        await until(lambda: watch.causes == ["replaced"] and watch.health.is_proven)


async def test_deaf_source_is_found_out_and_started_anew(root, monkeypatch, until):
    """Its canary does not come back though all looks well: it is started again, and everything looked at."""
    monkeypatch.setattr("replicator.detect.watcher.Canary", _hasty)
    plays = iter([armed_and_deaf, _armed_and_hearing])
    watch = Watch(root, "inotify", lambda: Fake(next(plays)))
    async with watch.running():
        await until(lambda: watch.causes)
        assert watch.causes == ["silent"]
        assert "events do not arrive" in watch.health.degraded
        assert not watch.health.is_proven
        await until(lambda: watch.health.is_proven)

        assert watch.health.degraded == ""
        assert watch.hints == [None, None, None]


def _hasty(file):
    return canary_module.Canary(file, interval_s=60, patience_s=0.02)


async def _armed_and_hearing(listener) -> None:
    listener.armed(can_hear=True)
    while True:
        await asyncio.sleep(0.005)
        listener.heard()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OutOfWatches(), "raise fs.inotify.max_user_watches (now 10)"),
        (OSError("OS file watch limit reached."), "raise fs.inotify.max_user_watches (now 10)"),
        (OSError(errno.EMFILE, "Too many open files"), "raise fs.inotify.max_user_instances"),
        (ExceptionGroup("", [ValueError("secret")]), "failed (ValueError)"),
        (None, "the event source ended"),
    ],
)
async def test_source_that_stops_says_why(root, monkeypatch, error, words, until):
    """The state names the cause and what to raise; everything is looked at, and it is tried again."""
    monkeypatch.setattr(kernel, "tightest_watch_limit", lambda: ("fs.inotify.max_user_watches", 10))

    async def stop(_) -> None:
        if error is not None:
            raise error

    watch = Watch(root, "inotify", lambda: Fake(stop))
    async with watch.running():
        await until(lambda: watch.causes)

        assert watch.causes[0] == ("failed" if error else "ended")
        assert words in watch.health.degraded
        assert "secret" not in watch.health.degraded
        assert None in watch.hints


async def test_source_that_cannot_hear_its_canary_is_not_called_deaf(root, until, monkeypatch):
    """Without a watch for the canary its silence proves nothing; nor are events called proven."""
    monkeypatch.setattr("replicator.detect.watcher.Canary", _hasty)

    async def armed_without(listener) -> None:
        listener.armed(can_hear=False)
        await asyncio.Event().wait()

    watch = Watch(root, "inotify", lambda: Fake(armed_without))
    async with watch.running():
        await until(lambda: watch.health.is_armed)
        await asyncio.sleep(0.2)  # several times the patience of this canary

        assert (watch.causes, watch.health.degraded, watch.health.is_proven) == ([], "", False)


async def test_file_system_that_others_change_is_named(root, monkeypatch, until):
    """Events of other machines do not arrive on it, so events alone are never called complete."""
    monkeypatch.setattr(kernel, "file_system", lambda _: "nfs4")
    watch = Watch(root, "inotify")
    async with watch.running():
        await until(lambda: watch.health.is_proven)

        assert "on nfs4 no event tells" in watch.health.degraded


async def test_read_only_export_is_watched_without_a_canary(root, until):
    """Where the canary cannot be made events still come; they are not called proven."""
    (root / ".replicator").write_text("in the way")
    watch = Watch(root, "inotify")
    async with watch.running():
        await until(lambda: watch.health.is_armed)
        (watch.out / "file").write_text("x")
        await until(lambda: "file" in watch.hints)

    assert (watch.health.is_proven, watch.health.degraded) == (False, "")


async def test_sweeps_help_the_source(root, until):
    """The number of directories that a sweep met, and where it found what no event told, reach the source."""
    source = Fake(armed_and_deaf)
    watch = Watch(root, "inotify", lambda: source)
    watch.watcher.swept(5)
    async with watch.running():
        await until(lambda: watch.health.is_armed)
        watch.watcher.swept(7)
        watch.watcher.promote(["a/b/file", "file"])

    assert source.counts == [7]
    assert source.wanted == {"a/b", ""}


async def test_overflow_is_passed_on(root, until):
    """It reaches the counter, and what may be lost becomes one hint for everything."""

    async def flood(listener) -> None:
        listener.overflowed()
        listener.lost()
        await asyncio.Event().wait()

    watch = Watch(root, "inotify", lambda: Fake(flood))
    async with watch.running():
        await until(lambda: watch.hints)

    assert (watch.overflows, watch.hints) == (1, [None])


async def test_off_does_nothing(root):
    """No source, no canary, and no end to be waited for."""
    watch = Watch(root, "off")

    await watch.watcher.run()

    assert (watch.hints, watch.health.source, os.listdir(root)) == ([], "off", ["out"])


@pytest.mark.parametrize(("is_there", "source"), [(True, "inotify"), (False, "watchfiles")])
def test_auto_is_inotify_where_the_kernel_has_it(root, monkeypatch, is_there, source):
    """Elsewhere watchfiles knows how to get events, or to poll."""
    monkeypatch.setattr(inotify, "is_available", lambda: is_there)

    assert Watch(root, "auto").health.source == source


def test_hint_is_what_travels(root):
    """A hint of a watcher is a path, or everything."""
    hints: list[Hint] = []
    watcher = Watcher("off", root=str(root), subdir="", emit=hints.append, on_restart=lambda _: None)

    watcher.changed(["a", "b"])
    watcher.lost()

    assert hints == [Hint("a"), Hint("b"), Hint(None)]


async def test_idle_watcher_wakes_for_nothing(root, until):
    """With nothing to tell, a second passes without a single turn of the event loop for the watcher's sake."""
    watch = Watch(root, "inotify")
    async with watch.running():
        await until(lambda: watch.health.is_proven)
        selector: Any = getattr(asyncio.get_running_loop(), "_selector")  # noqa: B009  # of asyncio's own loops
        turns, select = [], selector.select

        def counted(timeout=None):
            turns.append(timeout)
            return select(timeout)

        selector.select = counted
        await asyncio.sleep(1)
        selector.select = select

    assert len(turns) <= 3
