"""Targets on an export and a store of the test's own, and settings for them."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from replicator.config.settings import Settings, load
from replicator.model import Direction, Prefix, Storage, Target, TargetOptions

NOWHERE = Storage("http://127.0.0.1:9", "b", "us-east-1", SecretStr("AKID"), SecretStr("SECRET"))


@pytest.fixture(autouse=True)
def _lease_signals_ignored() -> Iterator[None]:
    """As the command does first; what was in force comes back."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "export"
    path.mkdir()
    return path


@pytest.fixture
def new_target(root: Path) -> Callable[..., Target]:
    def new(direction: str = "egress", subdir: str = "", storage: Storage = NOWHERE, **options: object) -> Target:
        return Target(
            workload="workload",
            direction=Direction(direction),
            root=str(root),
            subdir=subdir,
            prefix=Prefix("p/"),
            storage=storage,
            options=TargetOptions(**options),  # type: ignore[arg-type]
        )

    return new


@pytest.fixture
def new_settings(tmp_path: Path) -> Callable[..., Settings]:
    def new(**words: str) -> Settings:
        return load({"state_dir": str(tmp_path / "state"), "connect_timeout_s": "2"} | words, {}).settings

    return new
