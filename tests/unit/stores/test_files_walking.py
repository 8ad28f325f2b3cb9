"""Walking an export: everything that is a plain file, the reason for what is not, and few descriptors."""

import functools
import operator
import os
import resource
import shutil
import socket
import subprocess
from types import SimpleNamespace

import pytest

from replicator.stores.files import beneath
from replicator.stores.files import walk as filewalk
from replicator.stores.files.export import Export, Skipped


def listing(export: Export) -> list[str]:
    return [file.relpath for directory in export.walk() for file in directory.files]


def signatures(export: Export) -> dict[str, int]:
    return {directory.relpath: directory.signature for directory in export.walk()}


def skipped(export: Export) -> dict[str, str]:
    return {item.relpath: item.reason for directory in export.walk() for item in directory.skipped}


def test_walk_finds_every_file_once_in_byte_order(export, root):
    """Parents come before children, files and siblings in byte order of their names; our own directory is left out."""
    # In UTF-8 the emoji comes before the lone byte; as Python strings they compare the other way round.
    last = ["\U0001f600", os.fsdecode(b"\xff")]
    for relpath in ["b", "a.b", "a/z", "a/b/c", "a0", *last, *(f"d/{name}/x" for name in last), ".replicator/tmp/x"]:
        (root / relpath).parent.mkdir(parents=True, exist_ok=True)
        (root / relpath).write_bytes(b"x")
    (root / "empty").mkdir()

    directories = list(export.walk())
    assert [directory.relpath for directory in directories] == [
        *("", "a", "a/b", "d"),
        *(f"d/{name}" for name in last),
        "empty",
    ]
    assert [file.relpath for file in directories[0].files] == ["a.b", "a0", "b", *last]
    assert [file.relpath for file in directories[1].files] == ["a/z"]
    assert [file.relpath for file in directories[2].files] == ["a/b/c"]
    assert all(directory.is_complete and not directory.skipped for directory in directories)
    assert directories[1].files[0] == export.stat("a/z")


def test_walk_of_a_subdirectory_counts_relpaths_from_there(root):
    """A mapped subdirectory sees only what is beneath it, its own `.replicator` included."""
    (root / "sub" / ".replicator").mkdir(parents=True)
    (root / "sub" / ".replicator" / "x").write_bytes(b"")
    (root / "beside").write_bytes(b"")

    assert listing(Export(str(root), "sub")) == [".replicator/x"]


@pytest.mark.fault("A19", "A23", "F5")
def test_everything_left_out_has_its_reason(root, export, tmp_path):
    """Links, special files and hard links are named with a reason word and stop nothing."""
    (root / "plain").write_bytes(b"")
    (root / "to-file").symlink_to("plain")
    (root / "to-dir").symlink_to("/")
    (root / "nowhere").symlink_to("absent")
    os.mkfifo(root / "fifo")
    (root / "linked").write_bytes(b"")
    os.link(root / "linked", tmp_path / "outside")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))

    assert listing(export) == ["plain"]
    assert skipped(export) == {
        "to-file": "symlink",
        "to-dir": "symlink",
        "nowhere": "symlink",
        "fifo": "special",
        "linked": "hard-linked",
        "socket": "special",
    }
    assert listing(Export(str(root), hard_links="allow")) == ["linked", "plain"]


@pytest.mark.fault("F6")
def test_other_file_system_is_named_and_not_entered(small_disk):
    """A mount inside the export is reported, not walked."""
    (small_disk / "inside").write_bytes(b"")
    (small_disk.parent / "beside").write_bytes(b"")
    export = Export(str(small_disk.parent))

    assert listing(export) == ["beside"]
    assert skipped(export) == {"small": "other-device"}


def test_file_that_is_a_mount_of_its_own_is_named(small_disk):
    """A single file bind-mounted into the export, as configuration files are, is not replicated as the workload's."""
    export_dir = small_disk.parent / "export"
    export_dir.mkdir()
    (export_dir / "file").write_bytes(b"")
    (small_disk / "file").write_bytes(b"foreign")
    subprocess.run(["mount", "--bind", str(small_disk / "file"), str(export_dir / "file")], check=True)
    try:
        found = skipped(Export(str(export_dir)))
    finally:
        subprocess.run(["umount", str(export_dir / "file")], check=True)

    assert found == {"file": "other-device"}


@pytest.mark.fault("A15")
def test_unreadable_directory_is_told_from_an_empty_one(open_root, run_as_nobody):
    """A directory that cannot be listed, or searched, is named; its siblings are walked; it does not pass for empty."""
    if os.geteuid() != 0:
        pytest.skip("directories of another owner need root")
    for name, mode in (("closed", 0o700), ("unsearchable", 0o744), ("open", 0o755)):
        (open_root / name).mkdir()
        (open_root / name / "file").write_bytes(b"")
        (open_root / name).chmod(mode)
    code = """
for directory in Export(args[0]).walk():
    skipped = [(item.relpath, item.reason) for item in directory.skipped]
    print(directory.relpath, directory.is_complete, [file.relpath for file in directory.files], skipped)
"""

    assert run_as_nobody(code, open_root).splitlines() == [
        "True [] []",
        "closed False [] [('closed', 'unreadable')]",
        "open True ['open/file'] []",
        "unsearchable False [] [('unsearchable', 'unreadable')]",
    ]


@pytest.mark.fault("G1", "G3")
def test_thousand_levels_need_few_descriptors(root, monkeypatch):
    """A tree a thousand levels deep is walked to its end with 64 descriptors, and without beginning anew each time."""
    fd = os.open(root, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=fd)
        child = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(os.open("leaf", os.O_CREAT, dir_fd=fd))
    os.close(fd)
    calls: list[int] = []
    open_directory = beneath.open_directory

    def counted(top, parts, *, dir_fd):
        calls.append(len(parts))
        return open_directory(top, parts, dir_fd=dir_fd)

    monkeypatch.setattr(filewalk, "open_directory", counted)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(64, opened + 16), limits[1]))
    try:
        assert listing(Export(str(root))) == ["d/" * 1000 + "leaf"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        subprocess.run(["rm", "-rf", str(root)], check=True)  # shutil.rmtree recurses too deep
    assert sum(calls) == 0


def test_relpath_beyond_the_bound_is_named_and_not_entered(root, monkeypatch):
    """A tree deeper than any key can be long is named where it begins, so that no walk is endless."""
    monkeypatch.setattr(filewalk, "RELPATH_MAX_BYTES", 10)
    (root / "short" / "too-long").mkdir(parents=True)
    (root / "short" / "too-long" / "file").write_bytes(b"")

    export = Export(str(root))
    assert listing(export) == []
    assert skipped(export) == {"short/too-long": "name"}


@pytest.mark.fault("A22", "F4")
def test_directory_that_vanishes_or_becomes_a_link_during_the_walk(root, export, tmp_path):
    """What changes behind the walk is passed over or named; the walk goes on and never leaves the export."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"")
    for name in ("a", "b", "c"):
        (root / name).mkdir()
        (root / name / "file").write_bytes(b"")

    walk = export.walk()
    assert next(walk).relpath == ""
    shutil.rmtree(root / "a")
    (root / "b").rename(root / "moved")
    (root / "b").symlink_to(outside)
    rest = list(walk)
    assert [directory.relpath for directory in rest] == ["b", "c"]
    assert rest[0].skipped == (Skipped("b", "symlink"),)
    assert not rest[0].is_complete
    assert [file.relpath for file in rest[1].files] == ["c/file"]


def test_walk_left_early_gives_its_descriptors_back(root, export):
    """Whoever stops in the middle of a walk leaks nothing."""
    (root / "a" / "b").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(10):
        walk = export.walk()
        next(walk)
        walk.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_directory_of_a_known_version_is_counted_and_not_told(root, export):
    """Where the signature is the caller's, no file is told; what is left out, and what is beneath, still is."""
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "link").symlink_to("nowhere")
    for name in ("a/f", "a/g", "a/b/f"):
        (root / name).write_bytes(b"x")
    known = signatures(export)
    (root / "a" / "b" / "f").write_bytes(b"changed")

    top, a, b = export.walk(known)
    assert (top.is_known, a.is_known, b.is_known) == (True, True, False)
    assert (a.files, a.count, a.skipped) == ((), 2, (Skipped("a/link", "symlink"),))
    assert [file.relpath for file in b.files] == ["a/b/f"]
    assert b.signature != known["a/b"]
    assert b.signature == signatures(export)["a/b"]


@pytest.mark.parametrize("deed", ["add", "remove", "rename", "exchange", "append", "touch"])
def test_signature_tells_one_version_of_a_directory_from_every_other(root, export, deed):
    """A file more or less, under another name, with the other's content, longer, or only touched: another signature."""
    first, second = root / "first", root / "second"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    (before,) = signatures(export).values()
    assert signatures(export) == {"": before}

    match deed:
        case "add":
            (root / "third").write_bytes(b"")
        case "remove":
            second.unlink()
        case "rename":
            second.rename(root / "third")
        case "exchange":
            first.rename(root / "third")
            second.rename(first)
            (root / "third").rename(second)
        case "append":
            with second.open("ab") as file:
                file.write(b"2")
        case "touch":
            os.utime(second)
    assert signatures(export) != {"": before}


@pytest.mark.parametrize("part", ["name", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"])
def test_each_part_of_a_version_counts_alone(root, part):
    """Where a file system keeps all but one of a version's parts, that one makes the difference."""
    version = {"st_size": 1, "st_mtime_ns": 2, "st_ctime_ns": 3, "st_ino": 4}
    rules = filewalk._Rules(device=0, hard_links="refuse", own_dir=None)

    def signature(name="file", **changed):
        found = SimpleNamespace(st_mode=0o100644, st_dev=0, st_nlink=1, **(version | changed))
        entry = SimpleNamespace(name=name, stat=lambda *, follow_symlinks: found)
        return rules._read("", -1, [entry], is_survey=True).signature  # type: ignore[list-item]

    assert signature() == signature()
    assert signature(**{part: "other" if part == "name" else 9}) != signature()


@pytest.mark.parametrize("count", [0, 9, 10, 11, 35])
def test_large_directory_comes_in_pieces(root, export, monkeypatch, count):
    """No piece is larger than the bound; together they are the directory, each entry once, and so is the signature."""
    names = [f"{number:02}" for number in range(count)]
    for name in names:
        (root / name).write_bytes(b"")
    (whole,) = export.walk()
    monkeypatch.setattr(filewalk, "PIECE_ENTRIES", 10)

    pieces = list(export.walk())
    assert [piece.count for piece in pieces] == [10] * (count // 10) + [count % 10]
    assert sorted(file.relpath for piece in pieces for file in piece.files) == names
    assert [piece.is_whole for piece in pieces] == [len(pieces) == 1] * len(pieces)
    assert functools.reduce(operator.xor, (piece.signature for piece in pieces)) == whole.signature
    (known,) = export.walk({"": whole.signature})
    assert (known.is_known, known.count) == (True, count)


def test_directories_in_pieces_are_entered_in_byte_order(root, export, monkeypatch):
    """Which piece a directory was found in says nothing about its place among its siblings."""
    monkeypatch.setattr(filewalk, "PIECE_ENTRIES", 3)
    names = [f"{number:02}" for number in range(20)]
    for name in names:
        (root / name).mkdir()

    assert list(dict.fromkeys(directory.relpath for directory in export.walk())) == ["", *names]


def test_siblings_of_deep_directories_are_all_found(root, export, monkeypatch):
    """Coming back up from further than the directories that are held open, the walk goes down again from the top."""
    monkeypatch.setattr(filewalk, "_HELD_DIRECTORIES", 2)
    expected = []
    for first in "ab":
        for second in "cd":
            for third in "ef":
                path = root / first / second / third / "x" / "y"
                path.mkdir(parents=True)
                (path / "file").write_bytes(b"")
                (path.parent / "file").write_bytes(b"")
                expected += [f"{first}/{second}/{third}/x/file", f"{first}/{second}/{third}/x/y/file"]

    assert listing(export) == expected
