"""Links that lead the watcher out of the tree, or to a directory that it watches already.

The direct source follows none. watchfiles follows them and cannot be told not to: what it then sees outside is never
taken, and what it then loses inside a sweep finds.
"""

import os

import pytest


@pytest.fixture
def foreign(scene):
    """A tree outside of the export, of 40 directories with a file in each."""
    top = scene.home / "foreign"
    for number in range(40):
        (top / f"{number}/deep").mkdir(parents=True)
        (top / f"{number}/deep/file").write_bytes(b"not ours")
    return top


def own_watches() -> set[tuple[int, int]]:
    """(st_dev, st_ino) of every directory that this process has an inotify watch on."""
    found = set()
    for number in os.listdir("/proc/self/fdinfo"):
        try:
            with open(f"/proc/self/fdinfo/{number}") as info:
                lines = [line for line in info if line.startswith("inotify wd:")]
        except FileNotFoundError:
            continue
        for line in lines:
            words = dict(word.split(":") for word in line.split()[1:])
            device = int(words["sdev"], 16)
            found.add((os.makedev(device >> 20, device & 0xFFFFF), int(words["ino"], 16)))
    return found


def places(top) -> set[tuple[int, int]]:
    """(st_dev, st_ino) of every directory of a tree."""
    stats = [os.stat(parent) for parent, _, _ in os.walk(top)]
    return {(found.st_dev, found.st_ino) for found in stats}


@pytest.mark.fault("F5")
async def test_link_to_a_foreign_tree_at_start(scene, kind, foreign):
    """A link to a tree outside, there from the start: nothing beyond it is taken; the direct source watches none."""
    (scene.out / "real").mkdir()
    (scene.out / "link").symlink_to(foreign)
    async with scene.watching(kind) as watch:
        (foreign / "7/deep/late").write_bytes(b"not ours")
        scene.write("real/late")
        await watch.in_step()

        assert set(watch.rows()) == {"real/late"}
        if kind == "inotify":
            assert places(scene.out) <= own_watches()
            assert not places(foreign) & own_watches()
            assert not any(path.startswith("link/") for path in watch.told)


@pytest.mark.fault("F5")
async def test_link_to_a_foreign_tree_in_what_is_moved_in(scene, kind, foreign):
    """The same link inside a directory that is moved in: its files are taken, nothing beyond the link is."""
    arriving = scene.home / "arriving"
    (arriving / "deep").mkdir(parents=True)
    (arriving / "deep/file").write_bytes(b"ours")
    (arriving / "deep/link").symlink_to(foreign)
    async with scene.watching(kind) as watch:
        arriving.rename(scene.out / "arrived")
        await watch.in_step()
        (foreign / "7/deep/late").write_bytes(b"not ours")
        scene.write("arrived/deep/late")
        await watch.in_step()

        assert set(watch.rows()) == {"arrived/deep/file", "arrived/deep/late"}
        if kind == "inotify":
            assert places(scene.out) <= own_watches()
            assert not places(foreign) & own_watches()
            assert not any(path.startswith("arrived/deep/link/") for path in watch.told)


async def test_removed_alias_of_a_watched_directory(scene, kind):
    """A link to a sibling, moved in and removed: later writes in the sibling are seen, with watchfiles by the sweep."""
    scene.write("real/file")
    arriving = scene.home / "arriving"
    arriving.mkdir()
    (arriving / "alias").symlink_to(scene.out / "real")
    async with scene.watching(kind) as watch:
        arriving.rename(scene.out / "arrived")
        scene.write("fence")
        await watch.in_step()
        (scene.out / "arrived/alias").unlink()
        scene.write("fence", b"again")
        await watch.in_step()
        scene.write("real/late")
        if kind == "watchfiles":
            await watch.swept()

        await watch.in_step()

        assert set(watch.rows()) == {"real/file", "real/late", "fence"}


@pytest.mark.fault("F5")
async def test_directory_that_becomes_a_link(scene, kind, foreign):
    """A directory that gives way to a link of its name: nothing beyond the link is taken for the files that it had."""
    scene.write("dir/file")
    scene.write("stays")
    async with scene.watching(kind) as watch:
        (scene.out / "dir").rename(scene.home / "dir")
        (scene.out / "dir").symlink_to(foreign)
        (foreign / "file").write_bytes(b"not ours")
        before = watch.rows()["dir/file"]
        scene.write("fence")
        await watch.in_step()

        assert watch.rows()["dir/file"] == before
        assert set(watch.rows()) == {"dir/file", "stays", "fence"}
        if kind == "inotify":
            assert not places(foreign) & own_watches()


async def test_links_in_a_circle(scene, kind):
    """Links to the directory above them, in a circle: every file is seen once, under its own name."""
    scene.write("a/file")
    (scene.out / "a/up").symlink_to(scene.out)
    (scene.out / "b").symlink_to(scene.out / "a")
    async with scene.watching(kind) as watch:
        scene.write("a/late")

        await watch.in_step()

        assert set(watch.rows()) == {"a/file", "a/late"}
