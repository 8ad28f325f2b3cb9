"""The journal: what both sides of each target held when they were last in step, and what is under way.

Owns: opening and closing it, and the targets' numbers; each other topic is a module of its own beside this one, and
the schema scripts explain the tables. Never: decisions. It is memory, not truth: a lost row costs a comparison.
Committed writes outlive the process; a power cut may undo the last ones.
"""

import os
import time
from contextlib import ExitStack, closing
from typing import Self

from replicator.stores.journal import file as journal_file
from replicator.stores.journal.commit import Committer
from replicator.stores.journal.intents import Intents
from replicator.stores.journal.late import LateWrites
from replicator.stores.journal.rows import Rows
from replicator.stores.journal.sending import Sending
from replicator.stores.journal.tables import Reader
from replicator.stores.journal.uploads import Uploads
from replicator.stores.journal.usage import Usage

_TARGET = "SELECT id FROM targets WHERE identity = ?"
_TARGETS = "SELECT id, identity FROM targets ORDER BY id"
_ADD_TARGET = "INSERT INTO targets (identity) VALUES (?) ON CONFLICT DO NOTHING"
_HAS_ROWS = "SELECT 1 FROM rows WHERE target = ? LIMIT 1"
_DROP_SOME_ROWS = (
    "DELETE FROM rows WHERE target = ? AND relpath IN (SELECT relpath FROM rows WHERE target = ? LIMIT 1000)"
)
_DROP_TARGET = (
    "DELETE FROM targets WHERE id = ?",
    "DELETE FROM rows WHERE target = ?",
    "DELETE FROM intents WHERE target = ?",
    "DELETE FROM parts WHERE target = ?",
    "DELETE FROM uploads WHERE target = ?",
)


class Journal(Rows, Intents, Uploads, LateWrites, Usage):
    """The one door to all of it. Calls block, reads for microseconds, and are safe from any thread.

    Any call may raise JournalError, which ends the process. Writes return when they are committed; they raise
    JournalFull when there is no room: nothing of theirs is recorded then, and they work again once there is.
    """

    def __init__(
        self,
        *,
        reader: Reader,
        committer: Committer,
        sending: Sending,
        opened: ExitStack,
        set_aside: str,
        distrust: journal_file.Distrust | None,
    ) -> None:
        """Use `open`. `opened` releases what stands behind the others, the lock last."""
        super().__init__(reader=reader, committer=committer)
        self._opened = opened
        self.sending = sending
        """What is under way now; what the process before this one left there is expected late."""
        self.set_aside = set_aside
        """Where a journal that could not be trusted was put at open; '' when there was none."""
        self.distrust = distrust
        """Why it could not."""

    @classmethod
    def open(cls, state_dir: str) -> Self:
        """Lock `state_dir` (made when missing) and open its journal, a fresh one when the old cannot be trusted.

        Raises ConfigError when the directory cannot be used, JournalError when another process uses it.
        """
        with ExitStack() as opened:
            opened.callback(os.close, journal_file.take_lock(state_dir))
            writer, set_aside, distrust = journal_file.open_database(state_dir)
            opened.callback(writer.close)
            reader = opened.enter_context(closing(Reader(journal_file.path_in(state_dir))))
            sending = opened.enter_context(closing(journal_file.open_sending(state_dir)))
            journal = cls(
                reader=reader,
                committer=Committer(writer),
                sending=sending,
                opened=opened,
                set_aside=set_aside,
                distrust=distrust,
            )
            if not set_aside:  # a fresh journal has other numbers for its targets
                for target, relpath, checksum in sending.left:
                    journal.expect_late(target, relpath, checksum, now_s=time.time())
            sending.clear()
            journal._opened = opened.pop_all()
            return journal

    def target(self, identity: str) -> int:
        """The number that stands for this `Target.identity`, a new one when it was never seen."""
        values = (os.fsencode(identity),)
        found = self._reader.all(_TARGET, values)
        if not found:
            self._committer.commit((_ADD_TARGET, values))
            found = self._reader.all(_TARGET, values)
        return int(found[0][0])

    def targets(self) -> list[tuple[int, str]]:
        """Number and identity of every target there ever was and that was not dropped."""
        return [(int(number), os.fsdecode(identity)) for number, identity in self._reader.all(_TARGETS)]

    def drop_target(self, number: int) -> None:
        """Forget everything about a target that nobody works on; others' writes get their turns meanwhile."""
        for late in self.late_writes(number):
            self.drop_late(number, late.relpath)
        while self._reader.all(_HAS_ROWS, (number,)):
            self._committer.commit((_DROP_SOME_ROWS, (number, number)))
        self._committer.commit(*((sql, (number,)) for sql in _DROP_TARGET))

    def close(self) -> None:
        """Commit what is queued, close the database and release the lock. Calls that follow raise JournalError."""
        with self._opened:
            self._committer.close()
