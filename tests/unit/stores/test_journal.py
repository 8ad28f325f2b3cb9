"""Rows, intents and totals: what is read is what was committed, in byte order, whatever the names are."""

import dataclasses
import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.model import Fingerprint, Part, Row, Upload

PATHS = st.lists(
    st.lists(st.binary(min_size=1, max_size=3).filter(lambda name: b"/" not in name and b"\0" not in name), max_size=4)
    .filter(bool)
    .map(b"/".join)
    .map(os.fsdecode),
    max_size=30,
    unique=True,
)


def test_row_comes_back_as_it_was_settled(journal, make_row):
    """Every field survives, inode numbers of 64 bits, odd names and odd ETags included."""
    target = journal.target("one")
    far = Fingerprint(size=0, mtime_ns=-(2**63) + 1, ctime_ns=2**63 - 1, ino=2**64 - 1)
    rows = [
        make_row("plain"),
        make_row(os.fsdecode(b"not-utf8-\xff")),
        make_row("new\nline'; DROP TABLE rows; --"),
        make_row("caf\u00e9"),
        Row("far", far, etag=os.fsdecode(b"\xfe") + "'\"", checksum="", is_verified=False),
    ]
    for row in rows:
        journal.settle(target, row)

    assert [journal.row(target, row.relpath) for row in rows] == rows
    assert journal.row(target, "absent") is None


def test_newer_version_replaces_the_row(journal, make_row):
    """Settling a path again keeps one row, the last."""
    target = journal.target("one")
    journal.settle(target, make_row("a", version=1, size=10))
    journal.settle(target, make_row("a", version=2, size=30))

    assert list(journal.rows(target)) == [make_row("a", version=2, size=30)]
    assert journal.totals(target) == (1, 30)


def test_targets_do_not_see_each_other(journal, make_row):
    """The number of an identity is stable, and rows of one target are invisible to others."""
    one, two = journal.target("one"), journal.target("two\nlines \udcff")
    journal.settle(one, make_row("a"))

    assert one != two
    assert (journal.target("one"), journal.target("two\nlines \udcff")) == (one, two)
    assert journal.row(two, "a") is None
    assert (list(journal.rows(two)), journal.rows_in(two, ""), journal.totals(two)) == ([], [], (0, 0))
    assert journal.totals(12345) == (0, 0)


def test_intent_lives_until_settled_or_withdrawn(journal, make_row):
    """An announced rename is kept beside the row, replaces an older one, and ends with settle or withdraw."""
    target = journal.target("one")
    journal.settle(target, make_row("a", version=1))
    journal.intend(target, [make_row("a", version=2)])
    journal.intend(target, [make_row("a", version=3)])
    journal.intend(target, [make_row("b", version=4)])

    assert journal.intents(target) == [make_row("a", version=3), make_row("b", version=4)]
    assert journal.row(target, "a") == make_row("a", version=1)
    journal.settle(target, make_row("a", version=3))
    journal.withdraw(target, "b")
    assert journal.intents(target) == []
    assert journal.row(target, "a") == make_row("a", version=3)
    assert journal.row(target, "b") is None


def test_forgotten_row_is_gone(journal, make_row):
    """Forgetting drops the row and its share of the totals; an absent row is fine."""
    target = journal.target("one")
    journal.settle(target, make_row("a", size=10))
    journal.settle(target, make_row("b", size=20))
    journal.forget(target, "a")
    journal.forget(target, "absent")

    assert [row.relpath for row in journal.rows(target)] == ["b"]
    assert journal.totals(target) == (1, 20)


def test_rows_of_a_version_that_left_the_device_are_gone(journal, make_row):
    """Whatever their path and target, and whatever is known of their ctime; rows of other versions stay."""
    one, two = journal.target("one"), journal.target("two")
    far = Fingerprint(size=1, mtime_ns=-5, ctime_ns=7, ino=2**64 - 1)
    for target, row in ((one, Row("a", far, "e", "")), (two, Row("b", far, "e", "")), (one, make_row("stays"))):
        journal.settle(target, row)

    journal.forget_version(dataclasses.replace(far, ctime_ns=0))

    assert [row.relpath for target in (one, two) for row in journal.rows(target)] == ["stays"]


def test_rows_are_streamed_in_byte_order(journal, make_row):
    """All rows come, across page boundaries, ordered by their bytes: `a.b` before `a/b`."""
    target = journal.target("one")
    names = ["a.b", "a/b", "a0", "a", "\u00e9", os.fsdecode(b"\xff")] + [f"n/{number:04}" for number in range(2500)]
    for name in names:
        journal.settle(target, make_row(name))

    assert [row.relpath for row in journal.rows(target)] == sorted(names, key=os.fsencode)


def test_etags_come_as_the_rows_do(journal, make_row):
    """Each path with its row's ETag, across page boundaries, in the rows' order."""
    target = journal.target("one")
    names = ["a.b", "a/b", "\u00e9", os.fsdecode(b"\xff")] + [f"n/{number:04}" for number in range(1500)]
    journal.settle_all([(target, make_row(name)) for name in names])

    assert list(journal.etags(target)) == [(row.relpath, row.etag) for row in journal.rows(target)]


def test_rows_may_change_while_they_are_streamed(journal, make_row):
    """A reader in the middle of the rows keeps no writer waiting and misses no row that stays."""
    target = journal.target("one")
    names = [f"{number:04}" for number in range(3000)]
    for name in names:
        journal.settle(target, make_row(name))
    stream = journal.rows(target)
    seen = [next(stream).relpath]
    journal.forget(target, names[2500])
    journal.settle(target, make_row("9999"))
    seen += [row.relpath for row in stream]

    assert seen == [name for name in names if name != names[2500]] + ["9999"]


def test_totals_follow_every_write(journal, make_row):
    """Rows and bytes are right after inserts, growth, shrinking and deletes, and after a restart."""
    target = journal.target("one")
    for n in range(100):
        journal.settle(target, make_row(f"{n}", size=n))
    journal.settle(target, make_row("99", version=2, size=1))
    journal.forget(target, "98")

    assert journal.totals(target) == (99, sum(range(98)) + 1)
    assert journal.totals(target) == (
        len(list(journal.rows(target))),
        sum(row.fingerprint.size for row in journal.rows(target)),
    )


@pytest.mark.slow
def test_rows_of_a_directory_are_those_directly_in_it(journal, make_row):
    """For any set of paths, each directory has exactly its own rows, in byte order, whatever lies beneath."""
    identities = itertools.count()

    @settings(max_examples=100)
    @given(PATHS)
    def check(relpaths: list[str]) -> None:
        target = journal.target(f"target {next(identities)}")

        for relpath in relpaths:
            journal.settle(target, make_row(relpath))
        for directory in {relpath.rpartition("/")[0] for relpath in relpaths} | {"", "absent"}:
            expected = sorted((path for path in relpaths if path.rpartition("/")[0] == directory), key=os.fsencode)

            assert [row.relpath for row in journal.rows_in(target, directory)] == expected

    check()


def test_directory_is_read_without_what_is_beneath_it(journal, make_row):
    """A directory of a few files and a huge subdirectory costs a handful of steps, not a scan."""
    target = journal.target("one")
    names = ["d/a", "d/z"] + [f"d/sub/{number:05}" for number in range(5000)] + [f"e/{n}" for n in range(1000)]
    for name in names:
        journal.settle(target, make_row(name))
    steps: list[int] = []

    def count() -> int:
        steps.append(1)
        return 0

    journal._reader._connection.set_progress_handler(count, 100)

    assert [row.relpath for row in journal.rows_in(target, "d")] == ["d/a", "d/z"]
    assert len(steps) < 10


def test_reads_are_safe_from_many_threads(journal, make_row, in_threads):
    """Worker threads read rows while others write; each sees whole rows."""
    target = journal.target("one")
    for number in range(100):
        journal.settle(target, make_row(f"d/{number}"))

    def read() -> int:
        found = 0
        for number in range(100):
            row = journal.row(target, f"d/{number}")
            found += row is not None and row.relpath == f"d/{number}" and row.etag == f"etag-{row.fingerprint.ino}"
        return found + len(journal.rows_in(target, "d")) + sum(1 for _ in journal.rows(target))

    def write(version: int) -> None:
        for number in range(100):
            journal.settle(target, make_row(f"d/{number}", version=version))

    outcomes = in_threads(*[read] * 6, *(lambda version=version: write(version) for version in range(2, 6)))

    assert outcomes == [300] * 6 + [None] * 4


def test_targets_are_listed_until_they_are_dropped(journal, make_row):
    """A dropped target takes its rows, intents and uploads with it, and nothing of any other target."""
    one, two = journal.target("one\udcff"), journal.target("two")
    upload = Upload("large", "id", make_row("large").fingerprint, 8 << 20, (Part(1, "etag", b"m" * 16),))
    for target in (one, two):
        for number in range(1500):
            journal.settle(target, make_row(f"{number}"))
        journal.intend(target, [make_row("coming")])
        journal.begin_upload(target, upload)

    assert journal.targets() == [(one, "one\udcff"), (two, "two")]
    journal.drop_target(one)
    assert journal.targets() == [(two, "two")]
    assert (list(journal.rows(one)), journal.intents(one), journal.totals(one)) == ([], [], (0, 0))
    assert (journal.uploads(one), journal.upload(one, "large")) == ([], None)
    assert journal._reader.all("SELECT count(*) FROM parts") == [(1,)]
    assert journal.totals(two)[0] == len(list(journal.rows(two))) == 1500
    assert (journal.intents(two), journal.upload(two, "large")) == ([make_row("coming")], upload)
    assert journal.target("one\udcff") != two
