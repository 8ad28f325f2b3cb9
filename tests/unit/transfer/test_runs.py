"""A run of small files: each ends on its own account, and the order of a single file's steps holds for all."""

import dataclasses
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from replicator.errors import (
    BucketMissing,
    DiskFull,
    HeldBack,
    IntegrityFailed,
    JournalError,
    SourceChanged,
    TransferError,
    Unavailable,
)
from replicator.model import Direction, Hint, Prefix, RemoteObject, TargetOptions
from replicator.stores.files.export import Export, OpenFile
from replicator.stores.lane import Lane
from replicator.stores.objects import Download
from replicator.transfer import egress, ingress
from replicator.transfer.job import Job
from replicator.transfer.outcome import Done, Outcome
from replicator.transfer.publisher import Publisher
from replicator.transfer.workers import Workers

KIB = 1024


class Store:
    """A bucket in memory; `before` is called ahead of each request with its key."""

    streams = True

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.before = lambda key: None

    def put(self, key, body, *, md5, metadata):
        self.before(key)
        self.asked.append(key)
        self.objects[key] = bytes(body)
        return md5.hex()

    def get(self, key, *, etag, offset=0, size=None):
        self.before(key)
        self.asked.append(key)
        end = None if size is None else offset + size
        return Download({}, (block for block in [self.objects[key][offset:end]]))

    def remote(self, name: str, body: bytes) -> RemoteObject:
        self.objects[f"p/{name}"] = body
        return RemoteObject(f"p/{name}", len(body), hashlib.md5(body).hexdigest(), 10**18)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def make_lane(tmp_path, store, journal):
    root = tmp_path / "export"
    root.mkdir()

    def make(direction: Direction, **options) -> Lane:
        target = SimpleNamespace(
            id="t",
            direction=direction,
            root=str(root),
            subdir="",
            prefix=Prefix("p/"),
            options=TargetOptions(**options),
        )
        export = Export(str(root), hard_links="allow")
        return Lane(target, export, store, journal, number=journal.target(str(direction)))  # type: ignore[arg-type]

    return make


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "export"


def always() -> bool:
    return True


def send(lane, means, *names, go_on=always) -> dict[str, Outcome | TransferError]:
    jobs = [Job(lane, name, None, hinted_s=0.0, changed_s=0.0) for name in names]
    return {job.relpath: ending for job, ending in egress.send(jobs, means, go_on)}


def fetch(lane, means, *remotes, go_on=always) -> dict[str, Outcome | TransferError]:
    jobs = [Job(lane, remote.key.removeprefix("p/"), remote, hinted_s=0.0, changed_s=0.0) for remote in remotes]
    return {job.relpath: ending for job, ending in ingress.fetch(jobs, means, go_on)}


def calls(monkeypatch, *names: str) -> list[str]:
    """The names of these functions of os, as they are called."""
    called: list[str] = []

    def watched(name):
        original = getattr(os, name)

        def call(*args, **kwargs):
            called.append(name)
            return original(*args, **kwargs)

        return call

    for name in names:
        monkeypatch.setattr(os, name, watched(name))
    return called


def test_each_file_of_a_run_ends_on_its_own_account(make_lane, means, store, root):
    """One that is written to, one that is gone, one that the store refuses: the others arrive."""
    lane = make_lane(Direction.EGRESS)
    for name in ("a", "busy", "refused", "z"):
        (root / name).write_bytes(name.encode())

    def refuse(key):
        if key == "p/refused":
            raise Unavailable("no")

    store.before = refuse
    with (root / "busy").open("ab"):
        ends = send(lane, means, "a", "busy", "gone", "refused", "z")

    assert store.objects == {"p/a": b"a", "p/z": b"z"}
    assert [type(ends[name]) for name in ("busy", "refused")] == [SourceChanged, Unavailable]
    assert ends["gone"] == Outcome(Done.NOTHING, was_asked=False)


def test_surprise_at_one_file_stops_no_other(make_lane, means, store, root):
    """What nobody planned for is that path's failure."""
    lane = make_lane(Direction.EGRESS)
    for name in "ab":
        (root / name).write_bytes(b"x")

    def surprise(key):
        if key == "p/a":
            raise ValueError("surprise")

    store.before = surprise
    ends = send(lane, means, "a", "b")

    assert "surprise" in str(ends["a"])
    assert ends["b"].done is Done.COPIED


def test_run_stops_where_it_is_told_to(make_lane, means, store, root):
    """Once the endpoint is in doubt, what is left of a run makes no request, and is not told of."""
    egress_lane, ingress_lane = make_lane(Direction.EGRESS), make_lane(Direction.INGRESS)
    for name in "abc":
        (root / name).write_bytes(b"x")
    remotes = [store.remote(f"in{number}", b"x") for number in range(3)]

    sent = send(egress_lane, means, "a", "b", "c", go_on=lambda: len(store.asked) < 2)
    store.asked.clear()
    fetched = fetch(ingress_lane, means, *remotes, go_on=lambda: len(store.asked) < 2)

    assert list(sent) == ["a", "b"]
    assert list(fetched) == ["in0", "in1"]
    assert not (root / "in2").exists()


def test_large_file_in_a_run_is_sent_after_the_small_ones(make_lane, means, store, root):
    """A size that nobody knew before the look keeps no small file waiting, and needs no memory beside theirs."""
    lane = make_lane(Direction.EGRESS)
    (root / "large").write_bytes(b"x" * 65 * KIB)
    (root / "small").write_bytes(b"x")
    held_at_large: list[int] = []
    store.before = lambda key: held_at_large.append(means.budget._free) if key == "p/large" else None

    store.head = lambda key: store.remote("other", b"")
    ends = send(lane, means, "large", "small")

    assert store.asked == ["p/small", "p/large"]
    assert ends["large"].moved_bytes == 65 * KIB
    assert held_at_large == [64 * 2**20 - 65 * KIB]
    assert means.budget._free == 64 * 2**20


@pytest.mark.fault("B5")
def test_listing_that_is_older_than_the_row_sends_nothing_again(make_lane, means, store, root, journal):
    """A listing of the time before the upload says that there is no object; the row knows better."""
    lane = make_lane(Direction.EGRESS)
    (root / "f").write_bytes(b"content")
    journal.settle(lane.number, send(lane, means, "f")["f"].row)

    assert send(lane, means, "f")["f"] == Outcome(Done.NOTHING, was_asked=False)
    assert len(store.asked) == 1


def test_touched_small_file_is_not_sent(make_lane, means, store, root, journal):
    """Content that the row knows is adopted: nothing is sent, the row follows the new times."""
    lane = make_lane(Direction.EGRESS)
    (root / "f").write_bytes(b"content")
    journal.settle(lane.number, send(lane, means, "f")["f"].row)
    os.utime(root / "f", ns=(1, 1))

    ending = send(lane, means, "f")["f"]

    assert (ending.done, len(store.asked)) == (Done.ADOPTED, 1)
    assert ending.row.fingerprint.mtime_ns == 1


def test_run_of_objects_is_synced_announced_renamed_and_synced(make_lane, means, store, root, journal, monkeypatch):
    """Contents are durable before the first intent, all intents before the first rename; the directory comes last."""
    lane = make_lane(Direction.INGRESS)
    remotes = [store.remote(f"f{number}", b"x" * number) for number in range(3)]
    called = calls(monkeypatch, "fsync", "rename")
    intend = journal.intend

    def noted(*args):
        called.append("intend")
        intend(*args)

    monkeypatch.setattr(journal, "intend", noted)

    ends = fetch(lane, means, *remotes)

    steps = called[called.index("fsync", called.index("intend") - 3) :]
    assert steps == ["fsync"] * 3 + ["intend"] + ["rename"] * 3 + ["fsync"]
    assert [(root / f"f{number}").read_bytes() for number in range(3)] == [b"", b"x", b"xx"]
    assert all(ends[name].row.fingerprint.matches(lane.export.stat(name).fingerprint) for name in ends)


def test_each_object_of_a_run_ends_on_its_own_account(make_lane, means, store, root, journal):
    """Wrong bytes, a file that appeared meanwhile, a directory in the way: the others are published."""
    lane = make_lane(Direction.INGRESS)
    remotes = [store.remote(name, name.encode()) for name in ("a", "torn", "taken", "dir", "sub/z")]
    store.objects["p/torn"] = b"tor!"
    (root / "dir").mkdir()
    store.before = lambda key: (root / "taken").write_bytes(b"local") if key == "p/taken" else None

    ends = fetch(lane, means, *remotes)

    assert {name: ends[name].done for name in ("a", "sub/z")} == {"a": Done.COPIED, "sub/z": Done.COPIED}
    assert isinstance(ends["torn"], IntegrityFailed)
    assert isinstance(ends["taken"], SourceChanged)
    assert isinstance(ends["dir"], TransferError)
    assert (root / "taken").read_bytes() == b"local"
    assert (root / "sub/z").read_bytes() == b"sub/z"
    assert list((root / ".replicator/tmp").iterdir()) == []
    assert {intent.relpath for intent in journal.intents(lane.number)} == {"a", "sub/z"}


def test_full_disk_in_the_middle_of_a_run_keeps_what_was_there(make_lane, means, store, root, journal, monkeypatch):
    """A content that cannot be made durable is not published; the old version stays, and no temporary file."""
    lane = make_lane(Direction.INGRESS)
    remotes = [store.remote(name, b"new") for name in "abc"]
    fsync, count = os.fsync, iter(range(10**6))

    def full(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".tmp") and next(count) == 1:
            raise OSError(28, "No space left on device")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)

    ends = fetch(lane, means, *remotes)

    assert isinstance(ends["b"], DiskFull)
    assert sorted(path.name for path in root.iterdir()) == [".replicator", "a", "c"]
    assert list((root / ".replicator/tmp").iterdir()) == []


def test_unsynced_directory_fails_all_that_was_put_in_it(make_lane, means, store, root, journal, monkeypatch):
    """A rename that may not outlive a power cut is no success; the next attempt makes it one without a download."""
    lane = make_lane(Direction.INGRESS)
    remotes = [store.remote(name, b"new") for name in ("bad/a", "bad/b", "good/c")]
    (root / "bad").mkdir()
    (root / "good").mkdir()
    fsync = os.fsync

    def broken(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/bad"):
            raise OSError(5, "Input/output error")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", broken)

    ends = fetch(lane, means, *remotes)

    assert [isinstance(ends[name], TransferError) for name in ends] == [True, True, False]
    assert [intent.relpath for intent in journal.intents(lane.number)] == ["bad/a", "bad/b", "good/c"]
    assert [isinstance(end, TransferError) for end in fetch(lane, means, *remotes[:2]).values()] == [True, True]
    monkeypatch.setattr(os, "fsync", fsync)
    asked = len(store.asked)
    assert [end.done for end in fetch(lane, means, *remotes[:2]).values()] == [Done.NOTHING, Done.NOTHING]
    assert [row.relpath for row in lane.rows()] == ["bad/a", "bad/b"]
    assert len(store.asked) == asked


def test_unwritable_intents_publish_nothing(make_lane, means, store, root, journal, monkeypatch):
    """Without its intent a file would be taken for the workload's own: it is not put in place."""
    lane = make_lane(Direction.INGRESS)
    remotes = [store.remote(name, b"new") for name in "ab"]

    def full(*_):
        raise DiskFull("the journal is full")

    monkeypatch.setattr(journal, "intend", full)

    ends = fetch(lane, means, *remotes)

    assert all(isinstance(ending, DiskFull) for ending in ends.values())
    assert [path.name for path in root.iterdir()] == [".replicator"]


def test_broken_journal_ends_the_run(make_lane, means, store, journal, monkeypatch):
    """A journal that cannot be trusted is nobody's failure but the process's."""
    lane = make_lane(Direction.INGRESS)

    def broken(*_):
        raise JournalError("broken")

    monkeypatch.setattr(journal, "intend", broken)

    with pytest.raises(JournalError):
        fetch(lane, means, store.remote("a", b"x"))


def test_quota_counts_what_is_on_its_way_in_the_same_run(make_lane, means, store, root, journal):
    """Files of one run share the room: what does not fit beside the others is told, and the rows count at once."""
    lane = make_lane(Direction.INGRESS, quota_bytes=10)
    remotes = [store.remote(name, b"1234") for name in "abc"]

    ends = fetch(lane, means, *remotes)

    assert isinstance(ends["c"], DiskFull)
    assert sorted(path.name for path in root.iterdir()) == [".replicator", "a", "b"]
    assert journal.totals(lane.number) == (2, 8)
    assert ends["a"].row is None


def test_edited_file_is_kept_beside_its_new_version_in_a_run_too(make_lane, means, store, root, journal):
    """A local edit takes the way of single files, whatever the run does with the others."""
    lane = make_lane(Direction.INGRESS)
    first = store.remote("f", b"first")
    journal.settle(lane.number, fetch(lane, means, first)["f"].row)
    (root / "f").write_bytes(b"edited")

    ends = fetch(lane, means, store.remote("f", b"second"), store.remote("g", b"x"))

    assert ends["f"].conflict_copy.startswith("f.sync-conflict-")
    assert (root / ends["f"].conflict_copy).read_bytes() == b"edited"
    assert (root / "f").read_bytes() == b"second"
    assert ends["g"].done is Done.COPIED


def test_file_that_moves_while_it_is_read_is_not_sent(make_lane, means, store, root, monkeypatch):
    """Bytes of two versions are no version."""
    lane = make_lane(Direction.EGRESS)
    (root / "f").write_bytes(b"first")
    read = OpenFile.read

    def torn(file):
        body = read(file)
        (root / "f").write_bytes(b"other")
        return body

    monkeypatch.setattr(OpenFile, "read", torn)

    assert isinstance(send(lane, means, "f")["f"], SourceChanged)
    assert store.objects == {}


def test_bodies_of_a_run_are_within_the_memory_budget(make_lane, means, store, root):
    """What is loaded counts until it is sent, both ways, and no longer."""
    egress_lane, ingress_lane = make_lane(Direction.EGRESS), make_lane(Direction.INGRESS)
    (root / "a").write_bytes(b"x")
    (root / "b").write_bytes(b"x")
    free: list[int] = []
    store.before = lambda key: free.append(means.budget._free)

    send(egress_lane, means, "a", "b")
    fetch(ingress_lane, means, store.remote("c", b"1234"), store.remote("d", b"1234"))

    total = 64 * 2**20
    assert free == [total - 2 * 64 * KIB] * 2 + [total - 8] * 2
    assert means.budget._free == total


def test_opaque_object_cut_short_is_not_published(make_lane, means, store, root):
    """Where the ETag tells nothing, the length still does."""
    lane = make_lane(Direction.INGRESS)
    remote = dataclasses.replace(store.remote("f", b"whole"), etag="opaque")
    store.objects["p/f"] = b"who"

    assert isinstance(fetch(lane, means, remote)["f"], IntegrityFailed)
    assert not (root / "f").exists()


def test_same_bytes_twice_are_what_the_store_holds(make_lane, means, store, root):
    """ETags of encrypted objects look like an MD5 and are none: the second attempt believes the bytes, unproven."""
    lane = make_lane(Direction.INGRESS)
    remote = dataclasses.replace(store.remote("f", b"body"), etag="0" * 32)
    job = Job(lane, "f", remote, hinted_s=0.0, changed_s=0.0)

    ((_, first),) = ingress.fetch([job], means, always)
    job.remote = remote
    ((_, second),) = ingress.fetch([job], means, always)

    assert isinstance(first, IntegrityFailed)
    assert (second.done, second.row.is_verified) == (Done.COPIED, False)
    assert (root / "f").read_bytes() == b"body"


def test_rest_of_a_run_waits_in_the_queue_when_the_gate_closes(queue, make_lane, means, store, root, gate_of):
    """An endpoint that fails in the middle of a run fails the jobs that met it; the others are not lost."""
    gate, lane = gate_of(limit=1), make_lane(Direction.EGRESS)
    queue.add_lane(lane, gate)
    for name in "abc":
        (root / name).write_bytes(b"x")
        queue.put(lane, Hint(name))

    def gone(key):
        raise BucketMissing("no such bucket")

    store.before = gone
    failed: list[str] = []

    class Settling:
        run = staticmethod(lambda: None)

        def failed(self, job, gate, error):
            gate.failed(job.relpath, error, 0.0)
            failed.append(job.relpath)

    publisher = Publisher(queue, means.room, retry_s=1)
    workers = Workers(queue, Settling(), publisher, threads=1, means=means)  # type: ignore[arg-type]
    workers._work(*queue.take())

    assert failed == ["a"]
    assert sorted(job.relpath for job in queue.jobs() if not job.is_running) == ["b", "c"]
    assert gate.has_slot(is_bulk=False)


def test_barrier_in_the_same_run_waits_for_what_it_seals(make_lane, means, store, root, journal):
    """Files of the run itself are not in step before their rows are: the barrier is held back, and named is why."""
    lane = make_lane(Direction.EGRESS, egress_barrier="_SUCCESS", exclude=("*.skip",))
    (root / "set").mkdir()
    for name in ("a", "b", "x.skip", "_SUCCESS"):
        (root / "set" / name).write_bytes(b"x")

    ends = send(lane, means, "set/_SUCCESS", "set/a", "set/b")

    assert isinstance(ends["set/_SUCCESS"], HeldBack)
    assert "'set/a' and 1 more" in str(ends["set/_SUCCESS"])
    for name in ("set/a", "set/b"):
        journal.settle(lane.number, ends[name].row)
    assert send(lane, means, "set/_SUCCESS")["set/_SUCCESS"].done is Done.COPIED


@pytest.mark.parametrize("is_checking", [True, False])
def test_opaque_etag_is_verified_where_the_store_checks_what_it_is_sent(make_lane, means, store, root, is_checking):
    """An ETag that is not the expected one proves nothing; a store that refuses wrong bytes does."""
    lane = make_lane(Direction.EGRESS)
    (root / "f").write_bytes(b"x")
    asked: list[str] = []
    store.put = lambda key, body, *, md5, metadata: "opaque"

    def ask(key):
        asked.append(key)
        return is_checking

    store.is_checking_uploads = ask

    assert send(lane, means, "f")["f"].row.is_verified is is_checking
    assert asked == ["p/f"]


def test_store_is_not_asked_for_proof_where_the_etag_is_one(make_lane, means, store, root):
    """The question costs three requests: none of it where the ETag is the content's."""
    lane = make_lane(Direction.EGRESS)
    (root / "f").write_bytes(b"x")
    store.is_checking_uploads = lambda key: pytest.fail("asked")

    assert send(lane, means, "f")["f"].row.is_verified
