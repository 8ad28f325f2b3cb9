"""Uploads in parts and the account of the network: what a restart has to know, no more and no less."""

import os
from dataclasses import replace

import pytest

from replicator.model import Fingerprint, Part, Upload

FAR = Fingerprint(size=5 << 30, mtime_ns=-(2**63) + 1, ctime_ns=2**63 - 1, ino=2**64 - 1)


def part(number: int) -> Part:
    return Part(number, etag=f"etag-{number}", md5=number.to_bytes(16, "big"))


@pytest.fixture
def target(journal):
    """A target's number."""
    return journal.target("one")


def test_upload_comes_back_with_its_parts(journal, target):
    """Every field survives, odd names and ids included; parts come in the order of their numbers, gaps stay."""
    begun = Upload(os.fsdecode(b"d/\xff'"), os.fsdecode(b"id\xfe\n"), FAR, part_size=8 << 20)
    journal.begin_upload(target, begun)
    for number in (10000, 2, 1):
        journal.add_part(target, begun.relpath, part(number))

    assert journal.upload(target, begun.relpath) == replace(begun, parts=(part(1), part(2), part(10000)))
    assert journal.upload(target, "absent") is None


def test_part_that_is_confirmed_again_replaces_the_first(journal, target):
    """A part sent twice is one part, the last: that is the one the store has."""
    begun = Upload("a", "id", FAR, part_size=1)
    journal.begin_upload(target, begun)
    journal.add_part(target, "a", part(1))
    journal.add_part(target, "a", Part(1, etag="later", md5=b"l" * 16))

    assert journal.upload(target, "a") == replace(begun, parts=(Part(1, etag="later", md5=b"l" * 16),))


def test_new_upload_replaces_the_one_before_and_its_parts(journal, target):
    """Parts are good for their own upload only; one that begins with parts has those."""
    journal.begin_upload(target, Upload("a", "first", FAR, part_size=1))
    journal.add_part(target, "a", part(7))
    second = Upload("a", "second", replace(FAR, size=1), part_size=2, parts=(part(1), part(2)))
    journal.begin_upload(target, second)

    assert journal.upload(target, "a") == second


def test_dropped_upload_is_gone_with_its_parts(journal, target):
    """Nothing is left of it, and a part that is confirmed too late does not come back as somebody else's."""
    journal.begin_upload(target, Upload("a", "id", FAR, part_size=1))
    journal.add_part(target, "a", part(1))
    journal.drop_upload(target, "a")
    journal.drop_upload(target, "absent")
    journal.add_part(target, "a", part(2))

    assert journal.upload(target, "a") is None
    assert journal._reader.all("SELECT count(*) FROM parts") == [(0,)]


def test_uploads_of_other_paths_and_targets_are_left_alone(journal, target):
    """One path's upload ends without a trace in another's, of the same name elsewhere too."""
    other = journal.target("two")
    begun = Upload("a", "id", FAR, part_size=1, parts=(part(1),))
    beside = replace(begun, relpath="a/b")
    journal.begin_upload(target, begun)
    journal.begin_upload(target, beside)
    journal.begin_upload(other, begun)
    journal.drop_upload(target, "a")

    assert (journal.upload(target, "a"), journal.upload(target, "a/b")) == (None, beside)
    assert journal.upload(other, "a") == begun


def test_uploads_are_listed_oldest_first_without_parts(journal, target, monkeypatch):
    """Who looks for what was left over gets one line an upload, in the order of beginning."""
    for second, relpath in ((30, "c"), (10, "b"), (20, "a")):
        monkeypatch.setattr("replicator.stores.journal.uploads.time.time", lambda second=second: second + 0.5)
        journal.begin_upload(target, Upload(relpath, relpath, FAR, part_size=1, parts=(part(1),)))

    assert journal.uploads(target) == [Upload(relpath, relpath, FAR, part_size=1) for relpath in ("b", "a", "c")]
    assert journal.uploads(journal.target("two")) == []


def test_settled_upload_is_a_row_and_no_upload(journal, target, make_row):
    """The row appears and the upload goes, with the path's intent, in one transaction."""
    journal.begin_upload(target, Upload("a", "id", FAR, part_size=1, parts=(part(1), part(2))))
    journal.begin_upload(target, Upload("b", "id", FAR, part_size=1))
    journal.intend(target, [make_row("a")])
    transactions: list[str] = []
    journal._committer._connection.set_trace_callback(lambda sql: transactions.append(sql) if sql == "COMMIT" else None)
    journal.settle_upload(target, make_row("a"))

    assert transactions == ["COMMIT"]
    assert journal.row(target, "a") == make_row("a")
    assert [upload.relpath for upload in journal.uploads(target)] == ["b"]
    assert journal._reader.all("SELECT count(*) FROM parts") == [(0,)]
    assert journal.intents(target) == []


def test_plain_settle_does_not_look_for_an_upload(journal, target, make_row):
    """The one write of every small file touches rows, intents and totals, nothing else."""
    statements: list[str] = []
    journal._committer._connection.set_trace_callback(statements.append)
    journal.settle(target, make_row("a"))

    assert statements[0].startswith("BEGIN")
    assert not [sql for sql in statements if "uploads" in sql or "parts" in sql]


def test_parts_of_many_threads_are_all_recorded(journal, target, in_threads):
    """Connections confirm the parts of one upload in any order, at the same time."""
    journal.begin_upload(target, Upload("a", "id", FAR, part_size=1))
    adding = [lambda n=n: journal.add_part(target, "a", part(n)) for n in range(1, 33)]
    in_threads(*adding)

    assert journal.upload(target, "a").parts == tuple(part(number) for number in range(1, 33))


def test_usage_adds_up_by_the_hour(journal):
    """Whatever is added to an hour is its sum, and asked for from an hour on; more than 32 bits are no matter."""
    assert journal.usage_since(0) == (0, 0)
    journal.add_usage(100, sent=1, received=2)
    journal.add_usage(100, sent=10, received=2**40)
    journal.add_usage(101, sent=100, received=0)

    assert journal.usage_since(0) == (111, 2**40 + 2)
    assert journal.usage_since(101) == (100, 0)
    assert journal.usage_since(102) == (0, 0)


def test_usage_of_long_ago_is_dropped(journal):
    """After 400 days an hour is gone, and not an hour earlier."""
    journal.add_usage(1000, sent=1, received=1)
    journal.add_usage(1000 + 400 * 24, sent=1, received=1)
    assert journal.usage_since(0) == (2, 2)

    journal.add_usage(1001 + 400 * 24, sent=1, received=1)
    assert journal.usage_since(0) == (2, 2)
    assert journal.usage_since(1001) == (2, 2)


def test_usage_of_many_threads_loses_nothing(journal, in_threads):
    """Adding is one step in the database, so no thread overwrites another's."""
    in_threads(*[lambda: journal.add_usage(7, sent=1, received=2)] * 32)

    assert journal.usage_since(7) == (32, 64)
