"""Temporary files that are gone on with: nothing written is lost, nothing foreign is trusted."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from replicator.errors import DiskFull, Refused, SourceChanged
from replicator.stores.files.export import Export, TempFile
from replicator.stores.files.temp import PART_KEPT_S

MTIME_NS = 1_700_000_000_123_456_789
TOKEN = "0123456789abcdef" * 2
PART = f"{TOKEN}.part"

WRITE_FOR_EVER = """
import sys
from replicator.stores.files.export import Export

with Export(sys.argv[1]).resume_temp(sys.argv[2]) as temp:
    while True:
        temp.write(b"0123456789")
        print(temp.size, flush=True)
"""


def directory(root: Path) -> Path:
    return root / ".replicator" / "tmp"


def begin(export: Export, content: bytes = b"begun, ") -> None:
    """An attempt that was given up after some bytes."""
    with export.resume_temp(TOKEN) as temp:
        temp.write(content)


@pytest.fixture
def umask():
    """The process' umask is a known one, and comes back."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_what_was_written_is_gone_on_with(export, root, umask):
    """The second attempt finds the bytes of the first, appends, and publishes one whole file of the usual mode."""
    begin(export)
    with export.resume_temp(TOKEN) as temp:
        assert temp.size == 7
        assert b"".join(temp.blocks()) == b"begun, "
        temp.write(b"ended")
        assert temp.size == 12
        temp.finish(MTIME_NS)
        export.publish(temp, "file", replacing=None)

    assert (root / "file").read_bytes() == b"begun, ended"
    assert stat.S_IMODE(os.stat(root / "file").st_mode) == 0o640
    assert os.stat(root / "file").st_mtime_ns == MTIME_NS
    assert os.listdir(directory(root)) == []


def test_kept_file_is_private(export, root):
    """Nobody else reads a half-written file, neither while it is written nor while it waits."""
    with export.resume_temp(TOKEN) as temp:
        temp.write(b"half")
        assert stat.S_IMODE(os.stat(directory(root) / PART).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(directory(root) / PART).st_mode) == 0o600


def test_blocks_come_in_order_and_in_the_asked_size(export):
    """The running checksum of an earlier attempt is made again block by block; reading moves no place of writing."""
    begin(export, b"abcdefghij")
    with export.resume_temp(TOKEN) as temp:
        assert list(temp.blocks(4)) == [b"abcd", b"efgh", b"ij"]
        temp.write(b"k")
        assert list(temp.blocks(4)) == [b"abcd", b"efgh", b"ijk"]


def test_truncated_file_goes_on_from_there(export):
    """What is cut off is gone, and the next block follows what is left."""
    begin(export, b"abcdefghij")
    with export.resume_temp(TOKEN) as temp:
        temp.truncate(4)
        temp.write(b"E")
        assert temp.size == 5
    with export.resume_temp(TOKEN) as temp:
        assert b"".join(temp.blocks()) == b"abcdE"


def test_discarded_and_empty_files_are_not_kept(export, root):
    """Nothing is left of an attempt that is no good, nor of one that wrote nothing."""
    with export.resume_temp(TOKEN) as temp:
        temp.write(b"bad")
        temp.discard()
    assert os.listdir(directory(root)) == []
    with export.resume_temp(TOKEN):
        pass
    assert os.listdir(directory(root)) == []


def test_nothing_stays_open(export):
    """Kept, discarded, held and refused files cost no descriptor."""
    begin(export)
    before = len(os.listdir("/proc/self/fd"))
    with export.resume_temp(TOKEN), export.resume_temp(TOKEN):
        pass
    (directory(Path(export.root)) / PART).chmod(0o666)
    with export.resume_temp(TOKEN) as temp:
        temp.discard()
    export.clear_temps()

    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("token", ["short", "../" + "0" * 29, "0" * 31 + "G", "0" * 32 + "\n"])
@pytest.mark.fault("F6")
def test_token_is_no_path(export, token):
    """Only 32 hexadecimal digits name a part."""
    with pytest.raises(ValueError, match="hexadecimal"):
        export.resume_temp(token)


def test_held_file_is_left_to_its_holder(export, root):
    """Who comes second writes a file of its own, which is not kept, and the first one's bytes stay alone."""
    with export.resume_temp(TOKEN) as first:
        first.write(b"first")
        with export.resume_temp(TOKEN) as second:
            assert second.size == 0
            second.write(b"second")
            assert len(os.listdir(directory(root))) == 2
        assert os.listdir(directory(root)) == [PART]
        first.write(b"!")

    assert (directory(root) / PART).read_bytes() == b"first!"


def test_one_of_many_threads_has_the_file(export, root, in_threads):
    """However many resume one token at the same time, one gets the kept file."""
    begin(export)
    barrier = threading.Barrier(8)

    def resume() -> TempFile:
        barrier.wait(30)
        return export.resume_temp(TOKEN)

    temps = in_threads(*[resume] * 8)
    sizes = sorted(temp.size for temp in temps)
    with ExitStack() as opened:
        for temp in temps:
            opened.enter_context(temp)

    assert sizes == [0] * 7 + [7]
    assert os.listdir(directory(root)) == [PART]


def test_killed_writer_leaves_what_it_wrote(export, root):
    """After SIGKILL the lock is free and every byte that was written is there to go on from."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(root), TOKEN],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as writer:
        sizes = [int(writer.stdout.readline()) for _ in range(20)]
        with export.resume_temp(TOKEN) as temp:
            assert temp.size == 0
        writer.send_signal(signal.SIGKILL)

    assert sizes[-1] == 200
    with export.resume_temp(TOKEN) as temp:
        assert temp.size >= 200
        assert b"".join(temp.blocks()) == (b"0123456789" * temp.size)[: temp.size]


@pytest.mark.parametrize(
    "kind", ["symlink", "dangling link", "hard link", "fifo", "directory", "writable by others", "foreign owner"]
)
@pytest.mark.fault("F6")
def test_planted_file_is_not_gone_on_with(export, root, tmp_path, kind):
    """What others may have had a hand in is neither read, nor written, nor removed."""
    directory(root).mkdir(parents=True)
    planted = directory(root) / PART
    (tmp_path / "outside").write_bytes(b"outside")
    match kind:
        case "symlink":
            planted.symlink_to(tmp_path / "outside")
        case "dangling link":
            planted.symlink_to(tmp_path / "absent")
        case "hard link":
            planted.hardlink_to(tmp_path / "outside")
        case "fifo":
            os.mkfifo(planted)
        case "directory":
            planted.mkdir()
        case "writable by others":
            planted.write_bytes(b"planted")
            planted.chmod(0o620)
        case _:
            if os.geteuid() != 0:
                pytest.skip("giving a file away needs root")
            planted.write_bytes(b"planted")
            os.chown(planted, 12345, 12345)
    before = os.lstat(planted)
    with export.resume_temp(TOKEN) as temp:
        assert temp.size == 0
        temp.write(b"new")
        temp.finish(MTIME_NS)
        export.publish(temp, "file", replacing=None)

    assert (root / "file").read_bytes() == b"new"
    assert os.lstat(planted) == before
    assert (tmp_path / "outside").read_bytes() == b"outside"
    assert not (tmp_path / "absent").exists()


def test_file_that_is_published_meanwhile_is_not_written_to(export, root, monkeypatch):
    """Between opening and locking the holder before may have published it: then it is no temporary file."""
    begin(export, b"published")
    flock = fcntl.flock

    def publish_first(fd, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        os.rename(directory(root) / PART, root / "file")
        flock(fd, operation)

    monkeypatch.setattr("replicator.stores.files.temp._published_mode", lambda _: 0o644)
    monkeypatch.setattr(fcntl, "flock", publish_first)
    with export.resume_temp(TOKEN) as temp:
        assert temp.size == 0
        temp.write(b"other")

    assert (root / "file").read_bytes() == b"published"


def test_finished_file_outlives_a_publication_that_failed(export, root):
    """When the name is taken at the last moment nothing has to be fetched again."""
    (root / "file").write_bytes(b"edited")
    with export.resume_temp(TOKEN) as temp:
        temp.write(b"whole")
        temp.finish(MTIME_NS)
        with pytest.raises(SourceChanged):
            export.publish(temp, "file", replacing=None)

    assert stat.S_IMODE(os.stat(directory(root) / PART).st_mode) == 0o600
    (root / "file").unlink()
    with export.resume_temp(TOKEN) as temp:
        assert b"".join(temp.blocks()) == b"whole"
        temp.finish(MTIME_NS)
        export.publish(temp, "file", replacing=None)
    assert (root / "file").read_bytes() == b"whole"


def test_crash_between_finish_and_rename_costs_nothing(export, root):
    """A file that has its published mode and its origin's old time already is still gone on with, and private again."""
    begin(export)
    (directory(root) / PART).chmod(0o644)
    os.utime(directory(root) / PART, (0, 0))

    assert export.clear_temps() == 0
    with export.resume_temp(TOKEN) as temp:
        assert temp.size == 7
        assert stat.S_IMODE(os.stat(directory(root) / PART).st_mode) == 0o600


def test_full_disk_keeps_nothing(small_disk):
    """A write without room removes what it had, so that the device gets its room back."""
    export = Export(str(small_disk))
    with pytest.raises(DiskFull), export.resume_temp(TOKEN) as temp:
        temp.write(b"x" * (2 << 20))

    assert os.listdir(directory(small_disk)) == []


def test_failed_sync_keeps_nothing(export, root, monkeypatch):
    """After a sync that failed the kernel may have dropped pages, so no later attempt goes on from them."""

    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with export.resume_temp(TOKEN) as temp:
        temp.write(b"lost")
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(Refused):
            temp.finish(MTIME_NS)

    assert os.listdir(directory(root)) == []


def test_parts_are_cleared_when_they_are_old(export, root, monkeypatch):
    """A part that nobody went on with is removed after its time, one that is held never, the others stay."""
    begin(export)
    held = "f" * 32
    with export.resume_temp(held) as temp:
        temp.write(b"held")
        now = time.time()
        monkeypatch.setattr("replicator.stores.files.temp.time.time", lambda: now + PART_KEPT_S - 60)
        assert export.clear_temps() == 0
        monkeypatch.setattr("replicator.stores.files.temp.time.time", lambda: now + PART_KEPT_S + 60)

        assert export.clear_temps() == 1
        assert os.listdir(directory(root)) == [f"{held}.part"]


def test_part_that_took_a_cleared_one_s_place_is_not_cleared(export, root, monkeypatch):
    """Clearing removes the file it has locked, never a newer one of the same name."""
    begin(export)
    flock, now = fcntl.flock, time.time()

    def replace_first(fd, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        os.rename(directory(root) / PART, root / "published")
        (directory(root) / PART).write_bytes(b"newer")
        flock(fd, operation)

    monkeypatch.setattr("replicator.stores.files.temp.time.time", lambda: now + PART_KEPT_S + 60)
    monkeypatch.setattr(fcntl, "flock", replace_first)

    assert export.clear_temps() == 0
    assert (directory(root) / PART).read_bytes() == b"newer"
