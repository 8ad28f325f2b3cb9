"""Group commit: many threads, few transactions, and each of them whole or not at all, for everybody in it."""

import os
import sqlite3
import threading
from typing import Any

import pytest

from replicator.errors import JournalError, JournalFull
from replicator.stores.journal.commit import Committer
from replicator.stores.journal.journal import Journal
from tests.waiting import wait_until


@pytest.fixture
def committer(tmp_path):
    """In front of a database with one table `t`, whose only column is never NULL."""
    connection = sqlite3.connect(tmp_path / "db", isolation_level=None, check_same_thread=False)
    connection.execute("CREATE TABLE t (x NOT NULL)")
    committer = Committer(connection)
    yield committer
    committer.close()


def adding(committer, value):
    """A call that commits one value."""
    return lambda: committer.commit(("INSERT INTO t VALUES (?)", (value,)))


def values(committer) -> list[int]:
    return [x for (x,) in committer._connection.execute("SELECT x FROM t ORDER BY x")]


def test_uncommitted_write_is_never_seen(journal, make_row, hold_commit):
    """A row is invisible, and its writer waits, until the moment it is committed."""
    target = journal.target("one")
    held = hold_commit(journal._committer)
    settling = threading.Thread(target=journal.settle, args=(target, make_row("a")))
    settling.start()
    held.wait_reached()

    assert journal.row(target, "a") is None
    assert settling.is_alive()
    held.let_go()
    settling.join(30)
    assert journal.row(target, "a") == make_row("a")


def test_writes_that_queue_are_committed_together(journal, make_row, in_threads, hold_commit):
    """What 63 threads bring while one transaction is under way becomes one transaction."""
    target = journal.target("one")
    held = hold_commit(journal._committer)
    settling = [lambda number=number: journal.settle(target, make_row(f"{number}")) for number in range(64)]

    def release() -> None:
        held.wait_queued(2 * 63)
        held.let_go()

    in_threads(*settling, release)

    assert journal.totals(target)[0] == 64
    assert held.transactions == 2


def test_every_thread_finds_its_own_write_committed(journal, make_row, in_threads):
    """Whoever comes back from a write reads it, however many others write at the same time."""
    target = journal.target("one")

    def work(lane: int) -> int:
        found = 0
        for number in range(50):
            journal.settle(target, make_row(f"{lane}/{number}"))
            found += journal.row(target, f"{lane}/{number}") is not None
        return found

    assert in_threads(*(lambda lane=lane: work(lane) for lane in range(32))) == [50] * 32
    assert journal.totals(target)[0] == 32 * 50


def test_batch_is_recorded_whole_or_not_at_all(committer, in_threads, hold_commit):
    """One statement that fails undoes its batch, every waiter is told in its own words, and the next works."""
    held = hold_commit(committer)
    first = threading.Thread(target=adding(committer, 1))
    first.start()
    held.wait_reached()

    def release() -> None:
        held.wait_queued(3)
        held.let_go()

    *outcomes, _ = in_threads(adding(committer, 2), adding(committer, None), adding(committer, 3), release)
    first.join(30)

    assert [type(outcome) for outcome in outcomes] == [JournalError] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert all("NOT NULL" in str(outcome) for outcome in outcomes)
    adding(committer, 4)()
    assert values(committer) == [1, 4]


def test_what_sqlite_cannot_take_is_told_to_the_whole_batch(committer, in_threads, hold_commit):
    """An error of Python's own, before SQLite has seen the value, lets nobody believe in a commit either."""
    held = hold_commit(committer)
    first = threading.Thread(target=adding(committer, 1))
    first.start()
    held.wait_reached()

    def release() -> None:
        held.wait_queued(2)
        held.let_go()

    *outcomes, _ = in_threads(adding(committer, 2), adding(committer, 2**64), release)
    first.join(30)

    assert [type(outcome) for outcome in outcomes] == [JournalError] * 2
    adding(committer, 4)()
    assert values(committer) == [1, 4]


@pytest.mark.fault("A10")
def test_full_journal_heals(committer, in_threads):
    """At the limit of pages every writer gets JournalFull, none of them is recorded; above it all is as before."""
    committer._connection.execute("PRAGMA max_page_count = 3")
    big = [lambda: committer.commit(("INSERT INTO t VALUES (zeroblob(9000))", ())) for _ in range(16)]
    outcomes = in_threads(*big)

    assert {type(outcome) for outcome in outcomes} == {JournalFull}
    assert values(committer) == []
    committer._connection.execute("PRAGMA max_page_count = 1000")
    assert in_threads(*big) == [None] * 16
    assert len(values(committer)) == 16


@pytest.mark.fault("A10")
def test_full_disk_records_nothing_and_heals(small_disk, make_row, in_threads):
    """Without room every waiter gets JournalFull and no row appears; with room again writes work without a restart."""
    journal = Journal.open(str(small_disk / "state"))
    target = journal.target("one")
    journal.settle(target, make_row("before"))
    (small_disk / "filler").write_bytes(b"x" * (700 << 10))
    written = 0

    def fill() -> None:
        nonlocal written
        while True:
            journal.settle(target, make_row(f"{written:04}/" + "n" * 2000))
            written += 1

    with pytest.raises(JournalFull, match="Free space"):
        fill()
    more = [lambda n=n: journal.settle(target, make_row(f"more-{n}/" + "n" * 4000)) for n in range(20)]
    outcomes = in_threads(*more)

    assert {type(outcome) for outcome in outcomes} == {JournalFull}
    assert journal.totals(target) == (written + 1, 100 * (written + 1))
    assert len(list(journal.rows(target))) == written + 1
    (small_disk / "filler").unlink()
    journal.settle(target, make_row("after"))
    assert journal.row(target, "after") == make_row("after")
    journal.close()


class LateTurn:
    """A lock that lets who closes go before who commits, should it want to: the order a scheduler may choose."""

    def __init__(self, turn: Any, closing: threading.Thread) -> None:
        self._turn = turn
        self._closing = closing
        self._is_wanted = threading.Event()
        self._is_first = True

    def __enter__(self) -> None:
        if threading.current_thread() is self._closing:
            self._is_wanted.set()
        elif not self._is_first:
            self._is_wanted.wait(0.2)
        self._is_first = False
        self._turn.acquire()

    def __exit__(self, *_: object) -> None:
        self._turn.release()


def test_close_commits_what_is_queued(tmp_path, make_row, in_threads, hold_commit, monkeypatch):
    """Writes that were accepted before close are in the journal after it, and no log is left beside the database."""
    journal = Journal.open(str(tmp_path / "state"))
    target = journal.target("one")
    held = hold_commit(journal._committer)
    settling = [lambda number=number: journal.settle(target, make_row(f"{number}")) for number in range(32)]

    closing = threading.Thread(target=journal.close)
    monkeypatch.setattr(journal._committer, "_turn", LateTurn(journal._committer._turn, closing))

    def close() -> None:
        held.wait_queued(2 * 31)
        closing.start()
        wait_until(lambda: journal._committer._is_closed)
        held.let_go()
        closing.join(30)

    outcomes = in_threads(*settling, close)

    assert outcomes == [None] * 33
    assert sorted(os.listdir(tmp_path / "state")) == ["journal.db", "lock"]
    journal = Journal.open(str(tmp_path / "state"))
    assert journal.totals(target)[0] == 32
    journal.close()


def test_close_waits_for_the_transaction_under_way(tmp_path, make_row, hold_commit):
    """A lone transaction, behind which nobody queues, is finished too before the database is closed."""
    journal = Journal.open(str(tmp_path / "state"))
    target = journal.target("one")
    held = hold_commit(journal._committer)
    settling = threading.Thread(target=journal.settle, args=(target, make_row("a")))
    closing = threading.Thread(target=journal.close)
    settling.start()
    held.wait_reached()
    closing.start()
    wait_until(lambda: journal._committer._is_closed)

    assert closing.is_alive()
    held.let_go()
    for thread in (settling, closing):
        thread.join(30)
    journal = Journal.open(str(tmp_path / "state"))
    assert journal.row(target, "a") == make_row("a")
    journal.close()


def test_closed_journal_says_so(tmp_path, make_row):
    """After close neither reads nor writes pretend to work."""
    journal = Journal.open(str(tmp_path / "state"))
    target = journal.target("one")
    journal.close()

    with pytest.raises(JournalError):
        journal.row(target, "a")
    with pytest.raises(JournalError, match="journal is closed"):
        journal.settle(target, make_row("a"))
