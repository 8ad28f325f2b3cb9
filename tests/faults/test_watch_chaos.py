"""What a workload does to the watched tree faster, or otherwise, than a watcher can follow.

Each case runs with the kernel's events read directly, with watchfiles, and with sweeps alone. With a source of events
no sweep runs by the clock, so that what it misses stays missing and fails the test.
"""

import asyncio
import importlib
import os
import shutil
import time

import pytest

TREES = """
import time
top, count, pause_s = args[0], int(args[1]), float(args[2])
for number in range(count):
    os.makedirs(f"{top}/{number}/a/b/c")
    with open(f"{top}/{number}/a/b/c/f", "w") as file:
        file.write(str(number))
    time.sleep(pause_s) if pause_s else None
"""
FOREST = """
for directory in range(30):
    os.makedirs(f"{args[0]}/tree/{directory}/leaf")
    for number in range(100):
        with open(f"{args[0]}/tree/{directory}/leaf/{number}", "w") as file:
            file.write("x")
"""
REPLACER = """
for version in range(1000):
    with open(f"{args[0]}/f.tmp", "w") as file:
        file.write(str(version))
    os.rename(f"{args[0]}/f.tmp", f"{args[0]}/f")
"""
READERS = """
for _ in range(20):
    for number in range(500):
        with open(f"{args[0]}/{number}") as file:
            file.read()
"""


@pytest.mark.fault("A6")
@pytest.mark.slow
@pytest.mark.parametrize(("count", "pause_s"), [(2000, 0), (300, 0.001)], ids=["fast", "paced"])
async def test_directories_made_faster_than_their_watches(scene, kind, play, count, pause_s):
    """`mkdir -p a/b/c` and a file in it, thousands at once or one a millisecond: events alone tell of every file."""
    async with scene.watching(kind) as watch:
        at_start = watch.sweeps()
        await asyncio.to_thread(play, TREES, scene.out, count, pause_s)

        await watch.in_step()

        assert len(watch.rows()) == count
        assert watch.is_clockwork or watch.sweeps() == at_start


@pytest.mark.fault("A5", "A6")
@pytest.mark.slow
async def test_populated_tree_moved_in(scene, kind, play):
    """A tree of 3,000 files that is moved in brings one event: every file is seen, and so is a later write in it."""
    play(FOREST, scene.home)
    async with scene.watching(kind) as watch:
        at_start = watch.sweeps()
        (scene.home / "tree").rename(scene.out / "moved")
        await watch.in_step()
        assert len(watch.rows()) == 3000

        scene.write("moved/7/leaf/late")
        await watch.in_step()

        assert watch.is_clockwork or watch.sweeps() == at_start


@pytest.mark.fault("A5")
async def test_directory_renamed_twice_at_once(scene, kind):
    """A directory renamed twice within one batch of events: its files are seen where they are, and later ones too."""
    for number in range(50):
        scene.write(f"one/deep/{number}")
    async with scene.watching(kind) as watch:
        (scene.out / "one").rename(scene.out / "two")
        (scene.out / "two").rename(scene.out / "three")
        await watch.in_step()
        scene.write("three/deep/late")
        scene.write("one/deep/again")
        await watch.in_step()

        await watch.exact()

        assert len(watch.rows()) == 52


@pytest.mark.slow
async def test_tree_moved_out_and_back(scene, kind):
    """Trees moved out and, changed there, back in at once: what they hold now is seen; what they lost is forgotten."""
    trees = [f"tree {number}" for number in range(24)]
    for tree in trees:
        scene.write(f"{tree}/deep/changes")
        scene.write(f"{tree}/deep/goes")
    async with scene.watching(kind) as watch:
        away = scene.home / "away"
        for tree in trees:
            (scene.out / tree).rename(away)
            (away / "deep/changes").write_bytes(b"changed outside")
            (away / "deep/goes").unlink()
            (away / "new").mkdir()
            (away / "new/file").write_bytes(b"made outside")
            away.rename(scene.out / tree)
        await watch.in_step()
        for tree in trees:
            scene.write(f"{tree}/new/late")
        await watch.in_step()

        await watch.exact()

        assert set(watch.rows()) == {
            f"{tree}/{name}" for tree in trees for name in ("deep/changes", "new/file", "new/late")
        }


async def test_tree_that_was_moved_out_is_no_longer_ours(scene, kind, until):
    """Writes in a tree after it was moved out hint nothing, and its files are forgotten once two sweeps missed them."""
    scene.write("tree/deep/file")
    scene.write("stays")
    async with scene.watching(kind) as watch:
        (scene.out / "tree").rename(scene.home / "away")
        await watch.exact()
        watch.looker.told.clear()
        (scene.home / "away/deep/file").write_bytes(b"no longer ours")
        (scene.home / "away/deep/other").write_bytes(b"no longer ours")
        scene.write("fence")
        await watch.in_step()

        assert set(watch.rows()) == {"stays", "fence"}
        assert not any(path.startswith("tree/") for path in watch.told)


async def test_directory_removed_and_made_again(scene, kind):
    """A directory removed with its files and made again by the same name, 100 times: the last files are seen."""
    async with scene.watching(kind) as watch:
        for turn in range(100):
            scene.write("again/deep/file", str(turn).encode())
            if turn < 99:
                shutil.rmtree(scene.out / "again")
        await watch.in_step()
        scene.write("again/deep/late")
        await watch.in_step()

        await watch.exact()

        assert set(watch.rows()) == {"again/deep/file", "again/deep/late"}


async def test_readers_hint_nothing(scene, source, play):
    """10,000 reads of existing files bring no hint and no sweep: the workload's readers cost nothing."""
    for number in range(500):
        scene.write(str(number))
    async with scene.watching(source) as watch:
        await watch.quiet(0.3)
        watch.looker.told.clear()
        at_start = watch.sweeps()
        await asyncio.to_thread(play, READERS, scene.out)
        scene.write("fence")
        await watch.in_step()

        assert watch.told == {"fence"}
        assert watch.sweeps() == at_start


@pytest.mark.fault("A3", "H3")
async def test_rewritten_with_its_old_times(scene, kind):
    """Content rewritten in the same size with its old mtime put back: the change is seen all the same."""
    path = scene.write("f", b"version 1")
    async with scene.watching(kind) as watch:
        before = os.stat(path)
        path.write_bytes(b"version 2")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        await watch.in_step()

        assert watch.rows()["f"].mtime_ns == before.st_mtime_ns


@pytest.mark.fault("A5")
async def test_file_replaced_by_rename_many_times(scene, kind, play):
    """A file replaced by rename 1,000 times in a row, as editors and atomic writers do: the last version is seen."""
    async with scene.watching(kind) as watch:
        await asyncio.to_thread(play, REPLACER, scene.out)
        await watch.in_step()

        await watch.exact()

        assert set(watch.rows()) == {"f"}


@pytest.mark.slow
async def test_log_that_is_never_closed(scene, kind):
    """A log that its writer appends to and never closes: its lines are seen, without waiting for the close."""
    scene.write("log")
    async with scene.watching(kind) as watch:
        with (scene.out / "log").open("ab", buffering=0) as log:
            for _ in range(2):
                for line in range(10):
                    log.write(b"line %d\n" % line)
                    await asyncio.sleep(0.01)

                await watch.in_step()

            assert watch.rows()["log"].size == log.tell()


@pytest.mark.fault("A21")
async def test_name_that_is_not_utf8(scene, kind, until):
    """A file name that is not UTF-8 stops nothing: files made before, with and after it are seen."""
    async with scene.watching(kind) as watch:
        scene.write("before")
        with open(os.fsencode(scene.out) + b"/bad\xff", "wb") as file:
            file.write(b"x")
        os.mkdir(os.fsencode(scene.out) + b"/dir\xff")
        scene.write("with")
        await watch.in_step()
        await until(lambda: watch.is_clockwork or watch.health.is_armed)
        scene.write("after/it")

        await watch.in_step()

        assert set(watch.rows()) == {"before", "with", "after/it"}


async def test_hints_that_get_lost_are_found_and_counted(scene, source, monkeypatch):
    """A source that loses every tenth path: one sweep finds all of them, and the metric counts exactly those."""
    lose_every_tenth(source, monkeypatch)
    async with scene.watching(source) as watch:
        before = watch.found()
        for number in range(1000):
            scene.write(f"{number:03}")
            if number % 100 == 99:
                await asyncio.sleep(0)
        lost = {f"{number:03}" for number in range(9, 1000, 10)}
        deadline = time.monotonic() + 10
        while watch.missing() != lost:
            assert time.monotonic() < deadline, f"{len(watch.missing())} are missing, not {len(lost)}"
            await asyncio.sleep(0.02)

        await watch.patrol.sweep()
        await watch.in_step()

        assert watch.found() - before == len(lost)


def lose_every_tenth(source: str, monkeypatch) -> None:
    """Let the source swallow all events of paths whose name ends in 9."""
    module = importlib.import_module(f"replicator.detect.{source}")
    cls = module.InotifySource if source == "inotify" else module.WatchfilesSource
    run = cls.run

    class HardOfHearing:
        """A listener that misses some of what is told."""

        def __init__(self, listener) -> None:
            self._listener = listener

        def __getattr__(self, name: str):
            return getattr(self._listener, name)

        def changed(self, relpaths) -> None:
            self._listener.changed([path for path in relpaths if not path.endswith("9")])

    monkeypatch.setattr(cls, "run", lambda self, listener: run(self, HardOfHearing(listener)))
