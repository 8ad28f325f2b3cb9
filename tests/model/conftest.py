"""The seams of the engine model, and what its stories begin with."""

import logging
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.model.bucket import Bucket
from tests.model.calm import calm
from tests.model.faults import Injector
from tests.model.process import CLOCK, Process, room_for_models, scaled_down
from tests.model.world import World


@pytest.fixture(scope="session")
def _seams():
    """In force while a test of the engine model runs."""
    root, ours = logging.getLogger(), logging.getLogger("replicator")
    handlers, levels = root.handlers, (root.level, ours.level)

    def give_back() -> None:
        root.handlers = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])

    return give_back


@pytest.fixture
def seams(_seams):
    """The product's engine in one thread, with clocks of its own and sizes scaled down."""
    with scaled_down():
        yield
    _seams()


@dataclass
class Scene:
    """One device with its bucket, and the process on it."""

    home: Path
    streams: bool = True
    frees: bool = False
    opaque: str = ""
    hits: "Counter[str]" = field(default_factory=Counter)

    def __post_init__(self) -> None:
        CLOCK.reset()
        self.injector = Injector(self.hits)
        self.bucket = Bucket(self.opaque)
        self.world = World(self.home, self.bucket, frees=self.frees)
        self.process = Process(self.home, self.bucket, self.injector, streams=self.streams, frees=self.frees)
        assert self.process.start()

    def round(self) -> None:
        """One sweep of everything, and what follows from it at once and after a while."""
        for number in (2, 0, 1):  # who might echo first: nothing has explained the files to it by then
            self.process.sweep(number)
            self.process.work()
        CLOCK.advance(700.0)
        self.process.work()
        self.world.check()

    def calm(self) -> None:
        calm(self.process, self.world, has_lost_journal=False)

    def close(self) -> None:
        self.process.kill()
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def scene_of(seams):
    """Makes scenes: `scene_of(streams=False)`."""
    scenes = []

    def make(**options) -> Scene:
        home = Path(tempfile.mkdtemp(prefix="replicator-model-", dir=room_for_models()))
        scenes.append(Scene(home, **options))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()
