"""Opening the journal: one owner, private files, and a fresh start when the old one cannot be trusted."""

import contextlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from replicator.errors import ConfigError, JournalError
from replicator.model import Fingerprint, Row
from replicator.stores.journal.file import SCHEMA_VERSION, Distrust
from replicator.stores.journal.journal import Journal
from tests.schemas import script_of

SETTLE_FOR_EVER = """
import sys, threading
from replicator.model import Fingerprint, Part, Row, Upload
from replicator.stores.journal.journal import Journal

version = Fingerprint(1, 2, 3, 4)
journal = Journal.open(sys.argv[1])
target = journal.target("one")

def settle(lane):
    number = 0
    while True:
        journal.settle(target, Row(f"{lane}/{number}", version, "etag", "", True))
        sys.stdout.write(f"{lane}/{number}\\n")
        number += 1

def add_parts():
    number = 0
    journal.begin_upload(target, Upload("large", "id", version, 8 << 20))
    while True:
        number += 1
        journal.add_part(target, "large", Part(number, "etag", number.to_bytes(16, "big")))
        sys.stdout.write(f"part {number}\\n")

for lane in range(8):
    threading.Thread(target=settle, args=(lane,)).start()
threading.Thread(target=add_parts).start()
"""


def run(code: str, *args: object) -> subprocess.Popen:
    """A process of its own that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )


def filled(state_dir: Path, make_row, count: int = 300) -> None:
    """A journal with rows in it, closed."""
    journal = Journal.open(str(state_dir))
    target = journal.target("one")
    for number in range(count):
        journal.settle(target, make_row(f"d/{number:04}"))
    journal.close()


def opened(state_dir: Path) -> tuple[str, int]:
    """Where an untrusted journal went, and how many rows there are now. Proves that the journal is usable."""
    journal = Journal.open(str(state_dir))
    count = len(list(journal.rows(journal.target("one"))))
    journal.close()
    return journal.set_aside, count


def test_state_directory_and_its_files_are_private(tmp_path):
    """The directory is made with mode 0700 and every file in it with 0600, whatever the umask."""
    before = os.umask(0)
    try:
        journal = Journal.open(str(tmp_path / "deep" / "state"))
    finally:
        os.umask(before)
    journal.target("one")

    state = tmp_path / "deep" / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()} == {0o600}
    assert {path.name for path in state.iterdir()} >= {"lock", "journal.db", "journal.db-wal"}
    journal.close()


def test_rows_survive_a_restart(tmp_path, make_row):
    """What was settled is there when the journal is opened again, and nothing is set aside."""
    filled(tmp_path / "state", make_row)

    assert opened(tmp_path / "state") == ("", 300)


@pytest.mark.fault("C7")
def test_second_owner_is_refused_by_name(tmp_path):
    """While one process has the state directory another is told which, and what to do; the first goes on."""
    journal = Journal.open(str(tmp_path))
    with pytest.raises(JournalError, match=f"{tmp_path} is in use by process {os.getpid()}.*REPLICATOR_STATE_DIR"):
        Journal.open(str(tmp_path))
    journal.target("one")
    journal.close()

    assert opened(tmp_path)[0] == ""


@pytest.mark.fault("C7")
def test_lock_of_a_dead_process_does_not_matter(tmp_path):
    """A lock file that a killed process left behind, with its number in it, stops nobody."""
    (tmp_path / "lock").write_text("1\n")

    assert opened(tmp_path) == ("", 0)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_state_directory_that_cannot_be_made_is_a_configuration_error(tmp_path, place):
    """The error names the directory, the cause, and the setting to change."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ConfigError, match="REPLICATOR_STATE_DIR") as caught:
        Journal.open(str(tmp_path / place))
    assert caught.value.where == f"state_dir {tmp_path / place}"


@pytest.mark.fault("C6")
def test_state_directory_without_permission_is_a_configuration_error(open_root, run_as_nobody):
    """A directory that this user may not write names the user and the fix."""
    if os.geteuid() != 0:
        pytest.skip("directories of another owner need root")
    (open_root / "state").mkdir(mode=0o755)
    code = """
for place in (args[0], args[0] + "/new"):
    try: Journal.open(place)
    except ConfigError as exc:
        print(exc.where == "state_dir " + place, "Permission denied" in str(exc), "65534" in exc.fix)
"""

    assert run_as_nobody(code, open_root / "state") == "True True True\nTrue True True"


@pytest.mark.fault("C6")
def test_full_disk_at_the_start_is_a_configuration_error(small_disk):
    """No room for a fresh journal names the directory; an empty file it leaves behind is no obstacle later."""
    (small_disk / "filler").write_bytes(b"x" * ((1 << 20) - 8192))
    with pytest.raises(ConfigError, match="state_dir"):
        Journal.open(str(small_disk / "state"))
    (small_disk / "filler").unlink()

    assert opened(small_disk / "state") == ("", 0)


def _foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE rows (something)")
    connection.close()


def _newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


def _said_to_be_older(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def _older_and_damaged(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{script_of(1)}; DROP TABLE intents;")


def _other_columns(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE rows ADD COLUMN another INTEGER")
    connection.close()


def _index_of_other_targets(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.rindex(b"one")] ^= 1  # the name stands in the table and in its index, whichever comes last
    path.write_bytes(content)


def _flip_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for offset in range(4096, len(content), 4096):
        content[offset : offset + 64] = b"\xa5" * 64
    path.write_bytes(content)


@pytest.mark.fault("C6", "C11")
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.write_bytes(b"this is no database at all" * 100),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, 50),
        lambda path: path.write_bytes(b"\xff" * 40 + path.read_bytes()[40:]),
        _flip_pages,
        _index_of_other_targets,
        _newer,
        _said_to_be_older,
        _older_and_damaged,
        _foreign,
        _other_columns,
    ],
    ids=[
        "zeros",
        "text",
        "half",
        "50 bytes",
        "header",
        "pages",
        "index",
        "newer",
        "older",
        "damaged older",
        "foreign",
        "columns",
    ],
)
def test_untrusted_journal_is_set_aside_and_a_fresh_one_begins(tmp_path, make_row, damage):
    """A damaged, foreign or newer journal is kept under another name; the new one is empty and works."""
    filled(tmp_path, make_row)
    damage(tmp_path / "journal.db")
    damaged = (tmp_path / "journal.db").read_bytes()

    set_aside, count = opened(tmp_path)
    assert set_aside.startswith(str(tmp_path / "journal.db.set-aside-"))
    assert count == 0
    if len(damaged) > 100:
        assert Path(set_aside).read_bytes()[4096:] == damaged[4096:]
    assert opened(tmp_path) == ("", 0)


@pytest.mark.fault("C11")
def test_reason_tells_a_later_release_from_damage(tmp_path, make_row):
    """Who goes back to an older release is not told that the journal is damaged, and who has damage is."""
    reasons = []
    for damage in (_newer, _said_to_be_older, lambda path: path.write_bytes(b"no database" * 100)):
        filled(tmp_path, make_row, 1)
        damage(tmp_path / "journal.db")
        journal = Journal.open(str(tmp_path))
        reasons.append(journal.distrust)
        journal.close()
    journal = Journal.open(str(tmp_path))

    assert reasons == [Distrust.LATER, Distrust.DAMAGED, Distrust.DAMAGED]
    assert journal.distrust is None
    journal.close()


@pytest.mark.fault("C6")
def test_emptied_journal_is_a_fresh_one(tmp_path, make_row):
    """A database file of no bytes has nothing worth keeping."""
    filled(tmp_path, make_row)
    os.truncate(tmp_path / "journal.db", 0)

    assert opened(tmp_path) == ("", 0)


@pytest.mark.fault("C6")
@pytest.mark.parametrize("seed", range(12))
def test_random_damage_never_breaks_the_start(tmp_path, make_row, seed):
    """Whatever bytes are overwritten, the journal opens: whole as far as it can tell, or fresh."""
    filled(tmp_path, make_row)
    chance = random.Random(seed)
    content = bytearray((tmp_path / "journal.db").read_bytes())
    for _ in range(chance.randint(1, 200)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    (tmp_path / "journal.db").write_bytes(content)

    set_aside, count = opened(tmp_path)
    assert count == 0 if set_aside else 0 < count <= 300


@pytest.mark.fault("C1")
@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 400])
def test_what_was_confirmed_survives_kill_minus_nine(tmp_path, after):
    """Rows and parts whose write had returned are there after SIGKILL in the middle of commits; the lock is free."""
    with run(SETTLE_FOR_EVER, tmp_path) as writer:
        confirmed = [writer.stdout.readline().strip() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        confirmed += [line.strip() for line in writer.stdout if line.endswith("\n")]

    journal = Journal.open(str(tmp_path))
    target = journal.target("one")
    rows = {row.relpath for row in journal.rows(target)}
    upload = journal.upload(target, "large")
    parts = upload.parts if upload else ()

    assert journal.set_aside == ""
    assert set(confirmed) <= rows | {f"part {part.number}" for part in parts}
    assert journal.totals(target) == (len(rows), len(rows))
    assert all(part.md5 == part.number.to_bytes(16, "big") for part in parts)
    journal.close()


@pytest.mark.fault("C6")
def test_missing_log_costs_only_the_last_rows(tmp_path):
    """A write-ahead log that got lost is no damage: the journal opens with what the database itself has."""
    journal = Journal.open(str(tmp_path / "state"))
    journal.target("one")
    copied = (tmp_path / "state" / "journal.db").read_bytes()
    journal.close()
    (tmp_path / "state" / "journal.db").write_bytes(copied)

    assert opened(tmp_path / "state") == ("", 0)


@pytest.mark.fault("C6")
def test_busy_database_is_not_set_aside(tmp_path, make_row, monkeypatch):
    """A database that another program holds is told as such: it is no damage, and nothing is renamed."""
    filled(tmp_path, make_row)
    monkeypatch.setattr("replicator.stores.journal.file.BUSY_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")

    with pytest.raises(ConfigError, match="locked"):
        Journal.open(str(tmp_path))
    holder.close()
    assert opened(tmp_path) == ("", 300)


@pytest.mark.fault("C6")
@pytest.mark.parametrize("read", [Journal.rows, Journal.etags])
def test_names_out_of_order_end_the_process_once(tmp_path, read):
    """A damaged name that the checks at open do not see is seen when it is read; the next start begins afresh."""
    journal = Journal.open(str(tmp_path))
    number = journal.target("one")
    for digit in range(10):
        journal.settle(number, Row(f"name-{digit}", Fingerprint(1, 2, 3, 4), "etag", "", is_verified=True))
    journal.close()
    database = tmp_path / "journal.db"
    database.write_bytes(database.read_bytes().replace(b"name-4", b"name-z"))

    journal = Journal.open(str(tmp_path))
    assert not journal.set_aside
    with pytest.raises(JournalError, match="out of order"):
        list(read(journal, number))
    journal.close()

    journal = Journal.open(str(tmp_path))
    assert journal.set_aside
    assert list(read(journal, journal.target("one"))) == []
    journal.close()
