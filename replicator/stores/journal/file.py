"""Own the state directory and open the database in it, or begin a fresh one when it cannot be trusted.

Owns: the lock, file modes, the checks and the upgrade at open, setting a bad database aside. Never: rows.
Source: flock(2) dies with its process, so a stale lock needs no care; SQLite's result codes ("Result and Error Codes").
"""

import fcntl
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from importlib import resources

from replicator.errors import ConfigError, JournalError
from replicator.stores.journal.sending import Sending

_SCRIPTS = ("schema.sql", "schema_2.sql", "schema_3.sql")
"""The nth makes version n of the schema out of the one before. They never change: at open, texts are compared."""

SCHEMA_VERSION = len(_SCRIPTS)
BUSY_TIMEOUT_S = 10.0
"""How long to wait for a lock that another program, a backup say, holds on the database."""

_PRIVATE_DIR = 0o700
_PRIVATE_FILE = 0o600
_UNTRUSTED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})


class Distrust(StrEnum):
    """Why a journal is set aside."""

    DAMAGED = "damaged"
    LATER = "later-release"


def path_in(state_dir: str) -> str:
    """Where the database of a state directory is."""
    return os.path.join(state_dir, "journal.db")


def take_lock(state_dir: str) -> int:
    """Make `state_dir` when it is missing and lock it. Returns the descriptor that holds the lock.

    Raises JournalError when another process holds it, ConfigError when the directory cannot be used.
    """
    try:
        os.makedirs(state_dir, mode=_PRIVATE_DIR, exist_ok=True)
        fd = os.open(os.path.join(state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _PRIVATE_FILE)
    except OSError as exc:
        raise _unusable(state_dir, exc) from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    except BlockingIOError as exc:
        owner = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise JournalError(
            f"{state_dir} is in use by process {owner}. "
            "Stop that process or choose another REPLICATOR_STATE_DIR (--state-dir)"
        ) from exc
    except OSError as exc:
        os.close(fd)
        raise _unusable(state_dir, exc) from exc
    return fd


def open_database(state_dir: str) -> tuple[sqlite3.Connection, str, Distrust | None]:
    """The database of a locked `state_dir`, ready for writing; where an untrusted one was set aside, or '', and why."""
    path = path_in(state_dir)
    try:
        # Made here for its mode, which SQLite gives its companion files too; and closed before SQLite has it,
        # because closing any descriptor of it later would drop SQLite's locks.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _PRIVATE_FILE))
        found = _opened(path)
        if not isinstance(found, Distrust):
            return found, "", None
        aside = _set_aside(path)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE))
        fresh = _opened(path)
    except (OSError, sqlite3.Error) as exc:
        raise _unusable(state_dir, exc) from exc
    if isinstance(fresh, Distrust):
        raise JournalError(f"{path}: a fresh journal cannot be read back. Check the device's storage")
    return fresh, aside, found


def open_sending(state_dir: str) -> Sending:
    """What is on record of a locked `state_dir` beside its database. Raises ConfigError."""
    try:
        return Sending(os.path.join(state_dir, "sending"))
    except OSError as exc:
        raise _unusable(state_dir, exc) from exc


def connect(path: str) -> sqlite3.Connection:
    """A connection that commits only when told to; the caller keeps threads from using it at the same time."""
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _opened(path: str) -> sqlite3.Connection | Distrust:
    """The database at `path`, brought to our version of the schema; else why it is not to be trusted."""
    connection = connect(path)
    why = Distrust.DAMAGED
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        # A damaged journal is set aside as it was found, so it is looked at before it is upgraded.
        is_sound = _is_sound(connection, version)
        if is_sound and version < SCHEMA_VERSION:
            connection.executescript(f"BEGIN IMMEDIATE;\n{_script(version, SCHEMA_VERSION)}\nCOMMIT;")
            is_sound = _is_sound(connection, SCHEMA_VERSION)
        if is_sound:
            return connection
        if version > SCHEMA_VERSION:
            why = Distrust.LATER
    except UnicodeDecodeError:  # A damaged schema is quoted in SQLite's message, and Python cannot read that.
        pass
    except sqlite3.Error as exc:
        if getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _UNTRUSTED:
            connection.close()
            raise
    connection.close()
    return why


def _is_sound(connection: sqlite3.Connection, version: int) -> bool:
    """Whether the database is a whole one of this version; 0 is the empty one."""
    if not 0 <= version <= SCHEMA_VERSION:
        return False
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(_script(0, version))
        if _schema(connection) != _schema(fresh):
            return False
    # The quick check leaves out indexes that stand beside their table: of those there is one, of a small table.
    checks = ["quick_check(1)", "integrity_check(targets)"][: 1 + (version > 0)]
    return all(connection.execute(f"PRAGMA {check}").fetchall() == [("ok",)] for check in checks)


def _schema(connection: sqlite3.Connection) -> list[tuple[str, str | None]]:
    return connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


def _script(after: int, version: int) -> str:
    """What leads from one version of the schema to another."""
    room = resources.files("replicator.stores.journal")
    return "\n".join(room.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS[after:version])


def _set_aside(path: str) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = f"{path}.set-aside-{stamp}"
    for suffix in ("-wal", "-shm", ""):
        if os.path.lexists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    return aside


def _unusable(state_dir: str, exc: OSError | sqlite3.Error) -> ConfigError:
    return ConfigError(
        where=f"state_dir {state_dir}",
        problem=f"the journal cannot be kept there ({exc.strerror if isinstance(exc, OSError) else exc})",
        fix=f"Make it a writable directory of uid {os.getuid()} with room on its device, "
        "or set REPLICATOR_STATE_DIR (--state-dir)",
    )
