"""The journal's rows and totals of one target at a time, as they are read; `intents` writes them.

Owns: how a row and a fingerprint are written down. Never: decisions. Relpaths are kept as
the file system's bytes, so that order is byte order and names that are not UTF-8 survive.
"""

import operator
import os
from collections.abc import Iterator, Sequence
from typing import Any

from replicator.errors import JournalError
from replicator.model import Fingerprint, Row
from replicator.stores.journal.tables import DISTRUST, Reader, Tables

COLUMNS = "relpath, size, mtime_ns, ctime_ns, ino, etag, checksum, is_verified"


def select(rest: str) -> str:
    """A query for whole rows."""
    return f"SELECT {COLUMNS} {rest}"


_POINT = select("FROM rows WHERE target = ? AND relpath = ?")
_OF = select("FROM rows WHERE target = ? AND relpath IN")
_AFTER = select("FROM rows WHERE target = ? AND relpath > ? ORDER BY relpath LIMIT ?")
_ETAGS = "SELECT relpath, etag FROM rows WHERE target = ? AND relpath > ? ORDER BY relpath LIMIT ?"
_FROM = select("FROM rows WHERE target = ? AND relpath >= ? ORDER BY relpath")
_TOTALS = "SELECT row_count, byte_count FROM targets WHERE id = ?"
_FORGET = "DELETE FROM rows WHERE target = ? AND relpath = ?"
_FORGET_VERSION = "DELETE FROM rows WHERE size = ? AND mtime_ns = ? AND ino = ?"
_PAGE_ROWS = 1000
_UINT64 = 2**64


class Rows(Tables):
    """What both sides held when they were last in step."""

    def row(self, target: int, relpath: str) -> Row | None:
        """The row of one path."""
        found = self._reader.all(_POINT, (target, os.fsencode(relpath)))
        return row_from(found[0]) if found else None

    def rows_of(self, target: int, relpaths: Sequence[str]) -> dict[str, Row]:
        """The rows of these paths by their relpath; those without a row are missing."""
        return of_paths(self._reader, _OF, target, relpaths)

    def rows(self, target: int) -> Iterator[Row]:
        """All rows in byte order of relpath, read page by page: no snapshot, and no memory of the whole."""
        for page in self._pages(_AFTER, target):
            yield from map(row_from, page)

    def etags(self, target: int) -> Iterator[tuple[str, str]]:
        """(relpath, ETag) of all rows as `rows` gives them, at a third of its price."""
        for page in self._pages(_ETAGS, target):
            yield from ((os.fsdecode(relpath), os.fsdecode(etag)) for relpath, etag in page)

    def _pages(self, query: str, target: int) -> Iterator[list[Any]]:
        """Raises JournalError where names are out of order: a damaged byte in a name is seen by no check at open."""
        after = b""
        while page := self._reader.all(query, (target, after, _PAGE_ROWS)):
            names = [after, *(record[0] for record in page)]
            if any(map(operator.ge, names, names[1:])):
                self._committer.commit(DISTRUST)
                raise JournalError("the journal's rows are out of order. Start replicator again: it is set aside then")
            yield page
            after = names[-1]

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
                    rows.append(row_from(record))
        return rows

    def totals(self, target: int) -> tuple[int, int]:
        """How many rows the target has, and the bytes of their files together."""
        found = self._reader.all(_TOTALS, (target,))
        return (int(found[0][0]), int(found[0][1])) if found else (0, 0)

    def forget(self, target: int, relpath: str) -> None:
        """Drop the row of a path."""
        self._committer.commit((_FORGET, (target, os.fsencode(relpath))))

    def forget_all(self, target: int, relpaths: Sequence[str]) -> None:
        """As `forget` for each, so many in a transaction that others' writes get their turns meanwhile."""
        for begin in range(0, len(relpaths), _PAGE_ROWS):
            some = relpaths[begin : begin + _PAGE_ROWS]
            self._committer.commit(*((_FORGET, (target, os.fsencode(relpath))) for relpath in some))

    def forget_version(self, version: Fingerprint) -> None:
        """Drop the rows of a file, of whichever path and target, that left the device in this version."""
        size, mtime_ns, _, ino = fingerprint_values(version)
        self._committer.commit((_FORGET_VERSION, (size, mtime_ns, ino)))


def fingerprint_values(version: Fingerprint) -> tuple[int, int, int, int]:
    """The columns size, mtime_ns, ctime_ns and ino; SQLite's integers are signed ones of 64 bits."""
    ino = version.ino if version.ino < _UINT64 // 2 else version.ino - _UINT64
    return version.size, version.mtime_ns, version.ctime_ns, ino


def fingerprint_of(size: int, mtime_ns: int, ctime_ns: int, ino: int) -> Fingerprint:
    """The way back from `fingerprint_values`."""
    return Fingerprint(size, mtime_ns, ctime_ns, ino % _UINT64)


def of_paths(reader: Reader, query: str, target: int, relpaths: Sequence[str]) -> dict[str, Row]:
    """What a query that ends with `relpath IN` finds of these paths, by relpath."""
    rows: dict[str, Row] = {}
    for begin in range(0, len(relpaths), _PAGE_ROWS):
        names = [os.fsencode(relpath) for relpath in relpaths[begin : begin + _PAGE_ROWS]]
        found = reader.all(f"{query} ({', '.join('?' for _ in names)})", (target, *names))
        rows.update((row.relpath, row) for row in map(row_from, found))
    return rows


def row_from(record: tuple[Any, ...]) -> Row:
    """The row of a record of COLUMNS."""
    relpath, size, mtime_ns, ctime_ns, ino, etag, checksum, is_verified = record
    fingerprint = fingerprint_of(size, mtime_ns, ctime_ns, ino)
    return Row(os.fsdecode(relpath), fingerprint, os.fsdecode(etag), os.fsdecode(checksum), is_verified == 1)


def values_of(target: int, row: Row) -> tuple[int | bytes, ...]:
    """The target's number and COLUMNS."""
    return (
        target,
        os.fsencode(row.relpath),
        *fingerprint_values(row.fingerprint),
        os.fsencode(row.etag),
        os.fsencode(row.checksum),
        int(row.is_verified),
    )
