"""Commit the writes of many tasks together, on one thread.

Owns: the only connection that writes. Never: what is written. Whatever queues while one transaction is being
committed becomes the next one (group commit), and a transaction is recorded whole or not at all.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from replicator.errors import JournalError, JournalFull

Statement = tuple[str, tuple[int | bytes, ...]]
"""SQL and its parameters."""

_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


class Committer:
    """A queue of statements in front of one connection, for the tasks of one event loop."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Takes over `connection`; it is used and closed on the writing thread only."""
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._queue: list[tuple[Sequence[Statement], asyncio.Future[None]]] = []
        self._running: asyncio.Future[None] | None = None
        self._is_closed = False

    async def commit(self, *statements: Statement) -> None:
        """Execute `statements` in one transaction; returns once it is committed.

        Raises JournalFull when nothing could be recorded for want of room, else JournalError. A caller that is
        cancelled meanwhile does not take its statements back, nor anybody else's.
        """
        if self._is_closed:
            raise JournalError("the journal is closed. Start replicator again")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((statements, done))
        if self._running is None:
            self._begin()
        await done

    def commit_now(self, *statements: Statement) -> None:
        """As `commit`, for callers outside tasks: blocks until it is committed."""
        self._thread.submit(self._transact, statements).result()

    async def close(self) -> None:
        """Commit what is queued, fold the write-ahead log into the database and close it."""
        self._is_closed = True
        while self._running is not None:
            await asyncio.wait([self._running])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _begin(self) -> None:
        batch, self._queue = self._queue, []
        statements = [statement for one, _ in batch for statement in one]
        # No task, but a callback: what ends the process' tasks must not lose a commit under way.
        self._running = asyncio.get_running_loop().run_in_executor(self._thread, self._transact, statements)
        self._running.add_done_callback(lambda running: self._end(running, [done for _, done in batch]))

    def _end(self, running: "asyncio.Future[None]", waiters: Sequence["asyncio.Future[None]"]) -> None:
        self._running = None
        if self._queue:
            self._begin()
        error = running.exception()
        for done in waiters:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    def _transact(self, statements: Sequence[Statement]) -> None:
        try:
            self._execute(statements)
        except sqlite3.Error as exc:
            # Python's own complaints, of a closed connection say, carry no code.
            if getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _NO_ROOM:
                raise JournalFull(
                    f"the journal cannot be written ({exc}). Free space on the device of the state directory; "
                    "it is tried again"
                ) from exc
            raise JournalError(f"the journal cannot be written ({exc}). Check the state directory") from exc

    def _execute(self, statements: Sequence[Statement]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, values in statements:
                self._connection.execute(sql, values)
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have rolled back already; if neither did, the next BEGIN tells.
                self._connection.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        with suppress(sqlite3.Error):  # The log stays beside the database and is read at the next start.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
