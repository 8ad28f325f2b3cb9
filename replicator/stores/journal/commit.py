"""Commit the writes of many threads together.

Owns: the only connection that writes. Never: what is written. Whatever queues while one transaction is being
committed becomes the next one (group commit), and a transaction is recorded whole or not at all. There is no writing
thread: the first thread of a batch commits it for all, so that a lone writer pays for no other.
"""

import sqlite3
import threading
from contextlib import suppress

from replicator.errors import JournalError, JournalFull

Statement = tuple[str, tuple[int | bytes, ...]]
"""SQL and its parameters."""

_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


class _Batch:
    """What one transaction will hold, and how it went."""

    __slots__ = ("ending", "error", "statements")

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        self.error: BaseException | None = None
        self.ending = threading.Lock()  # Released once it is over. An Event costs half as much again a commit.
        self.ending.acquire()


class Committer:
    """A queue of statements in front of one connection; safe from any thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Takes over `connection`, which one thread at a time uses."""
        self._connection = connection
        self._lock = threading.Lock()  # for the two fields below, for an instant
        self._gathering = _Batch()
        self._is_closed = False
        self._turn = threading.Lock()  # for the connection, during a transaction

    def commit(self, *statements: Statement) -> None:
        """Execute `statements`, one at least, in one transaction; returns once it is committed.

        Raises JournalFull when nothing could be recorded for want of room, else JournalError. The error of a
        transaction reaches everybody who has a statement in it.
        """
        with self._lock:
            if self._is_closed:
                raise JournalError("the journal is closed. Start replicator again")
            batch = self._gathering
            is_first = not batch.statements
            batch.statements += statements
        if is_first:
            self._lead(batch)
        else:
            with batch.ending:
                pass
        if batch.error is not None:
            raise _translated(batch.error) from batch.error

    def close(self) -> None:
        """Wait for what is queued, fold the write-ahead log into the database and close it."""
        with self._lock:
            self._is_closed = True
            last = self._gathering
        if last.statements:
            with last.ending:
                pass
        with self._turn:
            with suppress(sqlite3.Error):  # The log stays beside the database and is read at the next start.
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def _lead(self, batch: _Batch) -> None:
        try:
            with self._turn:
                with self._lock:
                    self._gathering = _Batch()
                self._execute(batch.statements)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, nobody in the batch may take it for committed
            batch.error = exc
        finally:
            batch.ending.release()

    def _execute(self, statements: list[Statement]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, values in statements:
                self._connection.execute(sql, values)
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have rolled back already; if neither did, the next BEGIN tells.
                self._connection.execute("ROLLBACK")
            raise


def _translated(exc: BaseException) -> JournalError | JournalFull:
    # Python's own complaints, of a closed connection say, carry no code.
    if getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _NO_ROOM:
        return JournalFull(
            f"the journal cannot be written ({exc}). Free space on the device of the state directory; it is tried again"
        )
    return JournalError(f"the journal cannot be written ({exc}). Check the state directory")
