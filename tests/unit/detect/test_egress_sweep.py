"""The egress sweep: finds what differs from the rows, and touches nothing but directories while nothing does."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
from pydantic import SecretStr

from replicator.detect import egress_sweep
from replicator.detect.egress_sweep import EgressSweep
from replicator.detect.sweep import Report
from replicator.errors import Unavailable
from replicator.model import Direction, Hint, Prefix, RemoteObject, Row, Storage, Target, TargetOptions
from replicator.stores.files import walk
from replicator.stores.files.export import Export
from replicator.stores.journal.journal import Journal
from replicator.stores.lane import Lane

STORAGE = Storage("http://store", "b", "r", SecretStr("id"), SecretStr("secret"))


class Objects:
    """A bucket that can be listed."""

    def __init__(self) -> None:
        self.listings = 0
        self.error: Exception | None = None
        self.names: list[str] = []

    def list(self, prefix: str):
        self.listings += 1
        if self.error:
            raise self.error
        return iter([[RemoteObject(prefix + name, 1, "another", 0) for name in self.names]])


class Watched(Export):
    """An export that counts the files it was asked for."""

    stats = 0
    told = 0

    def stat(self, relpath, **which):
        self.stats += 1
        return super().stat(relpath, **which)

    def walk(self, known=MappingProxyType({})):
        for directory in super().walk(known):
            self.told += len(directory.files)
            yield directory


class Device:
    """A directory, its rows and its sweep; what is hinted is taken to be sent at once, unless the test says no."""

    def __init__(self, home: Path, **options) -> None:
        self.root = home / "export"
        self.root.mkdir()
        self.objects = Objects()
        self.export = Watched(str(self.root))
        self.journal = Journal.open(str(home / "state"))
        self.number = self.journal.target("t")
        self.reads: list[str] = []
        target = Target("w", Direction.EGRESS, str(self.root), "", Prefix("p/"), STORAGE, TargetOptions(**options))
        lane = Lane(target, self.export, self.objects, self._counting(), self.number)  # type: ignore[arg-type]
        self.sweep = EgressSweep(lane)
        self.is_sending = True

    def _counting(self) -> SimpleNamespace:
        def rows_in(number: int, directory: str) -> list[Row]:
            self.reads.append(directory)
            return self.journal.rows_in(number, directory)

        names = ("totals", "rows", "row", "rows_of", "intents_of", "etags", "forget_all")
        return SimpleNamespace(rows_in=rows_in, **{name: getattr(self.journal, name) for name in names})

    def write(self, relpath: str, content: str = "content") -> Path:
        path = self.root / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def settle(self, *hints: Hint) -> None:
        for hint in hints:
            if hint.local:
                row = Row(hint.local.relpath, hint.local.fingerprint, "etag", "md5:x", is_verified=True)
                self.journal.settle(self.number, row)

    def run(self) -> tuple[list[str], Report]:
        """The relpaths that one sweep hints, and its report."""
        hints: list[Hint] = []

        async def found(more: list[Hint]) -> None:
            hints.extend(more)
            if self.is_sending:
                self.settle(*more)

        report = asyncio.run(self.sweep.run(found))
        return sorted(hint.relpath or "" for hint in hints), report

    def found(self) -> list[str]:
        return self.run()[0]

    def in_step(self) -> None:
        """Sweep until every directory is remembered; the counts begin anew."""
        self.run()
        assert self.found() == []
        self.reads.clear()
        self.export.told = self.export.stats = 0


@pytest.fixture
def make_device(tmp_path, monkeypatch):
    """Devices on which no file counts as touched a moment ago."""
    monkeypatch.setattr(egress_sweep, "_RACY_NS", 0)
    devices: list[Device] = []

    def make(**options) -> Device:
        devices.append(Device(tmp_path, **options))
        return devices[-1]

    yield make
    for device in devices:
        device.journal.close()


@pytest.fixture
def device(make_device) -> Iterator[Device]:
    return make_device()


def test_unchanged_directories_cost_no_row_and_no_value(device):
    """Once a directory was found in step, its files are counted, but neither told nor compared."""
    for name in ("a", "b/c", "b/d"):
        device.write(name)
    device.in_step()

    hints, report = device.run()
    assert (hints, report.files, report.directories) == ([], 3, 2)
    assert (device.reads, device.export.told, device.export.stats) == ([], 0, 0)


def test_first_sweep_reads_no_rows(device):
    """With an empty journal there is nothing to read, not even what is settled while the sweep goes on."""
    for number in range(3):
        device.write(f"{number}/f")

    assert device.found() == ["0/f", "1/f", "2/f"]
    assert (device.reads, device.objects.listings) == ([], 1)


def test_target_without_files_asks_the_bucket_once(device):
    """Once it has answered, a target that has nothing to send costs no request, as often as it is swept."""
    device.objects.error = Unavailable("no route")
    with pytest.raises(Unavailable):
        device.run()
    device.objects.error = None

    assert [device.found() for _ in range(3)] == [[], [], []]
    assert device.objects.listings == 2
    device.write("a/f")
    assert device.found() == ["a/f"]
    assert device.objects.listings == 3  # the file may have been sent by a process whose journal is lost
    assert device.found() == []
    assert device.objects.listings == 3


def test_objects_that_went_with_their_bucket_are_sent_again(device):
    """After a doubt two listings have to miss an object; what one of them has is left alone, whatever its version."""
    for name in ("a/kept", "a/late", "b/gone"):
        device.write(name)
    device.in_step()
    listings = device.objects.listings

    device.objects.names = ["a/kept"]
    device.sweep.doubt()
    hints, report = device.run()
    assert (hints, report.is_doubtful) == ([], True)
    device.objects.names = ["a/kept", "a/late"]
    device.sweep.doubt()
    hints, report = device.run()

    assert (hints, report.is_doubtful) == (["b/gone"], False)
    assert device.objects.listings == listings + 2
    assert device.found() == []
    assert device.objects.listings == listings + 2


def test_doubt_without_an_answer_voids_nothing(device):
    """A bucket that cannot be listed says nothing about its objects."""
    device.write("a/f")
    device.in_step()
    device.objects.error = Unavailable("no route")

    for _ in range(2):
        device.sweep.doubt()
        with pytest.raises(Unavailable):
            device.run()
    device.objects.error = None

    assert device.found() == []


def rewritten_with_old_times(path: Path) -> None:
    before = path.stat()
    path.write_text("CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced_by_its_like(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_text("CONTENT")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize(
    "change",
    [lambda path: path.write_text("longer content"), os.utime, rewritten_with_old_times, replaced_by_its_like],
    ids=["size", "mtime", "ctime", "inode"],
)
def test_new_version_of_a_file_is_found(device, change):
    """Any difference that stat(2) shows makes its directory, and no other, be compared."""
    path = device.write("a/f")
    device.write("b/f")
    device.in_step()

    change(path)
    assert device.found() == ["a/f"]
    assert device.reads == ["a"]


def test_new_file_and_new_directory_are_found(device):
    """What was added beside files in step is hinted, and they are not."""
    device.write("a/f")
    device.in_step()

    device.write("a/new")
    device.write("b/c/new")
    assert device.found() == ["a/new", "b/c/new"]


def test_directory_with_something_to_do_is_compared_until_it_is_done(device):
    """A hint may be lost: its directory stays unremembered until a sweep finds nothing in it."""
    device.write("a/f")
    device.in_step()
    device.is_sending = False
    device.write("a/new")

    assert [device.found() for _ in range(3)] == [["a/new"]] * 3
    device.is_sending = True
    assert [device.found() for _ in range(2)] == [["a/new"], []]


def test_file_of_a_moment_ago_is_looked_at_again(device, monkeypatch):
    """While a change could share its time stamp with the next one, the signature proves nothing."""
    device.write("a/f")
    device.run()
    monkeypatch.setattr(egress_sweep, "_RACY_NS", 3600 * 10**9)
    device.found()
    device.reads.clear()

    device.found()
    assert device.reads == ["a"]
    monkeypatch.setattr(egress_sweep, "_RACY_NS", 0)
    device.in_step()
    device.found()
    assert device.reads == []


def test_large_directory_is_compared_in_pieces_and_remembered_whole(device, monkeypatch):
    """However many files a directory has: all are hinted once, then none is told, then only what changed is hinted."""
    monkeypatch.setattr(walk, "PIECE_ENTRIES", 10)
    names = [f"{number:02}" for number in range(35)]
    paths = [device.write(name) for name in names]

    assert device.found() == names
    device.in_step()
    assert (device.found(), device.reads, device.export.told) == ([], [], 0)
    paths[17].write_text("changed")
    assert device.found() == ["17"]
    assert device.reads == []  # rows of a piece are asked for by name


@pytest.mark.fault("A18")
def test_removed_file_is_hinted_by_the_second_sweep(device):
    """One absence proves nothing. Only the directory of the file is compared, and only the file is looked for."""
    device.write("a/f")
    device.write("a/g")
    device.write("b/f")
    device.in_step()

    (device.root / "a/f").unlink()
    assert device.found() == []
    assert device.found() == ["a/f"]
    assert (device.reads, device.export.stats) == (["a", "a"], 2)


def test_removed_file_of_a_large_directory_is_hinted(device, monkeypatch):
    """Pieces do not tell which row has no file; the second sweep names it all the same."""
    monkeypatch.setattr(walk, "PIECE_ENTRIES", 10)
    for number in range(35):
        device.write(f"{number:02}")
    device.in_step()

    (device.root / "17").unlink()
    assert [device.found(), device.found()] == [[], ["17"]]


def test_removed_directory_is_hinted_without_a_look_at_the_others(device):
    """Rows of a directory that is gone are found among all rows; files in step elsewhere are not asked for."""
    for name in ("a/f", "a/b/g", "c/f", "d/f"):
        device.write(name)
    device.in_step()

    for path in ("a/b/g", "a/f"):
        (device.root / path).unlink()
    (device.root / "a/b").rmdir()
    (device.root / "a").rmdir()
    assert [device.found(), device.found()] == [[], ["a/b/g", "a/f"]]
    assert device.export.stats == 4


def test_file_that_comes_back_is_not_hinted_as_gone(device):
    """A file that was absent in one sweep and is there in the next was never gone."""
    path = device.write("a/f")
    device.write("a/g")
    device.in_step()

    path.rename(device.root.parent / "elsewhere")
    assert device.found() == []
    (device.root.parent / "elsewhere").rename(path)
    assert device.found() == ["a/f"]  # its ctime moved
    assert device.found() == []


def test_left_out_file_with_a_row_does_not_cost_a_look_at_every_row(device):
    """A file that got a second link keeps its row; what that costs a sweep is one look, for ever."""
    path = device.write("a/f")
    for number in range(20):
        device.write(f"b/{number}")
    device.in_step()

    os.link(path, device.root.parent / "outside")
    for _ in range(3):
        hints, report = device.run()
        assert (hints, report.skipped) == ([], {"a/f": "hard-linked"})
    assert (device.export.stats, device.reads) == (3, ["a"] * 3)


def test_rows_that_come_during_a_sweep_are_no_reason_to_look_for_their_files(device):
    """What workers settle while the walk goes on has its file; only rows from before can be without one."""
    device.write("a/f")
    device.in_step()

    for number in range(5):
        device.write(f"b/{number}")
    assert len(device.found()) == 5
    assert device.export.stats == 0


def test_excluded_file_is_no_difference(make_device):
    """A directory in which filters leave everything out is remembered as any other."""
    device = make_device(exclude=("*.tmp",))
    device.write("a/f.tmp")
    device.write("a/f")
    assert device.found() == ["a/f"]
    device.in_step()

    device.found()
    assert device.reads == []


@pytest.mark.fault("A21")
def test_name_without_a_key_is_told_by_every_comparison(device):
    """A file that no key can name is skipped with a reason and never hinted."""
    (device.root / os.fsdecode(b"\xff")).write_text("x")

    hints, report = device.run()
    assert hints == []
    assert list(report.skipped) == [os.fsdecode(b"\xff")]
    assert [list(device.run()[1].skipped) for _ in range(2)] == [[os.fsdecode(b"\xff")]] * 2


@pytest.mark.fault("A20")
def test_file_above_any_object_is_told_and_not_hinted(device):
    """Five TiB and a byte that take no room: named by each sweep, and nobody begins to read it."""
    os.truncate(device.write("huge"), 5 * 2**40 + 1)
    device.write("f")

    assert device.found() == ["f"]
    assert [device.run()[1].skipped for _ in range(2)] == [{"huge": "too-large"}] * 2


def test_skipped_entries_of_an_unchanged_directory_are_still_told(device):
    """What is left out stays visible, though nothing in its directory is compared any more."""
    device.write("a/f")
    (device.root / "a/link").symlink_to("f")
    device.in_step()

    _, report = device.run()
    assert device.reads == []
    assert report.skipped == {"a/link": "symlink"}


@pytest.mark.fault("A17", "A18")
def test_missing_or_emptied_directory_blocks_and_forgets_nothing(device):
    """A vanished source is a state with a fix, not a thousand removals; when it is back nothing is sent again."""
    device.write("a/f")
    device.in_step()

    (device.root / "a").rename(device.root.parent / "kept")
    assert [device.run()[1].blocked != "" for _ in range(3)] == [True] * 3
    device.root.rename(device.root.parent / "gone")
    assert "missing" in device.run()[1].blocked
    (device.root.parent / "gone").rename(device.root)
    (device.root.parent / "kept").rename(device.root / "a")
    hints, report = device.run()
    assert (hints, report.blocked) == ([], "")


def test_emptied_directory_is_what_a_target_asks_for_that_frees_the_device(make_device):
    """A kill between unlink and row leaves a row without a file, and nobody to clear the alarm: it is forgotten."""
    device = make_device(delete_after_upload=True)
    path = device.write("a/f")
    device.run()
    path.unlink()

    reports = [device.run() for _ in range(2)]

    assert [report.blocked for _, report in reports] == ["", ""]
    assert reports[1][0] == ["a/f"]


def test_emptied_directory_blocks_while_a_file_is_missing_that_has_to_stay(make_device):
    """What no store has proven must not go: its directory is lost, though the target frees the device."""
    device = make_device(delete_after_upload=True)
    path = device.write("a/f")
    hints, _ = device.run()
    (row,) = device.journal.rows(device.number)
    device.journal.settle(device.number, replace(row, is_verified=False))
    path.unlink()

    assert hints == ["a/f"]
    assert "1 files were replicated" in device.run()[1].blocked


def test_replaced_directory_is_compared_from_the_beginning(device):
    """Another directory under the name: neither a version nor an absence seen in the old one counts for it."""
    for name in ("a/f", "a/gone"):
        device.write(name)
    device.in_step()
    (device.root / "a/gone").unlink()
    assert device.found() == []

    device.root.rename(device.root.parent / "old")
    device.write("a/f", "another")
    assert device.found() == ["a/f"]
    assert device.found() == ["a/gone"]


def test_failed_listing_is_told_after_the_walk(device):
    """With an empty journal and a bucket out of reach, what waits is known all the same."""
    device.write("a/f")
    device.is_sending = False
    device.objects.error = Unavailable("no route")
    hints: list[Hint] = []

    async def found(more: list[Hint]) -> None:
        hints.extend(more)

    with pytest.raises(Unavailable):
        asyncio.run(device.sweep.run(found))
    assert [hint.relpath for hint in hints] == ["a/f"]


def test_sweep_that_was_cut_short_is_made_good_by_the_next(device, monkeypatch):
    """A sweep that is cancelled half way leaves nothing remembered that it has not compared."""
    monkeypatch.setattr(egress_sweep, "_SLICE_S", 0)  # hand over after each directory
    for name in "abcd":
        device.write(f"{name}/f")
    device.in_step()
    for name in "abcd":
        device.write(f"{name}/f", "changed")

    async def cancel(more: list[Hint]) -> None:
        device.settle(*more)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(device.sweep.run(cancel))
    assert device.found() == ["b/f", "c/f", "d/f"]
    assert device.found() == []


def test_report_tells_the_cpu_time_of_the_walk(device):
    """The rhythm is made of what a sweep costs, so the cost is measured."""
    for number in range(200):
        device.write(f"{number % 10}/{number}")

    _, report = device.run()
    assert report.cpu_s > 0
    assert report.busy_s > 0
