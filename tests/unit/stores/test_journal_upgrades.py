"""A journal of any older release becomes one of today's in one step, or stays what it was; nothing in it is lost."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.errors import ConfigError
from replicator.model import Fingerprint, Part, Upload
from replicator.stores.journal.file import SCHEMA_VERSION
from replicator.stores.journal.journal import Journal
from tests import schemas

pytestmark = pytest.mark.fault("C11")

FAR = Fingerprint(size=5 << 30, mtime_ns=-(2**63) + 1, ctime_ns=2**63 - 1, ino=2**64 - 1)
ODD = b"d/b\xff\n"
FAR_COLUMNS = (FAR.size, FAR.mtime_ns, FAR.ctime_ns, -1)
ROW = (7, ODD, *FAR_COLUMNS, b"etag", b"md5:0", 1)

# What a release of that schema wrote: every table of its own, numbers that are not the first ones, odd names.
FILLED = {
    1: [
        ("INSERT INTO targets (id, identity) VALUES (7, ?)", (b"one",)),
        ("INSERT INTO targets (id, identity) VALUES (3, ?)", (b"gone",)),
        ("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", ROW),
        ("INSERT INTO rows VALUES (7, ?, 10, 20, 0, 4, ?, ?, 0)", (b"a", b"etag-2", b"")),
        ("INSERT INTO rows VALUES (3, ?, 1, 2, 3, 4, ?, ?, 1)", (b"a", b"other", b"")),
        ("INSERT INTO intents VALUES (7, ?, 1, 2, 3, 4, ?, ?, 0)", (b"c", b"etag", b"")),
    ],
    2: [
        ("INSERT INTO uploads VALUES (7, ?, ?, 8388608, ?, ?, ?, ?, 1700000000)", (ODD, b"id\xfe\n", *FAR_COLUMNS)),
        ("INSERT INTO parts VALUES (7, ?, 3, ?, ?)", (ODD, b"etag-3", b"3" * 16)),
        ("INSERT INTO parts VALUES (7, ?, 1, ?, ?)", (ODD, b"etag-1", b"1" * 16)),
        ("INSERT INTO usage VALUES (480000, 11, 22)", ()),
    ],
}

# Opens copies of a journal, each in a process that ends by force before one more statement than the last, until one
# gets to its end.
DIE_AT_EACH_STATEMENT = """
import os, shutil, signal, sys
from replicator.stores.journal import file as journal_file

def connect(path):
    connection, left = connect_for_real(path), iter(range(number, -1, -1))
    connection.set_trace_callback(lambda sql: next(left) or os.kill(os.getpid(), signal.SIGKILL))
    return connection

connect_for_real, journal_file.connect = journal_file.connect, connect
for number in range(1000):
    place = shutil.copytree(sys.argv[1], f"{sys.argv[2]}/{number}")
    child = os.fork()
    if child == 0:
        journal_file.open_database(place)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


def older(state_dir: Path, version: int) -> Path:
    """A journal as the last release of this schema left it."""
    state_dir.mkdir(parents=True, exist_ok=True)
    path = state_dir / "journal.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(schemas.script_of(version))
        for sql, values in (line for number in range(1, version + 1) for line in FILLED[number]):
            connection.execute(sql, values)
    return path


def tables(connection: sqlite3.Connection) -> Iterator[str]:
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
    return (str(name) for (name,) in found)


def content_of(path: Path) -> tuple[int, dict[str, list[tuple]]]:
    """The schema's number, and every row of every table."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return version, {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables(connection)}


def schema_of(path: Path) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


def opened(state_dir: Path) -> str:
    """Open it as the next start does; where an untrusted journal was put."""
    journal = Journal.open(str(state_dir))
    journal.close()
    return journal.set_aside


def test_scripts_that_were_shipped_never_change():
    """Texts are compared at open, so one changed byte would set aside the journal of every device."""
    assert schemas.changed() == []
    assert len(schemas.SHIPPED) == SCHEMA_VERSION


@pytest.mark.parametrize("version", schemas.OLDER)
def test_every_row_of_an_older_journal_survives_as_it_is(tmp_path, version):
    """After the upgrade each older table has the rows it had, and the whole is like a journal that is made today."""
    path = older(tmp_path / "old", version)
    _, before = content_of(path)

    assert (opened(tmp_path / "old"), opened(tmp_path / "new")) == ("", "")

    after_version, after = content_of(path)
    assert after_version == SCHEMA_VERSION
    assert {name: after[name] for name in before} == before
    assert schema_of(path) == schema_of(tmp_path / "new/journal.db")
    assert opened(tmp_path / "old") == ""


@pytest.mark.parametrize("version", schemas.OLDER)
def test_rows_of_an_older_journal_mean_what_they_meant(tmp_path, version):
    """Targets keep their numbers, rows their versions, uploads their parts; and what is new works beside them."""
    older(tmp_path, version)

    journal = Journal.open(str(tmp_path))
    rows = {row.relpath: row for row in journal.rows(7)}
    odd = os.fsdecode(ODD)

    assert (journal.target("gone"), journal.target("one"), journal.target("new")) == (3, 7, 8)
    assert (rows[odd].fingerprint, rows[odd].etag, rows[odd].checksum) == (FAR, "etag", "md5:0")
    assert [(name, rows[name].is_verified) for name in rows] == [("a", False), (odd, True)]
    assert journal.totals(7) == (2, FAR.size + 10)
    assert [row.relpath for row in journal.intents(7)] == ["c"]
    if version >= 2:
        parts = (Part(1, "etag-1", b"1" * 16), Part(3, "etag-3", b"3" * 16))
        assert journal.upload(7, odd) == Upload(odd, os.fsdecode(b"id\xfe\n"), FAR, 8 << 20, parts)
        assert journal.usage_since(480000) == (11, 22)
    journal.begin_upload(7, Upload("a", "id", FAR, 8 << 20))
    journal.add_usage(480001, sent=1, received=2)
    journal.expect_late(7, "a", "md5:1", now_s=1)
    assert [late.relpath for late in journal.late_writes(7)] == ["a"]
    journal.close()


@pytest.mark.parametrize("version", schemas.OLDER)
def test_crash_in_the_upgrade_leaves_the_old_journal_or_the_new(tmp_path, version):
    """Killed before any one statement of the start, it is one of the two with every row; the next start upgrades it."""
    path = older(tmp_path / "old", version)
    _, before = content_of(path)
    (tmp_path / "killed").mkdir()
    command = [sys.executable, "-c", DIE_AT_EACH_STATEMENT, path.parent, tmp_path / "killed"]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}, check=True, timeout=60)

    places = sorted((tmp_path / "killed").iterdir(), key=lambda place: int(place.name))
    found = [content_of(place / "journal.db") for place in places]

    versions = [number for number, _ in found]
    assert versions == sorted(versions)
    assert set(versions) == {version, SCHEMA_VERSION}
    assert versions.count(version) > schemas.script_of(SCHEMA_VERSION).count("CREATE TABLE") - len(before)
    assert [{name: rows[name] for name in before} for _, rows in found] == [before] * len(found)
    assert [opened(place) for place in places] == [""] * len(places)
    assert {content_of(place / "journal.db")[0] for place in places} == {SCHEMA_VERSION}


@pytest.mark.parametrize("version", schemas.OLDER)
def test_no_room_for_the_upgrade_sets_nothing_aside(small_disk, version):
    """A journal that cannot be upgraded for want of room is whole, and upgraded once there is some."""
    path = older(small_disk / "state", version)
    _, before = content_of(path)
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_bsize - (40 << 10)))
    with pytest.raises(ConfigError, match="state_dir"):
        Journal.open(str(small_disk / "state"))
    (small_disk / "filler").unlink()

    assert content_of(path) == (version, before)
    assert opened(small_disk / "state") == ""
    assert content_of(path)[0] == SCHEMA_VERSION


def test_journal_that_is_not_what_its_number_says_is_not_upgraded(tmp_path):
    """One that lacks a table of its schema is set aside as it was found, and a fresh one begins."""
    path = older(tmp_path, 1)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE intents")
    before = content_of(path)

    aside = opened(tmp_path)

    assert content_of(Path(aside)) == before
    assert content_of(path) == (SCHEMA_VERSION, {name: [] for name in content_of(path)[1]})
