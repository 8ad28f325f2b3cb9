"""What the machine does not give the watcher: watches, instances, permissions.

Each case makes the limit its own, in a user namespace or without privilege, and lets sweeps run by the clock: where
events cannot reach, a sweep has to, and the watcher's state has to say so.
"""

import asyncio
from pathlib import Path

import pytest

from replicator.detect.canary import Canary

DIRECTORIES = 300
SWEEP_S = 0.5


def set_limit(name: str, number: int) -> None:
    """Bound what this user namespace may have of inotify."""
    Path(f"/proc/sys/user/max_inotify_{name}").write_text(str(number))


def says_what_to_raise(watch) -> bool:
    """Whether the state names the sysctl that is the tightest here."""
    return "fs.inotify.max_user_watches" in watch.health.degraded or "user.max_inotify_watches" in watch.health.degraded


@pytest.mark.fault("A8")
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_fewer_watches_than_directories_at_the_start(scene, source, until, in_namespaces, share):
    """A tenth or nine tenths of the watches that the tree needs: every change is seen; the state names the sysctl."""

    async def play() -> None:
        for number in range(DIRECTORIES):
            scene.write(f"{number}/file")
        set_limit("watches", int(DIRECTORIES * share))
        async with scene.watching(source, interval_s=SWEEP_S, is_ready=False) as watch:
            await watch.in_step()
            await until(lambda: says_what_to_raise(watch))
            for number in range(DIRECTORIES):
                scene.write(f"{number}/file", b"changed")
                scene.write(f"{number}/late")
            await watch.in_step()

            await until(lambda: says_what_to_raise(watch))

            assert len(watch.rows()) == 2 * DIRECTORIES

    in_namespaces(lambda: asyncio.run(play()))


@pytest.mark.fault("A8")
def test_watches_run_out_while_it_runs(scene, source, until, in_namespaces):
    """Directories made after the last watch is taken: each file is seen; the direct source says what to raise."""

    async def play() -> None:
        set_limit("watches", 30)
        async with scene.watching(source, interval_s=SWEEP_S) as watch:
            for number in range(DIRECTORIES):
                scene.write(f"{number}/deep/file")
            await watch.in_step()
            for number in range(DIRECTORIES):
                scene.write(f"{number}/deep/late")
            await watch.in_step()

            if source == "inotify":  # watchfiles tells nobody
                await until(lambda: says_what_to_raise(watch))
            assert len(watch.rows()) == 2 * DIRECTORIES

    in_namespaces(lambda: asyncio.run(play()))


@pytest.mark.fault("A8")
def test_watches_that_come_back(scene, source, until, in_namespaces):
    """A limit that is raised while it runs: all is watched again by itself, and the state is sound."""

    async def play() -> None:
        for number in range(100):
            scene.write(f"{number}/file")
        set_limit("watches", 20)
        async with scene.watching(source, interval_s=SWEEP_S, is_ready=False) as watch:
            await until(lambda: says_what_to_raise(watch))
            at_start = watch.sweeps()
            await until(lambda: watch.sweeps() >= at_start + 5)
            set_limit("watches", 10_000)

            await until(lambda: watch.health.is_armed and not watch.health.degraded, within_s=8)
            scene.write("7/late")
            await watch.in_step()

    in_namespaces(lambda: asyncio.run(play()))


def test_shortage_is_not_taken_for_deafness(scene, until, in_namespaces, monkeypatch):
    """With no watch left for the canary, the direct source is short and says so; it is not started anew as deaf."""
    monkeypatch.setitem(Canary.__init__.__kwdefaults__, "patience_s", 0.4)
    monkeypatch.setitem(Canary.__init__.__kwdefaults__, "interval_s", 0.1)

    async def play() -> None:
        for number in range(100):
            scene.write(f"{number}/file")
        set_limit("watches", 20)
        async with scene.watching("inotify", interval_s=SWEEP_S, is_ready=False) as watch:
            await until(lambda: says_what_to_raise(watch))
            at_start = watch.sweeps()
            await until(lambda: watch.sweeps() >= at_start + 4)

            assert watch.health.restarts == 0
            assert set(watch.health.faults) == {"limit"}

    in_namespaces(lambda: asyncio.run(play()))


@pytest.mark.fault("A8")
def test_no_instance_left(scene, source, until, in_namespaces):
    """Not one inotify instance to be had: the state says that events fail, and every file is seen by sweeps."""

    async def play() -> None:
        scene.write("deep/file")
        set_limit("instances", 0)
        async with scene.watching(source, interval_s=SWEEP_S, is_ready=False) as watch:
            await until(lambda: watch.health.degraded)
            scene.write("deep/late")

            await watch.in_step()

            assert not watch.health.is_armed

    in_namespaces(lambda: asyncio.run(play()))


@pytest.mark.fault("A15")
def test_directory_that_may_not_be_read(scene, source, as_nobody):
    """A directory without permission, there from the start or made later: all files beside it are seen."""
    for number in range(20):
        scene.write(f"{number}/file")
    scene.write("closed/file").parent.chmod(0)
    scene.give_to_nobody()

    async def play() -> None:
        async with scene.watching(source, interval_s=SWEEP_S, is_ready=False) as watch:
            await watch.looked_at(*(f"{number}/file" for number in range(20)))
            (scene.out / "closed too").mkdir(mode=0)
            for number in range(20):
                scene.write(f"{number}/late")
                scene.write(f"new/{number}/file")

            await watch.in_step()

            await watch.patrol.sweep()
            assert watch.patrol.report.skipped == {"closed": "unreadable", "closed too": "unreadable"}

    as_nobody(lambda: asyncio.run(play()))


@pytest.mark.fault("A15")
def test_directory_that_is_closed_and_opened_again(scene, source, as_nobody):
    """A directory that loses its permission while it is watched, and gets it back: what was written then is seen."""
    scene.write("deep/inner/file")
    scene.give_to_nobody()

    async def play() -> None:
        async with scene.watching(source, interval_s=SWEEP_S) as watch:
            rows = watch.rows()
            (scene.out / "deep").chmod(0)
            scene.write("fence")
            await watch.looked_at("fence")
            await watch.patrol.sweep()
            await watch.patrol.sweep()
            assert rows.items() <= watch.rows().items()

            (scene.out / "deep").chmod(0o755)
            scene.write("deep/inner/late")

            await watch.in_step()

    as_nobody(lambda: asyncio.run(play()))
