"""Whether names hold plain files, asked for many in a row."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from replicator.stores.files.presence import Presence

NO_FILE = ["", ".", "..", "/etc/passwd", "a//b", "a/", "../outside", "d/../f", "./f", "f\0", "\ud800", "absent", "d/no"]


@pytest.fixture
def present(root):
    """Asks for names beneath `root`, each in its turn."""

    def ask(*relpaths, subdir=""):
        with closing(Presence(str(root), subdir)) as presence:
            return [presence.has(relpath) for relpath in relpaths]

    return ask


def make(root: Path, *relpaths: str) -> None:
    for relpath in relpaths:
        path = root / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_files_of_every_directory_are_seen(root, present):
    """Neighbours, then beneath, then above again; odd names as well."""
    odd = os.fsdecode(b"d/not-utf8-\xff")
    names = ["a", "d/a", "d/sub/a", "d/z", "z", odd]
    make(root, *names)

    assert present(*names, *names) == [True] * 12


def test_no_file_is_told_from_a_file(root, present):
    """Names that cannot be, names that lead elsewhere, and names of nothing."""
    make(root, "f", "d/f")
    make(root.parent, "outside")

    assert present(*NO_FILE) == [False] * len(NO_FILE)
    assert present("f", "d/f") == [True, True]


def test_what_is_no_plain_file_is_none(root, present):
    """A directory, a link to a file, a FIFO, and our own directory."""
    make(root, "f", "d/f", ".replicator/tmp/x")
    (root / "link").symlink_to("f")
    (root / "linked").symlink_to("d")
    os.mkfifo(root / "fifo")

    assert present("d", "link", "linked/f", "fifo", ".replicator", ".replicator/tmp/x") == [False] * 6


def test_mapped_directory_is_where_names_count_from(root, present):
    """Beneath a subdirectory, which may be missing or a link."""
    make(root, "in/f", "f2")
    (root / "alias").symlink_to("in")

    assert present("f", "f2", subdir="in") == [True, False]
    assert present("f", subdir="missing") == [False]
    assert present("f", subdir="alias") == [False]


def test_each_answer_is_of_now(root):
    """What comes and goes between two questions is seen; only the directory is kept."""
    make(root, "d/a")
    with closing(Presence(str(root))) as presence:
        assert presence.has("d/a")
        (root / "d/a").rename(root / "d/b")

        assert [presence.has("d/a"), presence.has("d/b")] == [False, True]


def test_nothing_stays_open(root, present):
    """However many directories were visited, missing ones among them."""
    names = [f"d{number}/f" for number in range(50)]
    make(root, *names[::2])
    before = len(os.listdir("/proc/self/fd"))

    assert present(*names) == [True, False] * 25
    assert len(os.listdir("/proc/self/fd")) == before
