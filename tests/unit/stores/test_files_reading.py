"""Looking at and opening files: plain files only, beneath the root only, through no link."""

import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from replicator.errors import KeyUnsafe, LeftOut, Refused, Retryable, SourceChanged
from replicator.model import Fingerprint
from replicator.stores.files.export import Export, ignore_lease_signals

UNSAFE = [
    "",
    ".",
    "..",
    "/etc/passwd",
    "a//b",
    "a/",
    "../outside",
    "a/../../outside",
    "a/./b",
    "a\0b",
    "\ud800",
    ".replicator/tmp/x",
    ".replicator",
]
NAMES = [
    "plain",
    "with space",
    "new\nline",
    "x" * 255,
    "caf\u00e9",
    "cafe\u0301",
    os.fsdecode(b"not-utf8-\xff\xfe"),
    "trailing. ",
    "#?%+\\",
]


@pytest.fixture
def lease_signals():
    """Lease breaks do not end the test run."""
    before = signal.getsignal(signal.SIGIO)
    ignore_lease_signals()
    yield
    signal.signal(signal.SIGIO, before)


def writer_of(path: Path) -> "subprocess.Popen[str]":
    """Another process that holds `path` open for writing until its standard input ends."""
    code = "import os, sys; os.open(sys.argv[1], os.O_WRONLY); print('open', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


@pytest.mark.fault("A21")
@pytest.mark.parametrize("name", NAMES)
def test_any_name_the_kernel_has_is_looked_at_and_read(export, root, name):
    """Whatever bytes a name consists of, the file is found under it and read whole."""
    (root / "d").mkdir()
    (root / "d" / name).write_bytes(b"content")

    found = export.stat(f"d/{name}")
    assert found is not None
    assert found.relpath == f"d/{name}"
    with export.open(f"d/{name}") as opened:
        assert opened.read() == b"content"
        assert opened.fingerprint == found.fingerprint


@pytest.mark.parametrize("relpath", UNSAFE)
@pytest.mark.fault("F1")
def test_unsafe_relpath_is_refused_by_every_operation(export, root, relpath):
    """A relpath that leads elsewhere, that no file can have, or that is ours raises KeyUnsafe and touches nothing."""
    (root / ".replicator" / "tmp").mkdir(parents=True)
    (root / ".replicator" / "tmp" / "x").write_bytes(b"ours")

    with pytest.raises(KeyUnsafe):
        export.stat(relpath)
    with pytest.raises(KeyUnsafe):
        export.open(relpath)
    with pytest.raises(KeyUnsafe):
        export.set_aside(relpath, stamp="s")
    with export.create_temp() as temp:
        temp.finish(1)
        with pytest.raises(KeyUnsafe):
            export.publish(temp, relpath, replacing=None)
    assert sorted(os.listdir(root)) == [".replicator"]


def test_own_directory_is_ours_at_the_top_only(root):
    """`.replicator` below a mapped subdirectory is the workload's; at the top it is ours even by another mapping."""
    (root / "sub" / ".replicator").mkdir(parents=True)
    (root / "sub" / ".replicator" / "x").write_bytes(b"theirs")
    (root / ".replicator").mkdir()
    (root / ".replicator" / "x").write_bytes(b"ours")

    assert Export(str(root), "sub").stat(".replicator/x") is not None
    with pytest.raises(KeyUnsafe):
        Export(str(root), ".replicator").stat("x")


def test_name_longer_than_the_file_system_allows_is_unsafe(export):
    """A name of 256 bytes cannot be a file, so it is a bad name, not an absent file."""
    with pytest.raises(KeyUnsafe):
        export.stat("x" * 256)


@pytest.mark.fault("A22")
def test_absent_file_is_none(export, root):
    """Nothing there is None, also where a parent is missing or is a file; opening it is SourceChanged."""
    (root / "file").write_bytes(b"")

    assert export.stat("absent") is None
    assert export.stat("absent/below") is None
    assert export.stat("file/below") is None
    with pytest.raises(SourceChanged):
        export.open("absent")
    with pytest.raises(SourceChanged):
        export.open("file/below")


def test_missing_root_has_no_files_and_no_identity(tmp_path):
    """A root that is not there has no identity, no files, no free space, and nothing is made for it."""
    export = Export(str(tmp_path / "absent"), "sub")

    assert export.identity() is None
    assert export.stat("x") is None
    assert list(export.walk()) == []
    assert export.free_bytes() is None
    assert export.clear_temps() == 0
    with pytest.raises(SourceChanged):
        export.create_temp()
    assert os.listdir(tmp_path) == []


def test_identity_tells_a_replaced_directory(root):
    """The identity is that of the mapped directory, and differs once another directory has its name."""
    (root / "sub").mkdir()
    export = Export(str(root), "sub")
    before = export.identity()
    (root / "sub").rename(root / "old")
    (root / "sub").mkdir()

    found = os.stat(root / "sub")
    assert export.identity() == (found.st_dev, found.st_ino)
    assert export.identity() != before


def test_identity_is_none_behind_a_link_or_for_a_file(root, tmp_path):
    """A link, at the root itself or below, and a file in place of the directory are as good as missing."""
    (root / "real").mkdir()
    (root / "link").symlink_to("real")
    (root / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(root)

    assert Export(str(root), "link").identity() is None
    assert Export(str(root), "file").identity() is None
    assert Export(str(tmp_path / "link")).identity() is None
    assert list(Export(str(root), "link").walk()) == []


@pytest.mark.parametrize("relpath", ["leaf", "dir/secret", "dir/absent", "inner"])
@pytest.mark.fault("F3", "F5")
def test_link_is_refused_wherever_it_stands(export, root, tmp_path, relpath):
    """A symbolic link is not followed as the file nor as a parent, whether it leads outside, inside or nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "leaf").symlink_to(outside / "secret")
    (root / "dir").symlink_to(outside)
    (root / "plain").write_bytes(b"")
    (root / "inner").symlink_to("plain")

    for call in (export.stat, export.open):
        with pytest.raises(LeftOut, match="symbolic link") as caught:
            call(relpath)
        assert caught.value.reason == "symlink"


@pytest.mark.fault("A19")
def test_special_files_are_refused_without_blocking(export, root):
    """A FIFO without a writer, a socket and a directory are refused at once."""
    os.mkfifo(root / "fifo")
    (root / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))

        for relpath, rule in (("fifo", "special"), ("socket", "special"), ("directory", "directory")):
            for call in (export.stat, export.open):
                with pytest.raises(LeftOut) as caught:
                    call(relpath)
                assert caught.value.reason == rule


@pytest.mark.fault("A19")
def test_device_node_is_refused(export, root):
    """A device is not read: /dev/zero would never end."""
    try:
        os.mknod(root / "zero", 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("making a device node needs root")

    with pytest.raises(Refused, match="not a regular file"):
        export.open("zero")


@pytest.mark.parametrize("swapped_in", ["fifo", "link"])
@pytest.mark.fault("A19", "F4")
def test_special_file_that_takes_the_place_of_a_plain_one_is_refused(export, root, monkeypatch, swapped_in):
    """What was a plain file at the look and is a FIFO or a link at the open is still not read."""
    (root / "file").write_bytes(b"")
    check = Export._check
    os.mkfifo(root / "fifo")
    (root / "plain").write_bytes(b"elsewhere")
    (root / "link").symlink_to("plain")
    looks = []

    def swap(self, relpath, found, device):
        looks.append(found)
        if len(looks) == 1:
            os.replace(root / swapped_in, root / "file")
        else:
            check(self, relpath, found, device)

    monkeypatch.setattr(Export, "_check", swap)
    with pytest.raises(Refused, match="is a symbolic link" if swapped_in == "link" else "not a regular file"):
        export.open("file")
    assert stat.S_ISREG(looks[0].st_mode)


@pytest.mark.fault("A23")
def test_hard_link_is_refused_unless_allowed(export, root, tmp_path):
    """A second name may lie outside the export, so it is refused by default and read where that is allowed."""
    (tmp_path / "outside").write_bytes(b"linked")
    os.link(tmp_path / "outside", root / "inside")

    for call in (export.stat, export.open):
        with pytest.raises(LeftOut, match="hard link") as caught:
            call("inside")
        assert caught.value.reason == "hard-linked"
    with Export(str(root), hard_links="allow").open("inside") as opened:
        assert opened.read() == b"linked"


@pytest.mark.fault("F6")
def test_other_file_system_is_refused(small_disk):
    """What lies on another file system mounted inside the export is refused, there or not there."""
    export = Export(str(small_disk.parent))
    (small_disk / "file").write_bytes(b"")

    for relpath in ("small/file", "small/absent"):
        with pytest.raises(LeftOut, match="another file system") as caught:
            export.stat(relpath)
        assert caught.value.reason == "other-device"


def test_mapped_directory_may_be_a_file_system_of_its_own(small_disk):
    """A volume that is mounted at the mapped directory itself is what was asked for."""
    (small_disk / "file").write_bytes(b"")
    export = Export(str(small_disk.parent), "small")

    assert export.stat("file") is not None
    assert [len(directory.files) for directory in export.walk()] == [1]


@pytest.mark.fault("A15")
def test_unreadable_file_and_directory_are_refused_by_name(open_root, run_as_nobody):
    """Without permission to read, the error names the file and is for a person; nothing else is the matter."""
    (open_root / "file").write_bytes(b"")
    (open_root / "file").chmod(0)
    (open_root / "closed").mkdir(mode=0)
    code = """
for relpath in ("file", "closed/file"):
    for call in (Export(args[0]).stat, Export(args[0]).open):
        try: call(relpath)
        except Refused as exc: print(type(exc).__name__, relpath in str(exc), "ermission" in str(exc))
"""
    if os.geteuid() != 0:
        pytest.skip("files of another owner need root")

    assert run_as_nobody(code, open_root) == "\n".join(["Refused True True"] * 4)


@pytest.mark.fault("H3")
def test_mtime_beyond_64_bits_is_clamped(monkeypatch, export, root):
    """Some file systems keep times beyond the year 2262; ns of those have no place in 64 bits."""
    (root / "far").write_bytes(b"")
    os.utime(root / "far", (15_000_000_000, 15_000_000_000))
    if os.stat(root / "far").st_mtime < 15_000_000_000:
        pytest.skip("this file system clamps times itself")

    found = export.stat("far")
    assert found is not None
    assert found.fingerprint.mtime_ns == 2**63 - 1
    with export.open("far") as opened:
        assert opened.is_unchanged()


def test_reading_in_parts_and_blocks_gives_the_content(export, root):
    """read_at and blocks give every byte once, and stop at the length the fingerprint told."""
    content = bytes(range(256)) * 40
    (root / "file").write_bytes(content)

    with export.open("file") as opened:
        assert opened.read() == content
        assert b"".join(opened.blocks(1000)) == content
        assert opened.read_at(10_000, 1000) == content[10_000:]
        assert opened.read_at(0, 0) == b""
    (root / "empty").write_bytes(b"")
    with export.open("empty") as opened:
        assert opened.read() == b""
        assert list(opened.blocks()) == []


@pytest.mark.fault("A1", "A2")
def test_file_that_grows_or_shrinks_meanwhile_is_not_read_whole(export, root):
    """A length other than the fingerprint's is SourceChanged, never silently short or long content."""
    path = root / "file"
    path.write_bytes(b"0123456789")

    with export.open("file") as opened:
        with path.open("ab") as writer:
            writer.write(b"more")
        with pytest.raises(SourceChanged, match="grew"):
            opened.read()
        assert b"".join(opened.blocks()) == b"0123456789"
        assert not opened.is_unchanged()
        os.truncate(path, 4)
        with pytest.raises(SourceChanged, match="cut short"):
            opened.read()
        with pytest.raises(SourceChanged, match="cut short"):
            list(opened.blocks(3))


def _rewrite_with_old_times(path: Path) -> None:
    before = os.stat(path)
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.fault("A1", "A3")
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"CONTENT"),
        _rewrite_with_old_times,
        lambda path: path.unlink(),
        lambda path: os.replace(path.with_name("other"), path),
        _replace_by_link,
    ],
    ids=[
        "rewritten",
        "rewritten with old times",
        "removed",
        "replaced",
        "moved behind a link",
    ],
)
def test_every_change_is_seen_by_is_unchanged(export, root, change):
    """Same size or old times make no rewrite invisible, nor does a name that leads elsewhere by now."""
    (root / "d").mkdir()
    (root / "d" / "file").write_bytes(b"content")
    (root / "d" / "other").write_bytes(b"content")

    with export.open("d/file") as opened:
        assert opened.is_unchanged()
        change(root / "d" / "file")
        assert not opened.is_unchanged()


def test_writer_in_another_process_is_seen(export, root, lease_signals):
    """The close gate says True while another process has the file open for writing, and False after."""
    (root / "file").write_bytes(b"content")

    with export.open("file") as opened:
        if opened.has_writer() is None:
            pytest.skip("this kernel or user gets no leases")
        assert opened.has_writer() is False
        with writer_of(root / "file") as writer:
            assert opened.has_writer() is True
            assert writer.stdin is not None
            writer.stdin.close()
            writer.wait()
        assert opened.has_writer() is False


def test_probe_keeps_no_writer_waiting(export, root, lease_signals):
    """The lease is given back at once: a writer opens the file without delay while we still read it."""
    (root / "file").write_bytes(b"content")

    with export.open("file") as opened:
        opened.has_writer()
        fd = os.open(root / "file", os.O_WRONLY | os.O_NONBLOCK)
        os.close(fd)


def test_probe_is_not_made_while_it_could_end_the_process(export, root):
    """With SIGIO at its default the answer is None: a probe could be answered by a deadly signal."""
    (root / "file").write_bytes(b"content")
    before = signal.signal(signal.SIGIO, signal.SIG_DFL)
    try:
        with export.open("file") as opened:
            assert opened.has_writer() is None
    finally:
        signal.signal(signal.SIGIO, before)


def test_probe_of_a_foreign_file_says_that_it_cannot_tell(open_root, run_as_nobody):
    """Who is neither owner nor privileged gets None, not a wrong answer."""
    if os.geteuid() != 0:
        pytest.skip("files of another owner need root")
    (open_root / "file").write_bytes(b"content")
    code = """
from replicator.stores.files.export import ignore_lease_signals
ignore_lease_signals()
with Export(args[0]).open("file") as opened: print(opened.has_writer())
"""

    assert run_as_nobody(code, open_root) == "None"


@pytest.mark.fault("G3")
def test_lack_of_descriptors_is_tried_again(export, root, run_as_nobody, open_root):
    """Running out of descriptors is this process' trouble, not the file's."""
    (open_root / "file").write_bytes(b"content")
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))
try: Export(args[0]).open("file")
except Retryable as exc: print(type(exc).__name__, "file" in str(exc))
"""

    assert issubclass(SourceChanged, Retryable)
    assert run_as_nobody(code, open_root) == "Retryable True"


def test_unreadable_medium_is_refused_with_its_cause(export, root, monkeypatch):
    """An input/output error names the file and the cause, and does not pass for an end of file."""
    (root / "file").write_bytes(b"content")

    def fail(*_):
        raise OSError(5, "Input/output error")

    with export.open("file") as opened:
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(Refused, match="'file' cannot be read: Input/output error"):
            opened.read()


@pytest.mark.slow
@pytest.mark.parametrize("swapped", ["leaf", "parent"])
@pytest.mark.fault("F4", "F5")
def test_link_swapped_in_during_open_never_leads_outside(export, root, tmp_path, swapped):
    """However often a racer exchanges the file, or its directory, with a link, no byte from outside is read."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    (root / "parent").mkdir()
    (root / "parent" / "file").write_bytes(b"inside")
    if swapped == "leaf":
        (root / "parent" / "decoy").symlink_to(outside / "file")
        pair = root / "parent" / "file", root / "parent" / "decoy"
    else:
        (root / "decoy").symlink_to(outside)
        pair = root / "parent", root / "decoy"
    libc = ctypes.CDLL(None, use_errno=True)
    at_cwd, exchange = -100, 2
    names = [os.fsencode(path) for path in pair]
    is_over = threading.Event()

    def race() -> None:
        while not is_over.is_set():
            libc.renameat2(at_cwd, names[0], at_cwd, names[1], exchange)

    racer = threading.Thread(target=race)
    racer.start()
    seen: dict[str, int] = {}
    deadline = time.monotonic() + 1.0
    try:
        while time.monotonic() < deadline:
            try:
                with export.open("parent/file") as opened:
                    outcome = opened.read().decode()
            except (LeftOut, SourceChanged) as exc:
                outcome = exc.reason
            seen[outcome] = seen.get(outcome, 0) + 1
    finally:
        is_over.set()
        racer.join()

    assert "secret" not in seen
    assert seen["inside"] > 0
    assert seen["symlink"] > 0


def test_fingerprint_is_the_kernels(export, root):
    """Size, times and inode are those of stat(2)."""
    (root / "file").write_bytes(b"content")
    found = os.stat(root / "file")

    looked = export.stat("file")
    assert looked is not None
    assert looked.fingerprint == Fingerprint(7, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
