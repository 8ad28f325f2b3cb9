"""The watched directory itself comes, goes, or is another one than before.

Two promises meet here: what is written in the directory that now has the name is seen, and a directory that is missing
or suddenly empty is never read as one whose files were deleted.
"""

import asyncio
import shutil

import pytest


async def blocked(watch, until, word: str) -> None:
    """Until the last sweep says that the target stands still, for this reason."""
    await until(lambda: watch.patrol.report is not None and word in watch.patrol.report.blocked)


@pytest.mark.parametrize("subdir", ["out", "out/deep", ""])
async def test_directory_missing_at_the_start(scene, kind, until, subdir):
    """A directory that is not there yet, up to the export itself: its files are seen once it has been made."""
    shutil.rmtree(scene.export)
    async with scene.watching(kind, subdir=subdir, is_ready=False) as watch:
        await until(lambda: watch.sweeps() >= 1)
        (scene.out / "deep").mkdir(parents=True)
        scene.write("deep/first")
        await watch.in_step()
        await until(lambda: watch.is_clockwork or watch.health.is_armed)
        scene.write("deep/second")

        await watch.in_step()

        assert len(watch.rows()) == 2
        assert not watch.health.degraded


@pytest.mark.fault("A17")
@pytest.mark.parametrize("ground", ["memory", "disk"])
async def test_directory_deleted_and_made_again(scene, scene_on_disk, kind, ground):
    """Deleted with its files and made again at once, even with the old one's inode number: new files are seen."""
    place = scene if ground == "memory" else scene_on_disk
    place.write("old")
    async with place.watching(kind) as watch:
        shutil.rmtree(place.out)
        place.write("new")
        await watch.in_step()
        await watch.quiet(0.7)
        place.write("later")
        place.write("deep/later")

        await watch.in_step()

        assert set(watch.rows()) >= {"new", "later", "deep/later"}


async def test_directory_deleted_and_made_again_much_later(scene, kind, until):
    """Deleted with its files and made again after the watcher knows: new files are seen, with no fault left behind."""
    scene.write("old")
    async with scene.watching(kind) as watch:
        shutil.rmtree(scene.out)
        await until(lambda: watch.is_clockwork or not watch.health.is_armed)
        scene.write("new")
        await watch.in_step()
        await until(lambda: watch.is_clockwork or watch.health.is_armed)
        scene.write("deep/later")

        await watch.in_step()

        assert not watch.health.degraded


@pytest.mark.fault("A17")
async def test_directory_renamed_away_and_another_put_in_its_place(scene, kind):
    """Another directory takes the name: its files are seen, and those of the one that was moved away no longer."""
    scene.write("old")
    async with scene.watching(kind) as watch:
        away = scene.home / "away"
        scene.out.rename(away)
        scene.write("new")
        await watch.in_step()
        await watch.quiet(0.7)
        watch.looker.told.clear()
        (away / "old").write_bytes(b"no longer ours")
        (away / "other").write_bytes(b"no longer ours")
        scene.write("later")
        await watch.in_step()

        await watch.exact()

        assert set(watch.rows()) == {"new", "later"}
        assert not watch.told & {"old", "other"}


@pytest.mark.fault("A17")
@pytest.mark.parametrize("loss", ["missing", "empty"])
async def test_directory_lost_and_back(scene, kind, until, loss):
    """Renamed away, and an empty one put there or none: no row is forgotten, the state says why; it comes back."""
    for number in range(20):
        scene.write(f"deep/{number}")
    async with scene.watching(kind) as watch:
        rows = watch.rows()
        watch.looker.told.clear()
        scene.out.rename(scene.home / "away")
        if loss == "empty":
            scene.out.mkdir()
        await blocked(watch, until, loss)
        await watch.patrol.sweep()
        await watch.patrol.sweep()
        assert watch.rows() == rows
        assert not any(path.startswith("deep/") for path in watch.told)

        if loss == "empty":
            scene.out.rmdir()
        (scene.home / "away").rename(scene.out)
        await until(lambda: not watch.patrol.report.blocked)
        await until(lambda: watch.is_clockwork or watch.health.is_armed)
        scene.write("deep/late")
        await watch.in_step()

        assert len(watch.rows()) == 21


@pytest.mark.slow
async def test_export_above_the_directory_is_replaced(scene, kind, until):
    """The export above a mapped directory is renamed away and another put there: the new one's files are seen."""
    scene.write("old")
    async with scene.watching(kind) as watch:
        scene.export.rename(scene.home / "away")
        scene.write("new")
        await watch.in_step()
        await until(lambda: watch.is_clockwork or watch.health.is_armed)
        scene.write("later")
        await watch.in_step()

        await watch.exact()

        assert set(watch.rows()) == {"new", "later"}


async def test_directory_becomes_a_file_and_a_directory_again(scene, kind, until):
    """A file under the directory's name is no directory that was emptied: nothing is forgotten, and it comes back."""
    scene.write("old")
    async with scene.watching(kind) as watch:
        rows = watch.rows()
        scene.out.rename(scene.home / "away")
        scene.out.write_bytes(b"a file")
        await blocked(watch, until, "missing")
        assert watch.rows() == rows
        scene.out.unlink()
        scene.write("new")

        await watch.in_step()

        assert watch.rows()["new"]


@pytest.mark.fault("A17")
def test_directory_mounted_and_unmounted(scene, kind, until, mounts, in_namespaces):
    """Another file system is mounted over the directory, and taken away again: each time the files there are seen."""
    mount, unmount = mounts

    async def play() -> None:
        scene.write("beneath")
        async with scene.watching(kind) as watch:
            mount(scene.out)
            scene.write("above")
            await watch.in_step()
            await until(lambda: watch.is_clockwork or watch.health.is_armed)
            scene.write("above 2")
            await watch.in_step()

            unmount(scene.out)
            await watch.in_step()
            await watch.quiet(0.7)
            scene.write("beneath 2")
            await watch.in_step()

            await watch.exact()
            assert set(watch.rows()) == {"beneath", "beneath 2"}

    in_namespaces(lambda: asyncio.run(play()))


@pytest.mark.fault("A17")
def test_volume_that_is_unmounted_for_a_while(scene, kind, until, mounts, in_namespaces):
    """A volume that is taken away leaves an empty directory: nothing is forgotten, and what it brings back is seen."""
    mount, unmount = mounts

    async def play() -> None:
        mount(scene.out)
        for number in range(20):
            scene.write(f"deep/{number}")
        async with scene.watching(kind) as watch:
            rows = watch.rows()
            watch.looker.told.clear()
            unmount(scene.out)
            await blocked(watch, until, "empty")
            await watch.patrol.sweep()
            await watch.patrol.sweep()
            assert watch.rows() == rows
            assert not watch.told

            mount(scene.out)
            scene.write("deep/back")
            await watch.in_step()
            await until(lambda: watch.is_clockwork or watch.health.is_armed)
            scene.write("deep/late")
            await watch.in_step()

    in_namespaces(lambda: asyncio.run(play()))


@pytest.mark.fault("F6")
def test_file_system_mounted_inside(scene, kind, mounts, in_namespaces):
    """A file system mounted on a directory inside is another one: left out and named, and the rest goes on."""
    mount, unmount = mounts

    async def play() -> None:
        scene.write("deep/inner/file")
        scene.write("file")
        async with scene.watching(kind) as watch:
            rows = watch.rows()
            mount(scene.out / "deep/inner")
            (scene.out / "deep/inner/foreign").write_bytes(b"of another file system")
            (scene.out / "file").write_bytes(b"changed")
            (scene.out / "deep/fence").write_bytes(b"new")
            await watch.looked_at("file", "deep/fence")
            await watch.patrol.sweep()
            assert watch.patrol.report.skipped["deep/inner"] == "other-device"
            assert set(watch.rows()) >= {*rows, "deep/fence"} - {"deep/inner/file"}
            assert "deep/inner/foreign" not in watch.rows()

            unmount(scene.out / "deep/inner")
            scene.write("deep/inner/late")
            if not watch.is_clockwork:
                await watch.swept()
            await watch.in_step()

    in_namespaces(lambda: asyncio.run(play()))
