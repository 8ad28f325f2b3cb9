"""The journal's requests that nobody answered, and that the store may therefore still carry out.

Owns: the table `late_writes`, and its image in memory, which every file that is sent asks. Never: what one endangers
(`transfer.late`). Where the device has no room for a line, only memory has it: a restart then forgets it.
"""

import contextlib
import math
import os
from dataclasses import replace

from replicator.errors import JournalFull
from replicator.model import LateWrite
from replicator.stores.journal.commit import Committer, Statement
from replicator.stores.journal.tables import Reader, Tables

_MOST = 20_000
"""Lines that are kept, some 5 MB in memory; beyond, the one goes that has been waiting longest."""

_COLUMNS = "target, relpath, checksum, since_s, is_looked_at"
_ALL = f"SELECT {_COLUMNS} FROM late_writes ORDER BY since_s"  # noqa: S608
_EXPECT = f"INSERT OR REPLACE INTO late_writes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)"  # noqa: S608
_DROP = "DELETE FROM late_writes WHERE target = ? AND relpath = ?"


class LateWrites(Tables):
    """At most one a path."""

    def __init__(self, *, reader: Reader, committer: Committer) -> None:
        super().__init__(reader=reader, committer=committer)
        self._late = {
            (int(target), os.fsdecode(relpath)): LateWrite(
                os.fsdecode(relpath), os.fsdecode(checksum), since_s, is_looked_at == 1
            )
            for target, relpath, checksum, since_s, is_looked_at in reader.all(_ALL)
        }

    def late_write(self, target: int, relpath: str) -> LateWrite | None:
        """What may still come in for this path."""
        return self._late.get((target, relpath)) if self._late else None

    def late_writes(self, target: int) -> list[LateWrite]:
        """All of the target."""
        return [late for (number, _), late in list(self._late.items()) if number == target]

    def expect_late(self, target: int, relpath: str, checksum: str, *, now_s: float) -> None:
        """Record that a request with content of this checksum was not answered; whoever was waited for waits anew."""
        before = self.late_write(target, relpath)
        is_same = before is None or before.checksum == checksum
        self._keep(target, LateWrite(relpath, checksum if is_same else "", math.ceil(now_s)))

    def looked_at(self, target: int, relpath: str, *, began_s: float) -> None:
        """A look at the path that began then went well: after the second one that was due nothing comes in any more."""
        late = self.late_write(target, relpath)
        if late is None or not late.is_due(began_s):
            return
        if late.is_looked_at:
            self.drop_late(target, relpath)
        else:
            self._keep(target, replace(late, is_looked_at=True))

    def _keep(self, target: int, late: LateWrite) -> None:
        key = (target, late.relpath)
        self._late.pop(key, None)  # the order is that of waiting
        self._late[key] = late
        values = (*_values(*key), os.fsencode(late.checksum), late.since_s, int(late.is_looked_at))
        statements: list[Statement] = [(_EXPECT, values)]
        if len(self._late) > _MOST:
            longest = next(iter(self._late))
            self._late.pop(longest, None)
            statements.append((_DROP, _values(*longest)))
        self._write(*statements)

    def drop_late(self, target: int, relpath: str) -> None:
        """Nothing comes in any more."""
        self._late.pop((target, relpath), None)
        self._write((_DROP, _values(target, relpath)))

    def _write(self, *statements: Statement) -> None:
        with contextlib.suppress(JournalFull):
            self._committer.commit(*statements)


def _values(target: int, relpath: str) -> tuple[int, bytes]:
    return target, os.fsencode(relpath)
