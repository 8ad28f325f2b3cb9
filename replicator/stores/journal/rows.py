"""The journal's rows, intents and totals of one target at a time.

Owns: the tables `rows` and `intents`, and how a fingerprint is written down. Never: decisions. Relpaths are kept as
the file system's bytes, so that order is byte order and names that are not UTF-8 survive.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from replicator.model import Fingerprint, Row
from replicator.stores.journal.commit import Statement
from replicator.stores.journal.tables import Tables

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
_TOTALS = "SELECT row_count, byte_count FROM targets WHERE id = ?"
_FORGET = "DELETE FROM rows WHERE target = ? AND relpath = ?"
_WITHDRAW = "DELETE FROM intents WHERE target = ? AND relpath = ?"

_PAGE_ROWS = 1000
_UINT64 = 2**64


class Rows(Tables):
    """What both sides held when they were last in step, and what is about to be renamed."""

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

    def settle(self, target: int, row: Row) -> None:
        """Record that both sides hold this version; its intent, if any, is done with."""
        self._committer.commit(*settling(target, row))

    def settle_all(self, rows: Sequence[tuple[int, Row]]) -> None:
        """As `settle` for each (target, row), in one transaction."""
        self._committer.commit(*(statement for target, row in rows for statement in settling(target, row)))

    def intend(self, target: int, row: Row) -> None:
        """Record that the file of this row is about to be renamed into place."""
        self._committer.commit((_INTEND, _values(target, row)))

    def withdraw(self, target: int, relpath: str) -> None:
        """Drop the intent of a path: the rename did not happen."""
        self._committer.commit((_WITHDRAW, (target, os.fsencode(relpath))))

    def forget(self, target: int, relpath: str) -> None:
        """Drop the row of a path."""
        self._committer.commit((_FORGET, (target, os.fsencode(relpath))))


def settling(target: int, row: Row) -> tuple[Statement, ...]:
    """What `settle` executes, for those who record something else in the same transaction."""
    return (_SETTLE, _values(target, row)), (_WITHDRAW, (target, os.fsencode(row.relpath)))


def fingerprint_values(version: Fingerprint) -> tuple[int, int, int, int]:
    """The columns size, mtime_ns, ctime_ns and ino; SQLite's integers are signed ones of 64 bits."""
    ino = version.ino if version.ino < _UINT64 // 2 else version.ino - _UINT64
    return version.size, version.mtime_ns, version.ctime_ns, ino


def fingerprint_of(size: int, mtime_ns: int, ctime_ns: int, ino: int) -> Fingerprint:
    """The way back from `fingerprint_values`."""
    return Fingerprint(size, mtime_ns, ctime_ns, ino % _UINT64)


def _row(record: tuple[Any, ...]) -> Row:
    relpath, size, mtime_ns, ctime_ns, ino, etag, checksum, is_verified = record
    fingerprint = fingerprint_of(size, mtime_ns, ctime_ns, ino)
    return Row(os.fsdecode(relpath), fingerprint, os.fsdecode(etag), os.fsdecode(checksum), is_verified == 1)


def _values(target: int, row: Row) -> tuple[int | bytes, ...]:
    return (
        target,
        os.fsencode(row.relpath),
        *fingerprint_values(row.fingerprint),
        os.fsencode(row.etag),
        os.fsencode(row.checksum),
        int(row.is_verified),
    )
