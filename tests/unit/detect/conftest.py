"""Fixtures of the detection tests: a directory where making thousands of files takes no disk, and waiting."""

import os
import tempfile
from collections.abc import Iterator
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
