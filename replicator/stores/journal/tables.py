"""The two connections under every table of the journal: one that reads, one that writes.

Owns: reading. Never: writing, which is the committer's, and SQL, which stands with its table. One connection serves
all readers: under Python's interpreter lock, a connection a thread costs several times as much from 16 threads on.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from replicator.errors import JournalError
from replicator.stores.journal import file as journal_file
from replicator.stores.journal.commit import Committer, Statement

DISTRUST: Statement = ("PRAGMA user_version = -1", ())
"""No version of ours: a journal that was found damaged while it ran is set aside when it is opened next."""


class Reader:
    """One connection for all reads; it sees nothing but what is committed. Safe from any thread."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = journal_file.connect(path)
            self._cursor = self._connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as exc:
            raise _unreadable(exc) from exc

    def all(self, sql: str, values: tuple[int | bytes, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._cursor.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                raise _unreadable(exc) from exc

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Cursor]:
        """Let several statements see one moment. Other readers wait meanwhile."""
        with self._lock:
            try:
                self._cursor.execute("BEGIN")
                try:
                    yield self._cursor
                finally:
                    self._cursor.execute("COMMIT")
            except sqlite3.Error as exc:
                raise _unreadable(exc) from exc

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class Tables:
    """Base of every topic of the journal, so that one object, the Journal, can be them all."""

    def __init__(self, *, reader: Reader, committer: Committer) -> None:
        self._reader = reader
        self._committer = committer


def _unreadable(exc: sqlite3.Error) -> JournalError:
    return JournalError(f"the journal cannot be read ({exc}). Start replicator again: a damaged journal is set aside")
