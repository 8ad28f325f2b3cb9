"""Which way a file goes, and what is recorded on it: one PUT, a stream of parts, or parts that a restart resumes."""

import dataclasses
import hashlib
import os
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.checksum import composite_etag
from replicator.errors import SourceChanged, Stopping, Unavailable
from replicator.model import Prefix, TargetOptions
from replicator.stores.files.export import Export
from replicator.stores.journal.journal import Journal
from replicator.stores.lane import Lane
from replicator.transfer.outcome import Parcel
from replicator.transfer.push import push

MIB = 2**20
PART = 5 * MIB


class Store:
    """Takes what it is given, and remembers which way it came."""

    streams = True

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.calls: list[str] = []
        self.left: list[tuple[str, str]] = []
        """Uploads that are open: (key, id)."""
        self.before_part = lambda number: None

    def put(self, key, body, *, md5, metadata):
        self.calls.append("put")
        return md5.hex()

    def put_parts(self, key, parts, *, part_size, metadata):
        self.calls.append("put_parts")
        digests = []
        for number, part in enumerate(parts, start=1):
            self.before_part(number)
            digests.append(hashlib.md5(part).digest())
        return composite_etag(digests)

    def create_upload(self, key, *, metadata):
        self.calls.append("create_upload")
        return "id"

    def put_part(self, key, upload_id, number, body, *, md5):
        self.before_part(number)
        self.calls.append("put_part")
        self.parts[number] = body
        return md5.hex()

    def complete_upload(self, key, upload_id, etags):
        self.calls.append("complete_upload")
        return composite_etag([bytes.fromhex(etag) for etag in etags])

    def abort_upload(self, key, upload_id):
        self.calls.append("abort_upload")
        self.left = [one for one in self.left if one != (key, upload_id)]

    def list_uploads(self, prefix):
        return [one for one in self.left if one[0].startswith(prefix)]


@pytest.fixture
def journal(tmp_path):
    one = Journal.open(str(tmp_path / "state"))
    yield one
    one.close()


@pytest.fixture
def means(means):
    return dataclasses.replace(means, part_size_bytes=PART)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def send(tmp_path, journal, means, store):
    """Pushes a file of this content; what came of it, and how many bytes were told to have gone."""
    (tmp_path / "export").mkdir()
    export = Export(str(tmp_path / "export"))
    number = journal.target("t")
    target: Any = SimpleNamespace(options=TargetOptions(), prefix=Prefix("k/"))
    lane = Lane(target, export, store, journal, number)

    class Send:
        path = tmp_path / "export/f"

        def __call__(self, content=None):
            if content is not None:
                self.path.write_bytes(content)
            gone: list[int] = []
            with export.open("f") as file:
                pushed = push(Parcel(lane, file, "k/f", means, gone.append), known=None, waited_s=0)
            return pushed, sum(gone)

        def upload(self):
            return journal.upload(number, "f")

    return Send()


def test_small_file_is_one_put(send, store):
    """Nothing but its row will be recorded."""
    pushed, gone = send(b"small")

    assert store.calls == ["put"]
    assert (pushed.moved_bytes, gone, pushed.row.is_verified) == (5, 5, True)
    assert send.upload() is None


def test_large_file_is_a_stream_when_the_link_is_fast(send, store):
    """The cheap way, and the store's ETag proves every part of it."""
    pushed, gone = send(os.urandom(3 * PART + 7))

    assert store.calls == ["put_parts"]
    assert pushed.row.is_verified
    assert gone == 3 * PART + 7


def test_stream_leaves_a_mark_until_its_row_is_recorded(send, store):
    """A kill in the middle must be able to find parts whose upload id nobody knows."""
    marks = []
    store.before_part = lambda number: marks.append(send.upload().upload_id)

    send(os.urandom(2 * PART))

    assert marks == ["", ""]


def test_large_file_goes_in_recorded_parts_when_the_link_is_slow(send, store, means):
    """What was measured before decides: this upload would last longer than resume_after_s."""
    means.bandwidth.moved("up", MIB, 10.0)

    pushed, gone = send(os.urandom(2 * PART + 7))

    assert sorted(store.calls) == sorted(["create_upload", *["put_part"] * 3, "complete_upload"])
    assert pushed.row.is_verified
    assert gone == 2 * PART + 7
    assert [part.number for part in send.upload().parts] == [1, 2, 3]


def test_store_without_cheap_streams_gets_recorded_parts(send, store):
    """Where both ways cost the same, the one that survives a restart is taken."""
    store.streams = False

    send(os.urandom(2 * PART))

    assert "put_parts" not in store.calls


def test_stream_that_turns_out_slow_becomes_recorded_parts(send, store, means):
    """The first parts tell the rate; little is lost, and what is told to have gone stays true."""
    store.before_part = lambda number: means.bandwidth.moved("up", MIB, 100.0)

    pushed, gone = send(os.urandom(6 * PART))

    assert store.calls[:2] == ["put_parts", "create_upload"]
    assert store.calls.count("put_part") == 6
    assert pushed.row.is_verified
    assert gone == 6 * PART


def test_what_a_slow_stream_could_not_abort_is_thrown_away(send, store, means):
    """The parts that were sent before it changed over do not stay when the stream's own abort did not arrive."""

    def slow(number):
        store.left = [("k/f", "stream"), ("k/f2", "another's")]
        means.bandwidth.moved("up", MIB, 100.0)

    store.before_part = slow

    def begin(key, *, metadata):
        assert store.left == [("k/f2", "another's")]
        store.before_part = lambda number: None
        return "id"

    store.create_upload = begin
    pushed, _ = send(os.urandom(6 * PART))

    assert pushed.row.is_verified
    assert store.left == [("k/f2", "another's")]


def test_upload_whose_begin_was_not_answered_is_on_record(send, store, means):
    """The store may have begun it all the same: a record without an id lets it be found by its key."""
    means.bandwidth.moved("up", MIB, 10.0)

    def lose_the_answer(key, *, metadata):
        raise Unavailable("cut")

    store.create_upload = lose_the_answer
    with pytest.raises(Unavailable):
        send(os.urandom(2 * PART))

    assert send.upload().upload_id == ""


def test_interrupted_upload_goes_on_where_it_was(send, store, means):
    """Confirmed parts are not read or sent again; the rest is, and the ETag is that of the whole."""
    means.bandwidth.moved("up", MIB, 10.0)
    content = os.urandom(3 * PART + 7)

    def cut(number):
        if number >= 3:
            raise Unavailable("gone")

    store.before_part = cut
    with pytest.raises(Unavailable):
        send(content)
    store.before_part, store.calls = lambda number: None, []

    pushed, gone = send()

    assert sorted(store.calls) == ["complete_upload", "put_part", "put_part"]
    assert pushed.row.is_verified
    assert gone == len(content)
    assert b"".join(store.parts[number] for number in range(1, 5)) == content


def test_upload_whose_id_never_arrived_is_thrown_away(send, store, means, monkeypatch):
    """The answer was lost, or a crash came before it could be recorded: the next attempt finds it by its key."""
    means.bandwidth.moved("up", MIB, 10.0)
    aborted = []
    monkeypatch.setattr(store, "list_uploads", lambda key: [(key, "lost"), (f"{key}2", "another's")], raising=False)
    monkeypatch.setattr(store, "abort_upload", lambda key, upload_id: aborted.append(upload_id))
    with monkeypatch.context() as cut:
        cut.setattr(store, "create_upload", lambda key, *, metadata: (_ for _ in ()).throw(Unavailable("gone")))
        with pytest.raises(Unavailable):
            send(os.urandom(2 * PART))

    pushed, _ = send()

    assert aborted == ["lost"]
    assert pushed.row.is_verified


def test_upload_of_an_older_version_is_thrown_away(send, store, means):
    """Parts of two versions never meet in one object."""
    means.bandwidth.moved("up", MIB, 10.0)
    store.before_part = lambda number: (_ for _ in ()).throw(Unavailable("gone"))
    with pytest.raises(Unavailable):
        send(os.urandom(2 * PART))
    store.before_part, store.calls = lambda number: None, []

    send(os.urandom(2 * PART))

    assert store.calls[:2] == ["abort_upload", "create_upload"]
    assert store.calls.count("put_part") == 2


def test_upload_of_a_file_that_has_become_small_is_thrown_away(send, store, means):
    """Nobody would ever complete it, and its parts cost money."""
    means.bandwidth.moved("up", MIB, 10.0)
    store.before_part = lambda number: (_ for _ in ()).throw(Unavailable("gone"))
    with pytest.raises(Unavailable):
        send(os.urandom(2 * PART))
    store.calls = []

    send(b"small now")

    assert store.calls == ["abort_upload", "put"]
    assert send.upload() is None


@pytest.mark.parametrize("is_slow", [False, True])
def test_file_that_changes_meanwhile_is_not_published(send, store, means, is_slow):
    """Neither way lets a mix of two versions become an object."""
    if is_slow:
        means.bandwidth.moved("up", MIB, 10.0)
    content = os.urandom(3 * PART)
    store.before_part = lambda number: send.path.write_bytes(content[::-1]) if number == 2 else None

    with pytest.raises(SourceChanged):
        send(content)

    assert "complete_upload" not in store.calls
    assert ("abort_upload" in store.calls) is is_slow


def test_end_of_the_process_cuts_a_large_upload_between_parts(send, store, means):
    """What was confirmed stays recorded for the next start."""
    means.bandwidth.moved("up", MIB, 10.0)
    store.before_part = lambda number: means.stopping.set()

    with pytest.raises(Stopping):
        send(os.urandom(12 * PART))

    assert 1 <= len(send.upload().parts) <= 4
    assert "abort_upload" not in store.calls
