"""The canary: an event of our own making, and the silence that is noticed."""

import asyncio
import os

import pytest

from replicator.detect.canary import Canary
from replicator.stores.files.canary import CanaryFile


class Cage(CanaryFile):
    """A canary file that only counts."""

    def __init__(self, *, can_be: bool = True) -> None:
        super().__init__("", "")
        self.stirred = 0
        self.can_be = can_be
        self.on_stir = lambda: None

    def stir(self) -> bool:
        self.stirred += 1
        self.on_stir()
        return self.can_be


async def test_event_that_comes_back_is_no_silence():
    """As long as each event comes back the canary goes on, at its rhythm."""
    cage, loop = Cage(), asyncio.get_running_loop()
    canary = Canary(cage, interval_s=0.001, patience_s=5)
    enough = asyncio.Event()

    def sing() -> None:
        loop.call_soon_threadsafe(canary.heard)
        if cage.stirred == 5:
            loop.call_soon_threadsafe(enough.set)

    cage.on_stir = sing
    canary.begin()
    watching = asyncio.create_task(canary.falls_silent())

    await asyncio.wait_for(enough.wait(), 5)

    assert not watching.done()
    watching.cancel()


async def test_silence_is_noticed_at_the_second_try():
    """One lost event is nothing yet; two in a row mean that none arrives."""
    cage = Cage()
    canary = Canary(cage, interval_s=60, patience_s=0.01)
    canary.begin()

    await asyncio.wait_for(canary.falls_silent(), 5)

    assert cage.stirred == 2


async def test_nothing_is_asked_before_the_source_can_hear():
    """While the watches are being set there is nobody to hear the event, and no silence."""
    cage = Cage()
    canary = Canary(cage, interval_s=60, patience_s=0.01)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(canary.falls_silent(), 0.1)

    assert cage.stirred == 0


async def test_where_no_file_can_be_there_is_no_silence():
    """A read-only export works without a canary."""
    canary = Canary(Cage(can_be=False), interval_s=0.01, patience_s=0.01)
    canary.begin()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(canary.falls_silent(), 0.1)


def test_file_is_made_beside_the_data_and_removed(tmp_path):
    """It lies in our own directory at the top of the export, for nobody else to read, and goes at the end."""
    file = CanaryFile(str(tmp_path), "out")

    assert file.stir()
    assert os.path.dirname(file.path) == f"{tmp_path}/.replicator/canary"
    assert os.stat(f"{tmp_path}/.replicator").st_mode & 0o777 == 0o700
    assert os.stat(file.path).st_size == 0

    file.remove()
    file.remove()
    assert not os.path.exists(file.path)


def test_stirring_writes_no_data(tmp_path):
    """Only times are set, and that is enough for an event."""
    file = CanaryFile(str(tmp_path), "")
    file.stir()
    os.utime(file.path, (1, 1))

    file.stir()

    assert os.stat(file.path).st_mtime > 1
    assert os.stat(file.path).st_size == 0


def test_two_targets_of_one_export_have_two_files(tmp_path):
    """Neither hears the other's event for its own."""
    assert CanaryFile(str(tmp_path), "a").path != CanaryFile(str(tmp_path), "b").path


@pytest.mark.parametrize("obstacle", ["symlink", "file", "missing export"])
def test_canary_that_cannot_be_made_is_none(tmp_path, obstacle):
    """A link or a file in our directory's place, or no export at all: no canary, no error, nothing touched."""
    root, elsewhere = tmp_path / "export", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if obstacle != "missing export":
        root.mkdir()
    if obstacle == "symlink":
        (root / ".replicator").symlink_to(elsewhere)
    if obstacle == "file":
        (root / ".replicator").write_text("mine")
    file = CanaryFile(str(root), "out")

    assert not file.stir()
    with file.opened() as fd:
        assert fd is None
    file.remove()

    assert list(elsewhere.iterdir()) == []
    assert root.exists() == (obstacle != "missing export")
