"""The journal: what both sides of each target held when they were last in step, and what is about to be renamed.

Owns: rows, intents and totals, in SQLite in the state directory; schema.sql explains them. Never: decisions. It is
memory, not truth: a lost row costs a comparison. Relpaths are kept as the file system's bytes, so that order is byte
order and names that are not UTF-8 survive. Committed writes outlive the process; a power cut may undo the last ones.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Self

from replicator.errors import JournalError
from replicator.model import Fingerprint, Row
from replicator.stores import journal_file
from replicator.stores.journal_commit import Committer

_COLUMNS = "relpath, size, mtime_ns, ctime_ns, ino, etag, checksum, is_verified"


def _select(rest: str) -> str:
    return f"SELECT {_COLUMNS} {rest}"


def _upsert(table: str) -> str:
    columns = _COLUMNS.split(", ")
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
    marks = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} (target, {_COLUMNS}) VALUES (?, {marks}) ON CONFLICT DO UPDATE SET {updates}"  # noqa: S608


_POINT = _select("FROM rows WHERE target = ? AND relpath = ?")
_AFTER = _select("FROM rows WHERE target = ? AND relpath > ? ORDER BY relpath LIMIT ?")
_FROM = _select("FROM rows WHERE target = ? AND relpath >= ? ORDER BY relpath")
_INTENTS = _select("FROM intents WHERE target = ? ORDER BY relpath")
_SETTLE = _upsert("rows")
_INTEND = _upsert("intents")
_TARGET = "SELECT id FROM targets WHERE identity = ?"
_ADD_TARGET = "INSERT INTO targets (identity) VALUES (?) ON CONFLICT DO NOTHING"
_TOTALS = "SELECT row_count, byte_count FROM targets WHERE id = ?"
_FORGET = "DELETE FROM rows WHERE target = ? AND relpath = ?"
_WITHDRAW = "DELETE FROM intents WHERE target = ? AND relpath = ?"

_PAGE_ROWS = 1000
_UINT64 = 2**64

_Record = tuple[bytes, int, int, int, int, bytes, bytes, int]
"""The values of _COLUMNS."""


class Journal:
    """The rows of all targets. Reads block for microseconds and are safe from any thread; writes are awaited.

    Any call may raise JournalError, which ends the process. Writes raise JournalFull when there is no room: nothing
    of theirs is recorded then, and they work again once there is. Cancelling a waiting writer takes nothing back.
    """

    def __init__(self, *, reader: "_Reader", committer: Committer, opened: ExitStack, set_aside: str) -> None:
        """Use `open`. `opened` releases what stands behind `reader` and `committer`, the lock last."""
        self._reader = reader
        self._committer = committer
        self._opened = opened
        self.set_aside = set_aside
        """Where a journal that could not be trusted was put at open; '' when there was none."""

    @classmethod
    def open(cls, state_dir: str) -> Self:
        """Lock `state_dir` (made when missing) and open its journal, a fresh one when the old cannot be trusted.

        Raises ConfigError when the directory cannot be used, JournalError when another process uses it.
        """
        with ExitStack() as opened:
            opened.callback(os.close, journal_file.take_lock(state_dir))
            writer, set_aside = journal_file.open_database(state_dir)
            opened.callback(writer.close)
            reader = opened.enter_context(closing(_Reader(journal_file.path_in(state_dir))))
            return cls(reader=reader, committer=Committer(writer), opened=opened.pop_all(), set_aside=set_aside)

    def target(self, identity: str) -> int:
        """The number that stands for this `Target.identity`, a new one when it was never seen."""
        values = (os.fsencode(identity),)
        found = self._reader.all(_TARGET, values)
        if not found:
            self._committer.commit_now((_ADD_TARGET, values))
            found = self._reader.all(_TARGET, values)
        return int(found[0][0])

    def row(self, target: int, relpath: str) -> Row | None:
        """The row of one path."""
        found = self._reader.all(_POINT, (target, os.fsencode(relpath)))
        return _row(found[0]) if found else None

    def rows(self, target: int) -> Iterator[Row]:
        """All rows in byte order of relpath, read page by page: no snapshot, and no memory of the whole."""
        after = b""
        while page := self._reader.all(_AFTER, (target, after, _PAGE_ROWS)):
            yield from map(_row, page)
            after = page[-1][0]

    def rows_in(self, target: int, directory: str) -> list[Row]:
        """The rows directly in `directory` ('' is the top), in byte order, of one moment.

        Jumps over each subdirectory, so that it costs what is in the directory, not what is beneath it.
        """
        prefix = os.fsencode(directory) + b"/" if directory else b""
        rows: list[Row] = []
        at: bytes | None = prefix
        with self._reader.snapshot() as cursor:
            while at is not None:
                records = cursor.execute(_FROM, (target, at))
                at = None
                for record in records:
                    relpath: bytes = record[0]
                    if not relpath.startswith(prefix):
                        break
                    slash = relpath.find(b"/", len(prefix))
                    if slash >= 0:
                        at = relpath[:slash] + b"0"  # The byte after '/': behind the whole subdirectory.
                        break
                    rows.append(_row(record))
        return rows

    def totals(self, target: int) -> tuple[int, int]:
        """How many rows the target has, and the bytes of their files together."""
        found = self._reader.all(_TOTALS, (target,))
        return (int(found[0][0]), int(found[0][1])) if found else (0, 0)

    def intents(self, target: int) -> list[Row]:
        """The renames that were announced and neither settled nor withdrawn, in byte order."""
        return [_row(record) for record in self._reader.all(_INTENTS, (target,))]

    async def settle(self, target: int, row: Row) -> None:
        """Record that both sides hold this version; its intent, if any, is done with."""
        await self._committer.commit((_SETTLE, _values(target, row)), (_WITHDRAW, (target, os.fsencode(row.relpath))))

    async def intend(self, target: int, row: Row) -> None:
        """Record that the file of this row is about to be renamed into place."""
        await self._committer.commit((_INTEND, _values(target, row)))

    async def withdraw(self, target: int, relpath: str) -> None:
        """Drop the intent of a path: the rename did not happen."""
        await self._committer.commit((_WITHDRAW, (target, os.fsencode(relpath))))

    async def forget(self, target: int, relpath: str) -> None:
        """Drop the row of a path."""
        await self._committer.commit((_FORGET, (target, os.fsencode(relpath))))

    async def close(self) -> None:
        """Commit what is queued, close the database and release the lock. No call may follow."""
        with self._opened:
            await self._committer.close()


class _Reader:
    """One connection of its own for all reads: it sees nothing but what is committed."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = journal_file.connect(path)
            self._cursor = self._connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as exc:
            raise _unreadable(exc) from exc

    def all(self, sql: str, values: tuple[int | bytes, ...]) -> list[_Record]:
        with self._lock:
            try:
                return self._cursor.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                raise _unreadable(exc) from exc

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Cursor]:
        """Let several statements see one moment."""
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


def _unreadable(exc: sqlite3.Error) -> JournalError:
    return JournalError(f"the journal cannot be read ({exc}). Start replicator again: a damaged journal is set aside")


def _row(record: _Record) -> Row:
    relpath, size, mtime_ns, ctime_ns, ino, etag, checksum, is_verified = record
    fingerprint = Fingerprint(size, mtime_ns, ctime_ns, ino % _UINT64)
    return Row(os.fsdecode(relpath), fingerprint, os.fsdecode(etag), os.fsdecode(checksum), is_verified == 1)


def _values(target: int, row: Row) -> tuple[int | bytes, ...]:
    version = row.fingerprint
    ino = version.ino if version.ino < _UINT64 // 2 else version.ino - _UINT64
    return (
        target,
        os.fsencode(row.relpath),
        version.size,
        version.mtime_ns,
        version.ctime_ns,
        ino,
        os.fsencode(row.etag),
        os.fsencode(row.checksum),
        int(row.is_verified),
    )
