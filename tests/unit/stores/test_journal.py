"""Rows, intents and totals: what is read is what was committed, in byte order, whatever the names are."""

import asyncio
import itertools
import os
import sqlite3
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.errors import JournalError, JournalFull
from replicator.model import Fingerprint, Row
from replicator.stores.journal import Journal
from replicator.stores.journal_commit import Committer

PATHS = st.lists(
    st.lists(st.binary(min_size=1, max_size=3).filter(lambda name: b"/" not in name and b"\0" not in name), max_size=4)
    .filter(bool)
    .map(b"/".join)
    .map(os.fsdecode),
    max_size=30,
    unique=True,
)


@pytest.fixture
async def journal(tmp_path):
    """An open journal, empty."""
    journal = Journal.open(str(tmp_path / "state"))
    yield journal
    await journal.close()


async def test_row_comes_back_as_it_was_settled(journal, make_row):
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
        await journal.settle(target, row)

    assert [journal.row(target, row.relpath) for row in rows] == rows
    assert journal.row(target, "absent") is None


async def test_newer_version_replaces_the_row(journal, make_row):
    """Settling a path again keeps one row, the last."""
    target = journal.target("one")
    await journal.settle(target, make_row("a", version=1, size=10))
    await journal.settle(target, make_row("a", version=2, size=30))

    assert list(journal.rows(target)) == [make_row("a", version=2, size=30)]
    assert journal.totals(target) == (1, 30)


async def test_targets_do_not_see_each_other(journal, make_row):
    """The number of an identity is stable, and rows of one target are invisible to others."""
    one, two = journal.target("one"), journal.target("two\nlines \udcff")
    await journal.settle(one, make_row("a"))

    assert one != two
    assert (journal.target("one"), journal.target("two\nlines \udcff")) == (one, two)
    assert journal.row(two, "a") is None
    assert (list(journal.rows(two)), journal.rows_in(two, ""), journal.totals(two)) == ([], [], (0, 0))
    assert journal.totals(12345) == (0, 0)


async def test_intent_lives_until_settled_or_withdrawn(journal, make_row):
    """An announced rename is kept beside the row, replaces an older one, and ends with settle or withdraw."""
    target = journal.target("one")
    await journal.settle(target, make_row("a", version=1))
    await journal.intend(target, make_row("a", version=2))
    await journal.intend(target, make_row("a", version=3))
    await journal.intend(target, make_row("b", version=4))

    assert journal.intents(target) == [make_row("a", version=3), make_row("b", version=4)]
    assert journal.row(target, "a") == make_row("a", version=1)
    await journal.settle(target, make_row("a", version=3))
    await journal.withdraw(target, "b")
    assert journal.intents(target) == []
    assert journal.row(target, "a") == make_row("a", version=3)
    assert journal.row(target, "b") is None


async def test_forgotten_row_is_gone(journal, make_row):
    """Forgetting drops the row and its share of the totals; an absent row is fine."""
    target = journal.target("one")
    await journal.settle(target, make_row("a", size=10))
    await journal.settle(target, make_row("b", size=20))
    await journal.forget(target, "a")
    await journal.forget(target, "absent")

    assert [row.relpath for row in journal.rows(target)] == ["b"]
    assert journal.totals(target) == (1, 20)


async def test_rows_are_streamed_in_byte_order(journal, make_row):
    """All rows come, across page boundaries, ordered by their bytes: `a.b` before `a/b`."""
    target = journal.target("one")
    names = ["a.b", "a/b", "a0", "a", "\u00e9", os.fsdecode(b"\xff")] + [f"n/{number:04}" for number in range(2500)]
    await asyncio.gather(*(journal.settle(target, make_row(name)) for name in names))

    assert [row.relpath for row in journal.rows(target)] == sorted(names, key=os.fsencode)


async def test_rows_may_change_while_they_are_streamed(journal, make_row):
    """A reader in the middle of the rows keeps no writer waiting and misses no row that stays."""
    target = journal.target("one")
    names = [f"{number:04}" for number in range(3000)]
    await asyncio.gather(*(journal.settle(target, make_row(name)) for name in names))
    stream = journal.rows(target)
    seen = [next(stream).relpath]
    await journal.forget(target, names[2500])
    await journal.settle(target, make_row("9999"))
    seen += [row.relpath for row in stream]

    assert seen == [name for name in names if name != names[2500]] + ["9999"]


async def test_totals_follow_every_write(journal, make_row):
    """Rows and bytes are right after inserts, growth, shrinking and deletes, and after a restart."""
    target = journal.target("one")
    await asyncio.gather(*(journal.settle(target, make_row(f"{n}", size=n)) for n in range(100)))
    await journal.settle(target, make_row("99", version=2, size=1))
    await journal.forget(target, "98")

    assert journal.totals(target) == (99, sum(range(98)) + 1)
    assert journal.totals(target) == (
        len(list(journal.rows(target))),
        sum(row.fingerprint.size for row in journal.rows(target)),
    )


def test_rows_of_a_directory_are_those_directly_in_it(tmp_path, make_row):
    """For any set of paths, each directory has exactly its own rows, in byte order, whatever lies beneath."""
    journal = Journal.open(str(tmp_path))
    identities = itertools.count()

    @settings(max_examples=100, deadline=None)
    @given(PATHS)
    def check(relpaths: list[str]) -> None:
        target = journal.target(f"target {next(identities)}")

        async def settle() -> None:
            await asyncio.gather(*(journal.settle(target, make_row(relpath)) for relpath in relpaths))

        asyncio.run(settle())
        for directory in {relpath.rpartition("/")[0] for relpath in relpaths} | {"", "absent"}:
            expected = sorted((path for path in relpaths if path.rpartition("/")[0] == directory), key=os.fsencode)

            assert [row.relpath for row in journal.rows_in(target, directory)] == expected

    check()
    asyncio.run(journal.close())


async def test_directory_is_read_without_what_is_beneath_it(journal, make_row):
    """A directory of a few files and a huge subdirectory costs a handful of steps, not a scan."""
    target = journal.target("one")
    names = ["d/a", "d/z"] + [f"d/sub/{number:05}" for number in range(5000)] + [f"e/{n}" for n in range(1000)]
    await asyncio.gather(*(journal.settle(target, make_row(name)) for name in names))
    steps: list[int] = []

    def count() -> int:
        steps.append(1)
        return 0

    journal._reader._connection.set_progress_handler(count, 100)

    assert [row.relpath for row in journal.rows_in(target, "d")] == ["d/a", "d/z"]
    assert len(steps) < 10


async def test_uncommitted_write_is_never_seen(journal, make_row):
    """A row is invisible until the moment it is committed, also to a reader in another thread."""
    target = journal.target("one")
    has_reached_commit, may_commit = threading.Event(), threading.Event()

    def hold(sql: str) -> None:
        if sql == "COMMIT":
            has_reached_commit.set()
            may_commit.wait(10)

    journal._committer._connection.set_trace_callback(hold)
    settling = asyncio.create_task(journal.settle(target, make_row("a")))
    await asyncio.to_thread(has_reached_commit.wait, 10)

    assert await asyncio.to_thread(journal.row, target, "a") is None
    assert not settling.done()
    may_commit.set()
    await settling
    assert await asyncio.to_thread(journal.row, target, "a") == make_row("a")


async def test_writes_that_queue_are_committed_together(journal, make_row):
    """A thousand concurrent writes need a few transactions, not a thousand."""
    target = journal.target("one")
    commits: list[str] = []
    journal._committer._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    await asyncio.gather(*(journal.settle(target, make_row(f"{number}")) for number in range(1000)))

    assert journal.totals(target)[0] == 1000
    assert 1 <= len(commits) <= 5


async def test_cancelled_writer_takes_no_other_write_with_it(journal, make_row):
    """When one waiting task is cancelled, the writes of the others are committed and confirmed."""
    target = journal.target("one")
    tasks = [asyncio.create_task(journal.settle(target, make_row(f"{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert outcomes[1::2] == [None] * 25
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert all(journal.row(target, f"{number}") is not None for number in range(1, 50, 2))


async def test_batch_is_recorded_whole_or_not_at_all(tmp_path):
    """One statement that fails undoes its batch, every waiter is told, and the next batch works."""
    connection = sqlite3.connect(tmp_path / "db", isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE t (x NOT NULL)")
    committer = Committer(connection)
    first = asyncio.create_task(committer.commit(("INSERT INTO t VALUES (?)", (1,))))
    await asyncio.sleep(0)
    batch = [
        asyncio.create_task(committer.commit(("INSERT INTO t VALUES (?)", (2,)))),
        asyncio.create_task(committer.commit(("INSERT INTO t VALUES (NULL)", ()))),
        asyncio.create_task(committer.commit(("INSERT INTO t VALUES (?)", (3,)))),
    ]
    outcomes = await asyncio.gather(first, *batch, return_exceptions=True)

    assert outcomes[0] is None
    assert [type(outcome) for outcome in outcomes[1:]] == [JournalError] * 3
    await committer.commit(("INSERT INTO t VALUES (?)", (4,)))
    assert connection.execute("SELECT x FROM t").fetchall() == [(1,), (4,)]
    await committer.close()


async def test_full_disk_records_nothing_and_heals(small_disk, make_row):
    """Without room every waiter gets JournalFull and no row appears; with room again writes work without a restart."""
    journal = Journal.open(str(small_disk / "state"))
    target = journal.target("one")
    await journal.settle(target, make_row("before"))
    (small_disk / "filler").write_bytes(b"x" * (700 << 10))
    written = 0

    async def fill() -> None:
        nonlocal written
        while True:
            await journal.settle(target, make_row(f"{written:04}/" + "n" * 2000))
            written += 1

    with pytest.raises(JournalFull, match="Free space"):
        await fill()
    outcomes = await asyncio.gather(
        *(journal.settle(target, make_row(f"more-{number}/" + "n" * 4000)) for number in range(20)),
        return_exceptions=True,
    )

    assert {type(outcome) for outcome in outcomes} == {JournalFull}
    assert journal.totals(target) == (written + 1, 100 * (written + 1))
    assert len(list(journal.rows(target))) == written + 1
    (small_disk / "filler").unlink()
    await journal.settle(target, make_row("after"))
    assert journal.row(target, "after") == make_row("after")
    await journal.close()


async def test_closed_journal_says_so(tmp_path, make_row):
    """After close neither reads nor writes pretend to work."""
    journal = Journal.open(str(tmp_path / "state"))
    target = journal.target("one")
    await journal.close()

    with pytest.raises(JournalError):
        journal.row(target, "a")
    with pytest.raises(JournalError):
        await journal.settle(target, make_row("a"))


async def test_close_commits_what_is_queued(tmp_path, make_row):
    """Writes that were accepted before close are in the journal after it, and no log is left beside the database."""
    journal = Journal.open(str(tmp_path / "state"))
    target = journal.target("one")
    tasks = [asyncio.create_task(journal.settle(target, make_row(f"{number}"))) for number in range(200)]
    await asyncio.sleep(0)
    await journal.close()
    await asyncio.gather(*tasks)

    assert sorted(os.listdir(tmp_path / "state")) == ["journal.db", "lock"]
    journal = Journal.open(str(tmp_path / "state"))
    assert journal.totals(target)[0] == 200
    await journal.close()


async def test_reads_are_safe_from_many_threads(journal, make_row):
    """Worker threads read rows while others write; each sees whole rows."""
    target = journal.target("one")
    await asyncio.gather(*(journal.settle(target, make_row(f"d/{number}")) for number in range(100)))

    def read() -> int:
        found = 0
        for number in range(100):
            row = journal.row(target, f"d/{number}")
            found += row is not None and row.relpath == f"d/{number}" and row.etag == f"etag-{row.fingerprint.ino}"
        return found + len(journal.rows_in(target, "d")) + sum(1 for _ in journal.rows(target))

    async def write() -> None:
        for version in range(2, 12):
            await asyncio.gather(*(journal.settle(target, make_row(f"d/{n}", version=version)) for n in range(100)))

    *counts, _ = await asyncio.gather(*(asyncio.to_thread(read) for _ in range(6)), write())
    assert counts == [300] * 6
