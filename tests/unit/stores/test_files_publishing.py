"""Writing into an export: whole or not at all, in the order that survives a power cut, and nothing of others lost."""

import contextlib
import errno
import os
import re
import resource
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from replicator.errors import DiskFull, KeyUnsafe, Refused, ReplicatorError, SourceChanged
from replicator.stores.files.export import Export

MTIME_NS = 1_700_000_000_123_456_789


def publish(export: Export, relpath: str, content: bytes = b"new", **options):
    with export.create_temp() as temp:
        temp.write(content)
        temp.finish(MTIME_NS)
        return export.publish(temp, relpath, replacing=options.get("replacing"))


def temps(root: Path) -> list[str]:
    return os.listdir(root / ".replicator" / "tmp")


@pytest.fixture
def umask():
    """The process' umask is a known one, and comes back."""
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.fault("F7")
def test_published_file_has_its_content_time_and_mode(export, root, umask):
    """The content is whole, mtime the origin's, mode 0644 less the umask, directories 0755 less it; no temp is left."""
    fingerprint = publish(export, "a/b/file", b"content")

    found = os.stat(root / "a" / "b" / "file")
    assert (root / "a" / "b" / "file").read_bytes() == b"content"
    assert found.st_mtime_ns == MTIME_NS
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert stat.S_IMODE(os.stat(root / "a" / "b").st_mode) == 0o750
    assert stat.S_IMODE(os.stat(root / ".replicator" / "tmp").st_mode) == 0o700
    looked = export.stat("a/b/file")
    assert looked is not None
    assert looked.fingerprint == fingerprint
    assert temps(root) == []


def test_fingerprint_before_the_rename_matches_the_one_after(export):
    """`finish` tells what `publish` will, but for ctime, which the rename moves: a row written between holds."""
    with export.create_temp() as temp:
        temp.write(b"content")
        finished = temp.finish(MTIME_NS)
        published = export.publish(temp, "file", replacing=None)

    assert finished.ctime_ns == 0
    assert published.ctime_ns != 0
    assert finished.matches(published)


@pytest.mark.fault("F6")
def test_temp_is_private_while_it_is_written(export, root):
    """Nobody else reads a half-written file: mode 0600 in a directory of mode 0700."""
    with export.create_temp() as temp:
        temp.write(b"half")
        (name,) = temps(root)
        assert stat.S_IMODE(os.stat(root / ".replicator" / "tmp" / name).st_mode) == 0o600


def test_abandoned_temp_is_removed(export, root):
    """A transfer that fails leaves nothing behind, neither a file nor a descriptor."""
    before = len(os.listdir("/proc/self/fd"))

    def fail() -> None:
        with export.create_temp() as temp:
            temp.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert temps(root) == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.fault("H3")
@pytest.mark.parametrize(
    ("mtime_ns", "kept_ns"),
    [(-1, 0), (-(10**30), 0), (0, 0), (10**30, None), (2**63 - 1, None)],
)
def test_impossible_times_are_clamped(export, root, mtime_ns, kept_ns):
    """A time before 1970 or beyond the file system's range is no reason to fail."""
    with export.create_temp() as temp:
        finished = temp.finish(mtime_ns)
        export.publish(temp, "file", replacing=None)

    found = os.stat(root / "file").st_mtime_ns
    assert finished.mtime_ns == found
    assert found == kept_ns or (kept_ns is None and found > MTIME_NS)


@pytest.mark.fault("C4")
def test_syncs_and_renames_come_in_the_order_that_survives_a_power_cut(export, root, monkeypatch):
    """New directories are synced into their parents; the file is synced before the rename, its directory after."""
    calls: list[str] = []
    fsync, rename, mkdir = os.fsync, os.rename, os.mkdir

    def name_of(fd: int) -> str:
        return re.sub(r"[0-9a-f]{32}", "RANDOM", os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(root.parent)))

    def traced_fsync(fd):
        calls.append(f"fsync {name_of(fd)}")
        fsync(fd)

    def traced_rename(source, target, *, src_dir_fd, dst_dir_fd):
        calls.append(f"rename {name_of(dst_dir_fd)}/{target}")
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def traced_mkdir(name, mode, *, dir_fd):
        calls.append(f"mkdir {name_of(dir_fd)}/{name}")
        mkdir(name, mode, dir_fd=dir_fd)

    (root / ".replicator" / "tmp").mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "rename", traced_rename)
    monkeypatch.setattr(os, "mkdir", traced_mkdir)
    publish(export, "a/b/file")

    assert calls == [
        "fsync /export/.replicator/tmp/RANDOM.tmp",
        "mkdir /export/a",
        "fsync /export",
        "mkdir /export/a/b",
        "fsync /export/a",
        "rename /export/a/b/file",
        "fsync /export/a/b",
    ]


def test_replacing_needs_the_version_that_was_looked_at(export, root):
    """Another version, a new file or no file where another was expected is SourceChanged, and stays as it is."""
    first = publish(export, "file", b"first")
    second = publish(export, "file", b"second", replacing=first)

    with pytest.raises(SourceChanged):
        publish(export, "file", b"third", replacing=first)
    with pytest.raises(SourceChanged):
        publish(export, "file", b"third", replacing=None)
    with pytest.raises(SourceChanged):
        publish(export, "absent", b"third", replacing=second)
    assert (root / "file").read_bytes() == b"second"
    assert not (root / "absent").exists()
    assert temps(root) == []


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
@pytest.mark.fault("F3", "A19")
def test_what_is_no_plain_file_is_not_replaced(export, root, tmp_path, kind):
    """A directory, link or special file in the way is refused and left alone; so is what a link points to."""
    (tmp_path / "outside").write_bytes(b"outside")
    match kind:
        case "directory":
            (root / "file").mkdir()
        case "symlink":
            (root / "file").symlink_to(tmp_path / "outside")
        case _:
            os.mkfifo(root / "file")
    before = os.lstat(root / "file")

    with pytest.raises(Refused, match="'file' is"):
        publish(export, "file")
    assert os.lstat(root / "file") == before
    assert (tmp_path / "outside").read_bytes() == b"outside"


@pytest.mark.fault("F3")
def test_planted_link_as_parent_leads_nowhere(export, root, tmp_path):
    """Neither a file, nor a directory, nor a conflict copy is made through a link that the workload planted."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"outside")
    (root / "link").symlink_to(outside)

    for relpath in ("link/new", "link/deep/new", "link/file"):
        with pytest.raises(Refused, match="symbolic link"):
            publish(export, relpath)
        with pytest.raises(Refused, match="symbolic link"):
            export.set_aside(relpath, stamp="s")
    assert os.listdir(outside) == ["file"]


@pytest.mark.parametrize("parts", [".replicator", ".replicator/tmp"])
@pytest.mark.fault("F6")
def test_temp_directory_behind_a_link_is_refused(export, root, tmp_path, parts):
    """A link in place of our own directory gets no temporary file written, or cleared, through it."""
    outside = tmp_path / "outside"
    (outside / "tmp").mkdir(parents=True)
    leftover = outside / "tmp" / f"{'0' * 32}.tmp"
    leftover.write_bytes(b"")
    (root / parts).parent.mkdir(exist_ok=True)
    (root / parts).symlink_to(outside if parts == ".replicator" else outside / "tmp")

    with pytest.raises(Refused, match="symbolic link"):
        export.create_temp()
    with pytest.raises(Refused, match="symbolic link"):
        export.clear_temps()
    assert os.listdir(outside / "tmp") == [leftover.name]


def test_file_as_parent_is_not_replaced_by_a_directory(export, root):
    """An object `a/b` where the device has a file `a` does not cost the file."""
    (root / "a").write_bytes(b"file")

    with pytest.raises(Refused, match="'a' is a file where a directory is needed"):
        publish(export, "a/b")
    assert (root / "a").read_bytes() == b"file"


@pytest.mark.fault("F6")
def test_temp_that_was_exchanged_is_noticed(export, root):
    """What is in place in the end must be the very file that was written."""
    with export.create_temp() as temp:
        temp.finish(MTIME_NS)
        (name,) = temps(root)
        (root / ".replicator" / "tmp" / "other").write_bytes(b"foreign")
        os.replace(root / ".replicator" / "tmp" / "other", root / ".replicator" / "tmp" / name)
        with pytest.raises(SourceChanged):
            export.publish(temp, "file", replacing=None)


@pytest.mark.fault("A9")
def test_full_disk_keeps_the_old_file(small_disk):
    """No room for bytes is DiskFull; the old version is untouched, the temp gone, and it works again with room."""
    export = Export(str(small_disk))
    first = publish(export, "file", b"first")

    with pytest.raises(DiskFull, match="No space left"):
        publish(export, "file", b"x" * (2 << 20), replacing=first)
    assert (small_disk / "file").read_bytes() == b"first"
    assert temps(small_disk) == []
    publish(export, "file", b"x" * (1 << 18), replacing=first)


@pytest.mark.fault("A9")
def test_full_inode_table_is_a_full_disk(small_disk):
    """No room for another name is DiskFull as well."""
    export = Export(str(small_disk))
    publish(export, "file")
    with contextlib.suppress(OSError):
        for number in range(100):
            (small_disk / str(number)).touch()

    with pytest.raises(DiskFull):
        export.create_temp()


@pytest.mark.fault("A11")
def test_file_above_the_size_limit_is_a_full_disk(export, root):
    """A process limit on file size is told like a full disk, never swallowed."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DiskFull, match="File too large"):
            publish(export, "file", b"x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (root / "file").exists()


@pytest.mark.fault("A13")
@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.EIO, Refused), (errno.EDQUOT, DiskFull), (errno.EROFS, Refused), (errno.ENOSPC, DiskFull)],
)
def test_failed_sync_publishes_nothing(export, root, monkeypatch, code, error):
    """When the content cannot be made durable the file is thrown away, never tried a second time."""
    first = publish(export, "file", b"first")
    calls: list[int] = []

    def fail(fd):
        calls.append(fd)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error):
        publish(export, "file", b"second", replacing=first)
    assert len(calls) == 1
    assert (root / "file").read_bytes() == b"first"
    assert temps(root) == []


def test_rename_that_fails_leaves_the_old_file(export, root, monkeypatch):
    """There is no second way into place: an error of the rename is told and the old version stays."""
    first = publish(export, "file", b"first")

    def fail(*_, **__):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(Refused, match="one file system"):
        publish(export, "file", b"second", replacing=first)
    assert (root / "file").read_bytes() == b"first"
    assert temps(root) == []


@pytest.mark.fault("A16")
def test_read_only_export_is_refused_with_the_fix(small_disk):
    """A read-only export can be read and walked; writing says what to do."""
    (small_disk / "file").write_bytes(b"content")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    export = Export(str(small_disk))

    with pytest.raises(Refused, match="read-write"):
        export.create_temp()
    assert export.clear_temps() == 0
    with export.open("file") as opened:
        assert opened.read() == b"content"


def test_directory_without_permission_is_refused_with_the_fix(open_root, run_as_nobody):
    """A process that may not write says so, with the path."""
    if os.geteuid() != 0:
        pytest.skip("directories of another owner need root")
    code = """
try: Export(args[0]).create_temp()
except Refused as exc: print(exc)
"""

    said = run_as_nobody(code, open_root)
    assert str(open_root) in said
    assert "Permission denied. Give this user the permission" in said


def test_conflict_copy_is_the_edited_file_itself(export, root):
    """The edited file gets a second name, it is not copied: same inode, same content, and no moment without `name`."""
    (root / "d").mkdir()
    (root / "d" / "file.txt").write_bytes(b"edited")
    inode = os.stat(root / "d" / "file.txt").st_ino

    copy = export.set_aside("d/file.txt", stamp="20260102T030405Z")
    assert copy == "d/file.txt.sync-conflict-20260102T030405Z"
    assert sorted(os.listdir(root / "d")) == ["file.txt", "file.txt.sync-conflict-20260102T030405Z"]
    assert os.stat(root / copy).st_ino == inode
    assert (root / copy).read_bytes() == b"edited"


def test_conflict_copy_of_a_failed_replacement_is_found_again(export, root):
    """Attempt after attempt makes one copy, so that a full disk does not use up the limit."""
    (root / "file").write_bytes(b"edited")

    assert export.set_aside("file", stamp="s1") == export.set_aside("file", stamp="s2") == "file.sync-conflict-s1"
    assert len(os.listdir(root)) == 2


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP])
def test_conflict_copy_is_a_rename_where_links_cannot_be_made(export, root, monkeypatch, refusal):
    """FAT has no hard links; a copy that has the name already is not overwritten there either."""

    def fail(*_, **__):
        raise OSError(refusal, "no links here")

    monkeypatch.setattr(os, "link", fail)
    (root / "file").write_bytes(b"edited")
    (root / "file.sync-conflict-s").write_bytes(b"older")

    assert export.set_aside("file", stamp="s") == "file.sync-conflict-s-2"
    assert (root / "file.sync-conflict-s").read_bytes() == b"older"
    assert (root / "file.sync-conflict-s-2").read_bytes() == b"edited"
    assert not (root / "file").exists()


@pytest.mark.fault("F8")
def test_conflict_copy_never_overwrites(export, root):
    """A name that is taken gets a number; what has the name keeps it."""
    copies = []
    for content in (b"one", b"two", b"three"):
        (root / "file").write_bytes(content)
        copies.append(export.set_aside("file", stamp="s"))
        (root / "file").unlink()

    assert copies == ["file.sync-conflict-s", "file.sync-conflict-s-2", "file.sync-conflict-s-3"]
    assert [(root / copy).read_bytes() for copy in copies] == [b"one", b"two", b"three"]


def test_conflict_copies_are_limited_and_none_is_deleted(export, root):
    """At the limit the file is refused and stays where it is; copies of other files do not count."""
    for number in range(3):
        (root / "file").write_bytes(b"%d" % number)
        export.set_aside("file", stamp=f"s{number}", limit=3)
        (root / "file").unlink()
    (root / "file").write_bytes(b"last")
    (root / "file2").write_bytes(b"other")

    with pytest.raises(Refused, match="3 conflict copies"):
        export.set_aside("file", stamp="s3", limit=3)
    assert (root / "file").read_bytes() == b"last"
    export.set_aside("file2", stamp="s3", limit=3)
    assert len(os.listdir(root)) == 6


@pytest.mark.parametrize("name", ["n" * 255, "\u00e9" * 127, os.fsdecode(b"\xff" * 255)])
def test_conflict_copy_of_a_long_name_fits(export, root, name):
    """Names are shortened to what the file system takes, never inside a character, and still limited together."""
    copies = set()
    for _ in range(2):
        (root / name).write_bytes(b"")
        copies.add(export.set_aside(name, stamp="20260102T030405Z", limit=2))
        (root / name).unlink()

    assert len(copies) == 2
    assert set(os.listdir(root)) == copies
    assert all(len(os.fsencode(copy)) <= 255 for copy in copies)
    (root / name).write_bytes(b"")
    with pytest.raises(Refused):
        export.set_aside(name, stamp="20260102T030405Z", limit=2)


def test_conflict_copy_of_what_is_not_there(export, root, monkeypatch):
    """A file that vanished is SourceChanged, a directory Refused; a failed link leaves no empty copy behind."""
    (root / "dir").mkdir()
    (root / "file").write_bytes(b"edited")

    with pytest.raises(SourceChanged):
        export.set_aside("absent", stamp="s")
    with pytest.raises(Refused):
        export.set_aside("dir", stamp="s")

    def fail(*_, **__):
        raise OSError(errno.EACCES, "denied")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(Refused):
        export.set_aside("file", stamp="s")
    assert sorted(os.listdir(root)) == ["dir", "file"]


def test_only_leftovers_of_the_dead_are_cleared(export, root):
    """Our own name pattern, regular, held by nobody: that is removed, and nothing else."""
    directory = root / ".replicator" / "tmp"
    with export.create_temp() as temp:
        temp.write(b"alive")
        (alive,) = temps(root)
        (directory / f"{'0' * 32}.tmp").write_bytes(b"dead")
        (directory / "notes.txt").write_bytes(b"foreign")
        os.mkfifo(directory / f"{'1' * 32}.tmp")
        (directory / f"{'2' * 32}.tmp").symlink_to("notes.txt")

        assert export.clear_temps() == 1
        assert sorted(temps(root)) == sorted([alive, f"{'1' * 32}.tmp", f"{'2' * 32}.tmp", "notes.txt"])


def test_many_threads_publish_at_a_time(export, root):
    """Threads share one Export: each file is whole, parents are made once, no temp is left."""
    failures: list[ReplicatorError] = []

    def work(number: int) -> None:
        try:
            for step in range(10):
                publish(export, f"shared/{step}/{number}", b"%d" % number)
        except ReplicatorError as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert sum(len(directory.files) for directory in export.walk()) == 80
    assert temps(root) == []


def test_free_bytes_are_what_this_user_may_write(small_disk):
    """The number is the file system's, and falls as it fills."""
    export = Export(str(small_disk), "not-made-yet")
    before = export.free_bytes()
    (small_disk / "file").write_bytes(b"x" * (1 << 19))

    after = export.free_bytes()
    assert before is not None
    assert after is not None
    assert before - after == 1 << 19


def test_names_too_long_for_a_file_are_unsafe_to_publish(export, root):
    """A key whose segment no file system takes is a bad name, told before anything is in place."""
    with pytest.raises(KeyUnsafe):
        publish(export, "a/" + "x" * 256)
