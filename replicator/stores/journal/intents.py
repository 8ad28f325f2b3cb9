"""What is about to be renamed into place, and the rows that come of it.

Owns: the table `intents`, and the one way to write a row. Never: decisions.
"""

import os
from collections.abc import Sequence

from replicator.model import Row
from replicator.stores.journal.commit import Statement
from replicator.stores.journal.rows import COLUMNS, fingerprint_values, of_paths, row_from, select, values_of
from replicator.stores.journal.tables import Tables


def _upsert(table: str) -> str:
    columns = COLUMNS.split(", ")
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
    marks = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} (target, {COLUMNS}) VALUES (?, {marks}) ON CONFLICT DO UPDATE SET {updates}"  # noqa: S608


_INTENTS = select("FROM intents WHERE target = ? ORDER BY relpath")
_OF = select("FROM intents WHERE target = ? AND relpath IN")
_SETTLE = _upsert("rows")
_INTEND = _upsert("intents")
_WITHDRAW = "DELETE FROM intents WHERE target = ? AND relpath = ?"
_LOOSEN = (
    "UPDATE rows SET ctime_ns = 0 "
    "WHERE target = ? AND relpath = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ? AND ino = ?"
)


class Intents(Tables):
    """Renames to come, and what has come of them."""

    def intents(self, target: int) -> list[Row]:
        """The renames that were announced and neither settled nor withdrawn, in byte order."""
        return [row_from(record) for record in self._reader.all(_INTENTS, (target,))]

    def intents_of(self, target: int, relpaths: Sequence[str]) -> dict[str, Row]:
        """Those of these paths, by relpath."""
        return of_paths(self._reader, _OF, target, relpaths)

    def settle(self, target: int, row: Row) -> None:
        """Record that both sides hold this version; its intent, if any, is done with."""
        self._committer.commit(*settling(target, row))

    def settle_all(self, rows: Sequence[tuple[int, Row]]) -> None:
        """As `settle` for each (target, row), in one transaction."""
        self._committer.commit(*(statement for target, row in rows for statement in settling(target, row)))

    def intend(self, target: int, rows: Sequence[Row]) -> None:
        """Record that the files of these rows are about to be renamed into place."""
        self._committer.commit(*((_INTEND, values_of(target, row)) for row in rows))

    def loosen(self, target: int, rows: Sequence[Row]) -> None:
        """Forget the ctime of these rows where they are still the same: their files are to get or lose a name."""
        values = [(target, os.fsencode(row.relpath), *fingerprint_values(row.fingerprint)) for row in rows]
        self._committer.commit(*((_LOOSEN, value) for value in values))

    def withdraw(self, target: int, relpath: str) -> None:
        """Drop the intent of a path: its file is not there."""
        self._committer.commit((_WITHDRAW, (target, os.fsencode(relpath))))


def settling(target: int, row: Row) -> tuple[Statement, ...]:
    """What `settle` executes, for those who record something else in the same transaction."""
    return (_SETTLE, values_of(target, row)), (_WITHDRAW, (target, os.fsencode(row.relpath)))
