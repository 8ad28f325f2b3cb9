"""Fixtures of the detection tests: a directory where making thousands of files takes no disk, and waiting."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DEADLINE_S = 20


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, in memory where the machine has such a place."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def until() -> Callable:
    """Wait for a condition, with a deadline."""

    async def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {DEADLINE_S} s"
            await asyncio.sleep(0.005)

    return wait
