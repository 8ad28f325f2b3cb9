"""The direct source on real directories: what it tells, what it keeps under watch, what it costs to listen."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.detect import inotify as source_module
from replicator.detect.inotify import InotifySource
from replicator.detect.source import Health
from replicator.detect.tree import WatchTree
from replicator.stores import inotify
from replicator.stores.files.canary import CanaryFile
from replicator.stores.files.export import Export
from replicator.stores.inotify import Event, Inotify, OutOfWatches


class Ear:
    """Takes down what a source tells."""

    def __init__(self) -> None:
        self.told: Counter[str] = Counter()
        self.is_armed = False
        self.losses = 0
        self.overflows = 0
        self.echoes = 0

    def armed(self, *, can_hear: bool) -> None:
        self.is_armed, self.can_hear = True, can_hear

    def changed(self, relpaths) -> None:
        self.told.update(relpaths)

    def lost(self) -> None:
        self.losses += 1

    def overflowed(self) -> None:
        self.overflows += 1

    def heard(self) -> None:
        self.echoes += 1


class Scene:
    """A mapped directory with a source on it."""

    def __init__(self, root: Path, subdir: str, until: Callable) -> None:
        self.root = root
        self._until = until
        self.out = root / subdir if subdir else root
        self.out.mkdir(parents=True, exist_ok=True)
        self.canary = CanaryFile(str(root), subdir)
        self.health = Health("inotify")
        self.ear = Ear()
        self.source = InotifySource(Export(str(root), subdir), self.canary, self.health)

    @contextlib.asynccontextmanager
    async def listening(self):
        running = asyncio.create_task(self.source.run(self.ear))
        try:
            await self._until(lambda: self.ear.is_armed or running.done())
            yield running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def silence(self) -> None:
        """Until everything that was done before is told: the canary comes after it in the queue."""
        echoes = self.ear.echoes
        assert self.canary.stir()
        await self._until(lambda: self.ear.echoes > echoes)


@pytest.fixture
def scene(home, until):
    return Scene(home / "export", "out", until)


@pytest.fixture
def top(home, until):
    """The mapped directory is the export itself."""
    return Scene(home / "export", "", until)


def write(path: Path, content: str = "x") -> None:
    path.write_text(content)


async def test_finished_file_is_told_at_once_and_once(scene, until):
    """Created, written and closed: one hint, at the close."""
    async with scene.listening():
        write(scene.out / "file")
        await until(lambda: scene.ear.told)
        await scene.silence()

    assert scene.ear.told == {"file": 1}


@pytest.mark.fault("A5")
@pytest.mark.parametrize("deed", ["renamed in", "renamed", "removed", "touched", "truncated", "linked"])
async def test_every_way_to_change_a_file_is_told(scene, home, monkeypatch, deed, until):
    """Renames, removal, attributes, truncation by path and hard links: none needs a writer that closes."""
    monkeypatch.setattr(source_module, "_TICK_S", 0.05)
    write(scene.out / "old")
    write(home / "outside")
    async with scene.listening():
        match deed:
            case "renamed in":
                os.rename(home / "outside", scene.out / "new")
            case "renamed":
                os.rename(scene.out / "old", scene.out / "new")
            case "removed":
                os.unlink(scene.out / "old")
            case "touched":
                os.utime(scene.out / "old")
            case "truncated":
                os.truncate(scene.out / "old", 0)
            case "linked":
                os.link(scene.out / "old", scene.out / "new")
        expected = {"renamed": {"old", "new"}, "renamed in": {"new"}, "linked": {"new"}}.get(deed, {"old"})

        await until(lambda: scene.ear.told.keys() == expected)


async def test_open_file_is_told_with_the_tick_and_not_before(scene, monkeypatch, until):
    """A log that is never closed is told again and again, but no write by itself: the close would come too late."""
    monkeypatch.setattr(source_module, "_TICK_S", 0.2)
    async with scene.listening():
        with open(scene.out / "log", "w") as log:
            log.write("line")
            log.flush()
            await scene.silence()
            at_once = scene.ear.told["log"]
            await until(lambda: scene.ear.told["log"] == 1)
            log.write("line")
            log.flush()
            await until(lambda: scene.ear.told["log"] == 2)

    assert at_once == 0


@pytest.mark.slow
async def test_writer_that_never_pauses_costs_few_events(scene, monkeypatch, until):
    """After some writes a directory's writes are not heard until the tick; what is closed in it is, at once."""
    monkeypatch.setattr(source_module, "_TICK_S", 0.3)
    taken: list[Event] = []
    read = Inotify.read

    def take_down(queue: Inotify) -> list[Event]:
        events = read(queue)
        taken.extend(events)
        return events

    monkeypatch.setattr(Inotify, "read", take_down)
    async with scene.listening():
        began = time.monotonic()
        writes = 0
        with open(scene.out / "a", "ab", buffering=0) as one, open(scene.out / "b", "ab", buffering=0) as two:
            while time.monotonic() - began < 1:
                for _ in range(50):
                    one.write(b"x")
                    two.write(b"x")
                writes += 100
                await asyncio.sleep(0.001)
            write(scene.out / "closed")
            await scene.silence()
            assert scene.ear.told["closed"] == 1
        await until(lambda: scene.ear.told["a"] > 1 and scene.ear.told["b"] > 1)

    assert sum(bool(mask & inotify.MODIFY) for _, mask, _ in taken) < writes / 3
    assert scene.ear.told["a"] < 10


async def test_readers_cost_nothing(scene, monkeypatch):
    """Opening, reading and closing what is there makes no event at all."""
    write(scene.out / "file")
    async with scene.listening():
        await scene.silence()
        reads: list[Inotify] = []

        def read(queue: Inotify) -> list[Event]:
            reads.append(queue)
            return []

        monkeypatch.setattr(Inotify, "read", read)
        for _ in range(100):
            (scene.out / "file").read_text()
            os.listdir(scene.out)
        await asyncio.sleep(0.1)

    assert not reads


def queue_holds() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


MAKE = """
import os, sys
for number in range(int(sys.argv[2])):
    path = f"{sys.argv[1]}/m{number}/a/b/c"
    os.makedirs(path)
    open(path + "/f", "w").close()
"""


CHURN = """
import os, sys
for number in range(int(sys.argv[2])):
    os.mkdir(f"{sys.argv[1]}/d{number}")
    os.rmdir(f"{sys.argv[1]}/d{number}")
"""


@pytest.mark.fault("A6")
@pytest.mark.slow
async def test_directories_made_faster_than_they_are_watched(scene, home, until):
    """2,000 times `mkdir -p a/b/c` and a file: none is missed, nor in a tree of them that is moved in."""
    wanted = {f"m{number}/a/b/c/f" for number in range(2000)}
    async with scene.listening():
        maker = await asyncio.create_subprocess_exec(sys.executable, "-ISc", MAKE, str(scene.out), "2000")
        await maker.wait()
        await until(lambda: wanted <= scene.ear.told.keys())
        await until(lambda: scene.health.watches == 8001)
        await asyncio.to_thread(subprocess.run, [sys.executable, "-ISc", MAKE, str(home / "other"), "2000"], check=True)
        os.rename(home / "other", scene.out / "moved")

        await until(lambda: {f"moved/{relpath}" for relpath in wanted} <= scene.ear.told.keys())
        assert scene.health.watches == scene.health.needed == 16002
        write(scene.out / "moved/m77/a/b/c/late")
        await until(lambda: scene.ear.told["moved/m77/a/b/c/late"])
    assert scene.ear.losses == 0


async def test_directory_renamed_inside(scene, until):
    """Everything beneath is told under its new path, and so is what is written there later; no watch is lost."""
    (scene.out / "a/deep").mkdir(parents=True)
    write(scene.out / "a/deep/file")
    async with scene.listening():
        os.rename(scene.out / "a", scene.out / "b")
        os.rename(scene.out / "b", scene.out / "c")
        await until(lambda: scene.ear.told["c/deep/file"])
        write(scene.out / "c/deep/late")
        await until(lambda: scene.ear.told["c/deep/late"])

        assert scene.health.watches == 3


async def test_directory_that_leaves_takes_its_watches_along(scene, home, monkeypatch, until):
    """Moved out of the export: nothing that happens there is told, and the watches are given back."""
    monkeypatch.setattr(source_module, "_TICK_S", 0.05)
    (scene.out / "a/deep").mkdir(parents=True)
    async with scene.listening():
        os.rename(scene.out / "a", home / "gone")
        await until(lambda: scene.health.watches == 1)
        write(home / "gone/deep/file")
        write(home / "gone/file")
        os.rename(home / "gone/deep", home / "gone/deeper")
        await scene.silence()

    assert not scene.ear.told


@pytest.mark.fault("G1", "D5")
@pytest.mark.slow
async def test_ten_thousand_directories_come_and_go_and_leave_nothing(scene, until):
    """Table and memory are as before: no watch and no entry outlives its directory."""

    async def churn(times: int) -> None:
        churner = await asyncio.create_subprocess_exec(sys.executable, "-ISc", CHURN, str(scene.out), str(times))
        await churner.wait()
        await scene.silence()
        await until(lambda: scene.health.watches == 1)

    def resident_kib() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    async with scene.listening():
        await churn(1000)
        before_kib = resident_kib()
        await churn(10_000)

        assert resident_kib() - before_kib < 2048


@pytest.mark.fault("A7")
@pytest.mark.slow
async def test_overflow_is_counted_and_the_watches_completed(scene, until):
    """More events than the queue holds, and directories among the lost: everything is to be looked at, and watched."""
    held = queue_holds()
    if held > 50_000:
        pytest.skip("the machine's queue is raised: fs.inotify.max_queued_events")
    async with scene.listening():
        # On the event loop's own thread: nothing is read meanwhile.
        for number in range(held // 2 + 100):
            os.close(os.open(scene.out / f"{number}", os.O_WRONLY | os.O_CREAT))
        (scene.out / "lost/deep").mkdir(parents=True)
        await until(lambda: scene.ear.losses)

        assert scene.health.overflows == scene.ear.overflows == 1
        assert scene.health.watches == scene.health.needed == 3
        write(scene.out / "lost/deep/late")
        await until(lambda: scene.ear.told["lost/deep/late"])


async def test_more_files_than_a_queue_should_take_are_left_to_a_sweep(scene, home, monkeypatch, until):
    """A huge tree that is moved in becomes one hint for the whole target instead of a list."""
    monkeypatch.setattr("replicator.detect.tree._MANY_FILES", 10)
    (home / "huge").mkdir()
    for number in range(20):
        write(home / f"huge/{number}")
    async with scene.listening():
        os.rename(home / "huge", scene.out / "huge")
        await until(lambda: scene.ear.losses == 1)

    assert not scene.ear.told


async def test_name_that_is_not_utf8_is_told_as_the_walk_spells_it(scene, until):
    """Neither the name nor the ones after it are lost, in such a directory too."""
    async with scene.listening():
        os.mkdir(os.fsencode(scene.out) + b"/d\xfe")
        open(os.fsencode(scene.out) + b"/d\xfe/bad\xff", "w").close()
        await until(lambda: scene.ear.told["d\udcfe/bad\udcff"])
        write(scene.out / "good")
        await until(lambda: scene.ear.told["good"])


async def test_links_are_not_followed(scene, home, until):
    """A link to a directory, there before or moved in within another: nothing behind it is told or watched."""
    (home / "foreign/deep").mkdir(parents=True)
    (scene.out / "there").symlink_to(home / "foreign")
    (home / "carrier").mkdir()
    (home / "carrier/link").symlink_to(home / "foreign")
    async with scene.listening():
        os.rename(home / "carrier", scene.out / "carrier")
        await until(lambda: scene.health.watches == 2)
        write(home / "foreign/deep/file")
        write(home / "foreign/file")
        await scene.silence()

    assert not scene.ear.told


def test_link_that_took_a_directorys_place_is_not_entered(home):
    """Swapped in after the event: neither it nor what it leads to is watched or read, at any depth."""
    (home / "foreign/deep").mkdir(parents=True)
    write(home / "foreign/deep/file")
    (home / "out").mkdir()
    (home / "out/link").symlink_to(home / "foreign")
    queue = Inotify()
    tree = WatchTree(Export(str(home), "out"), queue)
    with contextlib.closing(queue):
        tree.arm()

        assert tree.adopt(["link", "link/deep"]) == []
        tree.promote({"link", "link/deep"})
        assert watched(tree) == {""}


async def test_alias_cannot_blind_a_directory(scene, home, until):
    """A link to a watched sibling, moved in and deleted: the sibling's files are told, under their own name."""
    (scene.out / "real").mkdir()
    (home / "carrier").mkdir()
    (home / "carrier/alias").symlink_to(scene.out / "real")
    async with scene.listening():
        os.rename(home / "carrier", scene.out / "zzz")
        await until(lambda: scene.health.watches == 3)
        os.unlink(scene.out / "zzz/alias")
        write(scene.out / "real/file")
        await until(lambda: scene.ear.told["real/file"])

    assert "zzz/alias/file" not in scene.ear.told


async def test_our_own_directory_is_none_of_the_workloads(top, until):
    """What happens in `.replicator` is no hint; a file beside it is, and so is one of that name deeper down."""
    async with top.listening():
        (top.out / ".replicator/tmp").mkdir(parents=True)
        write(top.out / ".replicator/tmp/download")
        write(top.out / ".replicator/file")
        (top.out / "deep").mkdir()
        write(top.out / "deep/.replicator")
        await until(lambda: top.ear.told["deep/.replicator"])
        await top.silence()

    assert top.ear.told.keys() == {"deep/.replicator"}
    assert top.ear.echoes


@pytest.mark.parametrize("deed", ["removed", "renamed", "renamed above"])
async def test_directory_that_is_gone_ends_the_source(home, until, deed):
    """The directory or one above it was moved or removed: whoever runs the source is told at once."""
    deep = Scene(home / "other", "a/b", until)
    async with deep.listening() as running:
        match deed:
            case "removed":
                deep.out.rmdir()
            case "renamed":
                deep.out.rename(deep.root / "a/c")
            case "renamed above":
                (deep.root / "a").rename(deep.root / "z")

        await asyncio.wait_for(running, 20)


async def test_missing_directory_is_no_error(scene):
    """There is nothing to watch: the source ends without having been armed."""
    scene.out.rmdir()

    await asyncio.wait_for(scene.source.run(scene.ear), 20)

    assert not scene.ear.is_armed


async def test_directory_that_events_did_not_tell_of_is_found_by_the_count(scene, monkeypatch, until):
    """A sweep that met more directories than are watched has them looked for; a difference that stays is let be."""
    monkeypatch.setattr(source_module, "_RECHECK_S", 0.0)
    async with scene.listening():
        with monkeypatch.context() as patch:
            patch.setattr(inotify, "CREATE", 0)
            patch.setattr("replicator.detect.events._APPEARED", 0)
            (scene.out / "unseen").mkdir()
            await scene.silence()
        assert scene.health.watches == 1
        scene.source.recheck(2)
        await until(lambda: scene.health.watches == 2)
        assert scene.ear.losses == 1
        for _ in range(3):
            scene.source.recheck(2)
            await scene.silence()
        assert scene.ear.losses == 1
        scene.source.recheck(3)  # one of them may not be read
        await until(lambda: scene.ear.losses == 2)
        for _ in range(3):
            scene.source.recheck(3)
            await scene.silence()

    assert scene.ear.losses == 2


# Fewer watches than directories.


def tree_of(root: Path, limit: int) -> tuple[WatchTree, Inotify]:
    queue = Inotify()
    return WatchTree(Export(str(root)), queue, limit=lambda: limit), queue


def watched(tree: WatchTree) -> set[str | None]:
    return {tree.watches.path(wd) for wd in tree.watches}


@pytest.fixture
def forty(home):
    """Forty directories, the last the newest, in one that is old."""
    for number in range(40):
        (home / f"old/{number}").mkdir(parents=True)
        os.utime(home / f"old/{number}", (1000 + number, 1000 + number))
    os.utime(home / "old", (1, 1))
    return home


def test_short_of_watches_the_newest_directories_have_them(forty):
    """Of 42 directories 10 may be watched: nothing is thrown, and the newest ones are told of."""
    tree, queue = tree_of(forty, 10)
    with contextlib.closing(queue):
        tree.arm()

        assert tree.is_short
        assert (len(tree.watches), tree.needed) == (10, 42)
        assert watched(tree) == {"", "old", *(f"old/{number}" for number in range(32, 40))}


def test_kernel_that_refuses_earlier_than_its_limit_is_believed(forty, monkeypatch):
    """Others of the same user hold watches as well: what can be had is had, and one in sixteen is left to them."""
    tree, queue = tree_of(forty, 10_000)
    add, give_back = queue.add, queue.remove
    held: set[int] = set()

    def scarce(fd: int, mask: int) -> int:
        wd = add(fd, mask)
        if wd not in held and len(held) >= 32:
            give_back(wd)
            raise OutOfWatches
        held.add(wd)
        return wd

    def remove(wd: int) -> None:
        held.discard(wd)
        give_back(wd)

    monkeypatch.setattr(queue, "add", scarce)
    monkeypatch.setattr(queue, "remove", remove)
    with contextlib.closing(queue):
        tree.arm()

        assert (len(tree.watches), tree.needed) == (30, 42)
        assert "old/39" in watched(tree)


def test_not_one_watch_is_an_error(home, monkeypatch):
    """Without a watch on the directory itself there is no source."""
    tree, queue = tree_of(home, 10)

    def refuse(fd: int, mask: int) -> int:
        raise OutOfWatches

    monkeypatch.setattr(queue, "add", refuse)
    with contextlib.closing(queue), pytest.raises(OutOfWatches):
        tree.arm()


def test_watch_moves_to_where_a_sweep_found_a_change(forty):
    """The coldest directory gives its watch up for the one that a sweep found to be warmer."""
    tree, queue = tree_of(forty, 10)
    with contextlib.closing(queue):
        tree.arm()

        tree.promote({"old/3", "gone", "old"})

        assert len(tree.watches) == 10
        assert watched(tree) >= {"", "old", "old/3", "old/39"}
        assert "old/32" not in watched(tree)


def test_new_directory_displaces_the_coldest(forty):
    """A directory made while watches are short is watched: there is nothing newer."""
    tree, queue = tree_of(forty, 10)
    with contextlib.closing(queue):
        tree.arm()
        (forty / "new").mkdir()
        write(forty / "new/file")

        assert tree.adopt(["new"]) == ["new/file"]
        assert "new" in watched(tree)
        assert len(tree.watches) == 10


def test_busy_directory_keeps_its_watch(forty):
    """A directory in which something was told of late is not the coldest, however old its own time is."""
    tree, queue = tree_of(forty, 10)
    with contextlib.closing(queue):
        tree.arm()
        (coldest,) = (wd for wd in tree.watches if tree.watches.path(wd) == "old/32")
        tree.warm([coldest])

        tree.promote({"old/3"})

        assert {"old/32", "old/3"} <= watched(tree)
        assert "old/33" not in watched(tree)


def test_limit_that_was_raised_lets_everything_be_watched(forty):
    """The next tour asks for the limit again."""
    limits = iter([10, 1000])
    queue = Inotify()
    tree = WatchTree(Export(str(forty)), queue, limit=lambda: next(limits))
    with contextlib.closing(queue):
        tree.arm()
        tree.arm()

        assert not tree.is_short
        assert len(tree.watches) == tree.needed == 42


def test_shortage_says_what_to_set(monkeypatch):
    """The sentence has both numbers, the sysctl, and a value above the need."""
    monkeypatch.setattr(source_module, "tightest_watch_limit", lambda: ("user.max_inotify_watches", 1000))

    assert source_module.shortage(900, 5000) == (
        "900 of 5000 directories are watched, sweeps find changes in the others; set user.max_inotify_watches to 16384"
    )


def test_closed_queue_touches_nothing(home):
    """A thread that is still at it when the queue is closed gets an error, whatever has the descriptor's number now."""
    queue = Inotify()
    number = queue.fileno()
    queue.close()
    fd = os.open(home, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            queue.add(fd, inotify.CREATE)
        queue.remove(1)
        queue.close()
        assert os.fstat(fd)
        assert number != queue.fileno()
    finally:
        os.close(fd)
