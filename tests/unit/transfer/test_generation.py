"""When a set is whole, that readers see the old one or the new one whatever happens, and who publishes when."""

import dataclasses
import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from replicator.errors import DiskFull, Refused, RemoteChanged, SourceChanged, Unavailable
from replicator.model import Direction, Hint, Prefix, RemoteObject, Row, Storage, Target, TargetOptions
from replicator.stores.files.beneath import fingerprint_of
from replicator.stores.files.export import Export
from replicator.stores.journal.journal import Journal
from replicator.stores.lane import Lane
from replicator.transfer.generation import publish
from replicator.transfer.limits import Room
from replicator.transfer.publisher import Publisher
from tests.waiting import wait_until


class Bucket:
    """What a listing tells. `error` is raised instead."""

    def __init__(self) -> None:
        self.listed: dict[str, RemoteObject] = {}
        self.lists = 0
        self.error: Exception | None = None

    def list(self, prefix):
        self.lists += 1
        if self.error:
            raise self.error
        yield [self.listed[name] for name in sorted(self.listed)]


class Device:
    """A lane whose files land here by hand, as ingress leaves them: the file, its row, its object."""

    def __init__(self, home: Path, journal: Journal, **options) -> None:
        self.directory = home / "export/in"
        (self.directory / ".incoming").mkdir(parents=True)
        self.bucket, self.journal = Bucket(), journal
        options = {"ingress_publish": "generation", "ingress_marker": "_set"} | options
        storage = Storage("https://s3.test", "b", "", "", "")  # type: ignore[arg-type]
        target = Target(
            *("w", Direction.INGRESS, str(home / "export"), "in/.incoming", Prefix("p/"), storage),
            TargetOptions(**options),
        )
        export = Export(target.root, target.subdir, hard_links="allow")
        self.lane = Lane(target, export, self.bucket, journal, journal.target(target.identity))  # type: ignore[arg-type]
        self.is_moving = False
        self.room = Room(floor_bytes=0)

    def land(self, relpath: str, body: bytes, *, written_s: int = 10, scheme: str = "md5") -> None:
        path = self.directory / ".incoming" / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = self.directory / "temp"
        temp.write_bytes(body)
        os.utime(temp, (written_s, written_s))
        temp.rename(path)
        etag = hashlib.md5(body).hexdigest()
        told = {"md5": f"md5:{etag}", "parts": f"md5/8388608:{'0' * 32}-2", "unknown": ""}[scheme]
        row = Row(relpath, fingerprint_of(path.stat()), etag, told)
        self.journal.settle(self.lane.number, row)
        self.bucket.listed[relpath] = RemoteObject(f"p/{relpath}", len(body), etag, written_s * 10**9)

    def land_set(self, *, written_s: int = 10, **bodies: bytes) -> None:
        for relpath, body in bodies.items():
            self.land(relpath, body, written_s=written_s)
        self.land_manifest(written_s=written_s, **bodies)

    def land_manifest(self, *, written_s: int, **bodies: bytes) -> None:
        sums = [f"{hashlib.md5(body).hexdigest()}  {relpath}\n" for relpath, body in bodies.items()]
        self.land("_set", "".join(sums).encode(), written_s=written_s)

    def publish(self):
        return publish(self.lane, self.room, is_moving=lambda: self.is_moving)

    def seen(self) -> dict[str, bytes]:
        try:
            top = self.directory / os.readlink(self.directory / "current")
        except FileNotFoundError:
            return {}
        return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    def generations(self) -> list[str]:
        return sorted(path.name for path in (self.directory / ".generations").iterdir())


@pytest.fixture
def device(tmp_path, journal):
    return Device(tmp_path, journal)


def test_whole_set_is_published_once(device):
    """Every named file and the manifest are under `current`; nothing happens when it is asked again."""
    device.land_set(**{"model": b"1", "sub/labels": b"2"})

    standing = device.publish()

    assert set(device.seen()) == {"model", "sub/labels", "_set"}
    assert standing.in_force.id == device.generations()[0]
    link = (device.directory / "current").lstat()
    assert device.publish() == standing
    assert (device.directory / "current").lstat() == link
    assert device.bucket.lists == 0


@pytest.mark.slow
def test_reader_never_sees_a_mixed_set_over_twenty_generations(device):
    """A reader that reads the link once and then every file sees one version of all of them."""
    names = [f"d{number % 3}/part{number}" for number in range(12)]
    mixed: list[dict[str, bytes]] = []
    seen: set[bytes] = set()
    is_over = threading.Event()

    def read():
        while not is_over.is_set():
            bodies = {name: body for name, body in device.seen().items() if name != "_set"}
            if bodies and (sorted(bodies) != sorted(names) or len(set(bodies.values())) != 1):
                mixed.append(bodies)
            seen.update(bodies.values())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in range(20):
            body = str(version).encode()
            device.land_set(written_s=version, **dict.fromkeys(names, body))
            device.publish()
            wait_until(lambda body=body: body in seen)
    finally:
        is_over.set()
        reader.join()

    assert mixed == []
    assert len(seen) == 20
    assert len(device.generations()) == 2


def test_set_that_lacks_files_waits_and_says_for_which(device):
    """Readers keep the old set; the first missing name and the number are told."""
    device.land_set(a=b"1", b=b"1")
    before = device.publish().in_force
    device.land("_set", b"a\nc\nd\n")

    standing = device.publish()

    assert standing.in_force == before
    assert standing.waits == "of 4 files 2 are not here yet, the first 'c'"
    assert set(device.seen()) == {"a", "b", "_set"}


def test_nothing_is_waited_for_in_an_empty_target(device):
    """Without any object there is no set; with files and no manifest there is one to come."""
    assert device.publish().waits == ""

    device.land("a", b"1")

    assert "the manifest '_set' is not here yet" in device.publish().waits


@pytest.mark.parametrize("scheme", ["md5", "parts", "unknown"])
def test_wrong_sum_is_waited_for_whatever_the_row_tells(device, scheme):
    """A file that came in parts is read for its MD5: only the very bytes of the manifest are published."""
    device.land("a", b"wrong", scheme=scheme)
    device.land("_set", hashlib.md5(b"right").hexdigest().encode() + b"  a\n")

    assert device.publish().waits == "of 2 files 1 is not of the MD5 that the manifest tells, the first 'a'"
    assert device.seen() == {}
    device.land("a", b"right", scheme=scheme)
    device.publish()
    assert device.seen()["a"] == b"right"


def test_file_that_was_changed_on_the_device_is_waited_for(device):
    """An edit in the directory where files land is no version of the bucket."""
    device.land_set(a=b"1", b=b"1")
    (device.directory / ".incoming/b").write_bytes(b"edited")

    assert device.publish().waits == "of 3 files 1 is changed on the device, the first 'b'"
    (device.directory / ".incoming/b").unlink()
    assert device.publish().waits == "of 3 files 1 is missing on the device, the first 'b'"
    assert device.seen() == {}


@pytest.mark.parametrize("text", [b"../a\n", b"", b"x" * (16 * 2**20 + 1)])
def test_manifest_that_cannot_be_used_is_refused(device, text):
    """Nothing is published of it, and a person is told."""
    device.land("a", b"1")
    device.land("_set", text)

    with pytest.raises(Refused, match="manifest"):
        device.publish()

    assert device.seen() == {}


def test_manifest_that_was_changed_on_the_device_is_refused(device):
    """What the workload writes there names no set."""
    device.land_set(a=b"1")
    (device.directory / ".incoming/_set").write_bytes(b"a\n")

    with pytest.raises(Refused, match="'_set' was changed on the device"):
        device.publish()


def test_names_alone_are_compared_with_the_bucket(device):
    """Where the manifest tells no MD5, each file must be the version listed, and none newer than the manifest."""
    device.land("a", b"1", written_s=10)
    device.land("_set", b"a\n", written_s=10)
    device.bucket.listed["a"] = RemoteObject("p/a", 1, "another", 10)
    with pytest.raises(RemoteChanged, match="'a' has another version in the bucket"):
        device.publish()
    device.land("a", b"2", written_s=12)
    with pytest.raises(RemoteChanged, match="'a' is newer than the manifest"):
        device.publish()
    del device.bucket.listed["a"]
    with pytest.raises(RemoteChanged):
        device.publish()
    assert device.seen() == {}

    device.land("a", b"2", written_s=12)
    device.bucket.listed["_set"] = RemoteObject("p/_set", 2, device.bucket.listed["_set"].etag, 12 * 10**9)
    device.publish()

    assert device.seen()["a"] == b"2"


def test_manifest_of_the_same_bytes_announces_other_files(device):
    """A set is known by its files, not by its manifest alone."""
    device.land("a", b"1", written_s=10)
    device.land("_set", b"a\n", written_s=10)
    first = device.publish().in_force.id
    device.land("a", b"2", written_s=12)
    device.bucket.listed["_set"] = RemoteObject("p/_set", 2, device.bucket.listed["_set"].etag, 12 * 10**9)

    assert device.publish().in_force.id > first


def test_link_is_no_edit(device):
    """A second name moves ctime: the row that knows it no longer tells an edit, so the next version makes no copy."""
    device.land_set(a=b"1")

    device.publish()

    local = device.lane.export.stat("a")
    assert device.lane.row("a").fingerprint.matches(local.fingerprint)
    assert (device.directory / "current/a").stat().st_nlink == 2


def test_nothing_is_linked_beside_a_transfer(device):
    """The transfer's row in memory has the old ctime, so it would take the link for an edit."""
    device.land_set(a=b"1")
    device.is_moving = True

    with pytest.raises(SourceChanged, match="on their way"):
        device.publish()

    assert not (device.directory / ".generations").exists()
    assert (device.directory / ".incoming/a").stat().st_nlink == 1


def test_copies_are_made_where_a_file_can_have_no_second_name(device, monkeypatch):
    """As on FAT: the content, its time and the removal of old generations are the same; the floor counts."""
    monkeypatch.setattr(os, "link", _refusing)
    device.land_set(a=b"1", written_s=10)
    first = device.publish().in_force.id
    assert (device.directory / "current/a").stat().st_nlink == 1
    assert (device.directory / "current/a").stat().st_mtime == 10
    for version in (11, 12):
        device.land_set(a=str(version).encode(), written_s=version)
        device.publish()

    assert device.seen()["a"] == b"12"
    assert first not in device.generations()
    device.room = Room(floor_bytes=2**62)
    device.land_set(a=b"more", written_s=13)
    with pytest.raises(DiskFull):
        device.publish()
    assert device.seen()["a"] == b"12"


def _refusing(*_, **__):
    raise OSError(errno.EPERM, "no links here")


def test_generation_before_stays_and_older_ones_go(device, journal):
    """Readers that have the one before open keep it; the journal forgets what is removed."""
    ids = []
    device.land("same", b"same", written_s=1)
    for version in (1, 2, 3, 4):
        device.land("a", str(version).encode(), written_s=version)
        device.land_manifest(a=str(version).encode(), same=b"same", written_s=version)
        ids.append(device.publish().in_force.id)

    assert device.generations() == ids[2:]
    assert [identity.rpartition("\n")[2] for _, identity in journal.targets()][1:] == ids[2:]
    assert (device.directory / ".incoming/same").stat().st_nlink == 3


def test_edited_file_in_an_old_generation_is_kept(device):
    """Whoever edited it loses nothing, and the new sets come in force all the same."""
    device.land_set(a=b"1", written_s=1)
    first = device.publish().in_force.id
    device.land_set(a=b"2", written_s=2)
    device.publish()
    mine = device.directory / ".generations" / first / "a"
    mine.write_bytes(b"edited")
    device.land_set(a=b"3", written_s=3)

    device.publish()

    assert device.seen()["a"] == b"3"
    assert mine.read_bytes() == b"edited"


def test_generations_that_the_journal_does_not_know_stay(tmp_path, device):
    """A lost journal proves nothing about them."""
    for version in (1, 2):
        device.land_set(a=str(version).encode(), written_s=version)
        device.publish()
    device.journal.close()
    fresh = Journal.open(str(tmp_path / "fresh"))
    try:
        device.journal, device.lane = fresh, Lane(device.lane.target, device.lane.export, device.bucket, fresh, 1)
        device.lane = Lane(
            device.lane.target, device.lane.export, device.bucket, fresh, fresh.target(device.lane.target.identity)
        )
        device.land_set(a=b"3", written_s=3)
        device.publish()

        assert device.seen()["a"] == b"3"
        assert len(device.generations()) == 3
    finally:
        fresh.close()


def test_set_that_somebody_removed_is_built_again(device):
    """All of it, or the directory with everything that had landed: what lands anew is the same set."""
    device.land_set(**{"a": b"1", "sub/b": b"1"})
    before, seen = device.publish(), device.seen()
    shutil.rmtree(device.directory / ".generations")
    assert device.publish().in_force.id == before.in_force.id
    assert device.seen() == seen
    shutil.rmtree(device.directory)
    with pytest.raises(SourceChanged):
        device.publish()

    device.directory.mkdir()
    device.land_set(**{"a": b"1", "sub/b": b"1"})

    assert device.publish().in_force.id == before.in_force.id
    assert device.seen() == seen


def test_foreign_link_blocks_and_is_not_touched(device):
    """Whatever stands under the name `current` and is not ours stays, and nothing is built beside it."""
    (device.directory / "current").symlink_to("/etc")
    device.land_set(a=b"1")

    with pytest.raises(Refused, match="'current' is not a link of replicator's"):
        device.publish()

    assert os.readlink(device.directory / "current") == "/etc"
    assert not (device.directory / ".generations").exists()


STEPS = ("link", "symlink", "rename", "fsync", "unlink", "rmdir", "mkdir")


class Crash(BaseException):
    """The process ends here: nothing of ours runs after it."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_crash_at_any_step_leaves_the_old_set_or_the_new_one(device, monkeypatch, when):
    """Before or after any system call that changes something; the next attempt finishes, and old sets go as ever."""
    version = 1
    crashed_at: list[str] = []
    device.land_set(**{"a": b"1", "sub/b": b"1"}, written_s=1)
    device.publish()
    while not crashed_at or crashed_at[-1]:
        version += 1
        old, body = device.seen(), str(version).encode()
        device.land_set(**{"a": body, "sub/b": body}, written_s=version)
        with monkeypatch.context() as patch:
            crashed_at.append(_crash_at(patch, len(crashed_at), when, device.publish))
        seen = device.seen()
        assert seen == old or set(seen.values()) == {body, (device.directory / ".incoming/_set").read_bytes()}

        device.publish()

        assert {device.seen()["a"], device.seen()["sub/b"]} == {body}
    assert {"link", "symlink", "rename", "fsync", "unlink", "mkdir"} <= set(crashed_at)
    device.land_set(a=b"last", written_s=version + 1)
    device.publish()
    assert len(device.generations()) == 2


def _crash_at(patch, number: int, when: str, work) -> str:
    """Do the work up to its `number`th step; the step's name, '' when the work has no so many."""
    steps: list[str] = []

    def crashing(name, real):
        def call(*args, **more):
            steps.append(name)
            if len(steps) == number + 1 and when == "before":
                raise Crash
            done = real(*args, **more)
            if len(steps) == number + 1:
                raise Crash
            return done

        return call

    for name in STEPS:
        patch.setattr(os, name, crashing(name, getattr(os, name)))
    try:
        work()
    except Crash:
        return steps[number]
    return ""


# When


class Publishing:
    """A publisher at work, with a queue of its own."""

    def __init__(self, queue, device, retry_s: float) -> None:
        self.publisher = Publisher(queue, Room(floor_bytes=0), retry_s=retry_s)
        self.thread = threading.Thread(target=self.publisher.run)
        self.thread.start()

    def end(self) -> None:
        self.publisher.close()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def publisher(queue, device, gate_of):
    queue.add_lane(device.lane, gate_of())
    one = Publishing(queue, device, retry_s=0.05)
    yield one.publisher
    one.end()


def test_set_is_published_when_the_target_starts(publisher, device):
    """What a crash left half done is finished without any transfer."""
    device.land_set(a=b"1")

    publisher.add(device.lane)

    wait_until(lambda: device.seen().get("a") == b"1")
    wait_until(lambda: not publisher.is_busy(device.lane))
    assert publisher.standing(device.lane).in_force.id == device.generations()[0]


def test_transfers_under_way_are_waited_for(publisher, device, queue, worker):
    """The last of them asks again; one that failed for its own reasons keeps nobody waiting."""
    queue.put(device.lane, Hint("a"))
    device.land_set(a=b"1")
    publisher.add(device.lane)
    wait_until(lambda: not publisher.is_busy(device.lane))
    assert device.seen() == {}

    job = worker.take()
    worker.defer(job, Refused("a directory is in the way"), 60)
    publisher.wake(device.lane)

    wait_until(lambda: device.seen().get("a") == b"1")


def test_failure_is_told_and_tried_again(publisher, device):
    """A listing that fails, a foreign link, a surprise: each shows, readers keep what they have, and it heals."""
    device.land("a", b"1")
    device.land("_set", b"a\n")
    device.bucket.error = Unavailable("the endpoint is away")
    publisher.add(device.lane)
    wait_until(lambda: isinstance(publisher.standing(device.lane).error, Unavailable))
    device.bucket.error = ZeroDivisionError("nobody planned for this")
    wait_until(lambda: "nobody planned" in str(publisher.standing(device.lane).error))
    assert device.seen() == {}

    device.bucket.error = None

    wait_until(lambda: device.seen().get("a") == b"1")
    wait_until(lambda: publisher.standing(device.lane).error is None)


def test_lane_without_generations_is_none_of_its(publisher, device):
    """It is neither looked at nor shown; neither is one that is gone."""
    target = dataclasses.replace(device.lane.target, options=TargetOptions())
    other = dataclasses.replace(device.lane, target=target)
    publisher.add(other)
    publisher.wake(other)
    assert publisher.standing(other) is None
    publisher.add(device.lane)
    publisher.forget(device.lane)
    device.land_set(a=b"1")

    publisher.wake(device.lane)

    assert not publisher.is_busy(device.lane)
    assert publisher.standing(device.lane) is None
