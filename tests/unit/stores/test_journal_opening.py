"""Opening the journal: one owner, private files, and a fresh start when the old one cannot be trusted."""

import asyncio
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
from replicator.stores.journal import Journal

SETTLE_FOR_EVER = """
import asyncio, sys
from replicator.model import Fingerprint, Row
from replicator.stores.journal import Journal

async def work(journal, target, lane):
    number = 0
    while True:
        await journal.settle(target, Row(f"{lane}/{number}", Fingerprint(1, 2, 3, 4), "etag", "", True))
        print(f"{lane}/{number}", flush=True)
        number += 1

async def main():
    journal = Journal.open(sys.argv[1])
    await asyncio.gather(*(work(journal, journal.target("one"), lane) for lane in range(8)))

asyncio.run(main())
"""


def filled(state_dir: Path, make_row, count: int = 300) -> None:
    """A journal with rows in it, closed."""

    async def fill() -> None:
        journal = Journal.open(str(state_dir))
        target = journal.target("one")
        await asyncio.gather(*(journal.settle(target, make_row(f"d/{n:04}")) for n in range(count)))
        await journal.close()

    asyncio.run(fill())


def opened(state_dir: Path) -> tuple[str, int]:
    """Where an untrusted journal went, and how many rows there are now. Proves that the journal is usable."""

    async def look() -> tuple[str, int]:
        journal = Journal.open(str(state_dir))
        count = len(list(journal.rows(journal.target("one"))))
        await journal.close()
        return journal.set_aside, count

    return asyncio.run(look())


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
    asyncio.run(journal.close())


def test_rows_survive_a_restart(tmp_path, make_row):
    """What was settled is there when the journal is opened again, and nothing is set aside."""
    filled(tmp_path / "state", make_row)

    assert opened(tmp_path / "state") == ("", 300)


def test_second_owner_is_refused_by_name(tmp_path):
    """While one process has the state directory another is told which, and what to do; the first goes on."""
    journal = Journal.open(str(tmp_path))
    with pytest.raises(JournalError, match=f"{tmp_path} is in use by process {os.getpid()}.*REPLICATOR_STATE_DIR"):
        Journal.open(str(tmp_path))
    journal.target("one")
    asyncio.run(journal.close())

    assert opened(tmp_path)[0] == ""


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
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def _other_columns(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE rows ADD COLUMN another INTEGER")
    connection.close()


def _flip_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for offset in range(4096, len(content), 4096):
        content[offset : offset + 64] = b"\xa5" * 64
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.write_bytes(b"this is no database at all" * 100),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, 50),
        lambda path: path.write_bytes(b"\xff" * 40 + path.read_bytes()[40:]),
        _flip_pages,
        _newer,
        _foreign,
        _other_columns,
    ],
    ids=["zeros", "text", "half", "50 bytes", "header", "pages", "newer", "foreign", "columns"],
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


def test_emptied_journal_is_a_fresh_one(tmp_path, make_row):
    """A database file of no bytes has nothing worth keeping."""
    filled(tmp_path, make_row)
    os.truncate(tmp_path / "journal.db", 0)

    assert opened(tmp_path) == ("", 0)


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


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 400])
def test_confirmed_rows_survive_kill_minus_nine(tmp_path, after):
    """Every row whose settle had returned is there after SIGKILL in the middle of commits; the lock is free."""
    with subprocess.Popen(
        [sys.executable, "-c", SETTLE_FOR_EVER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as writer:
        assert writer.stdout is not None
        confirmed = [writer.stdout.readline().strip() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        confirmed += [line.strip() for line in writer.stdout if line.endswith("\n")]

    async def check() -> None:
        journal = Journal.open(str(tmp_path))
        target = journal.target("one")
        rows = {row.relpath for row in journal.rows(target)}

        assert journal.set_aside == ""
        assert set(confirmed) <= rows
        assert journal.totals(target) == (len(rows), len(rows))
        await journal.close()

    asyncio.run(check())


def test_missing_log_costs_only_the_last_rows(tmp_path):
    """A write-ahead log that got lost is no damage: the journal opens with what the database itself has."""
    journal = Journal.open(str(tmp_path / "state"))
    journal.target("one")
    copied = (tmp_path / "state" / "journal.db").read_bytes()
    asyncio.run(journal.close())
    (tmp_path / "state" / "journal.db").write_bytes(copied)

    assert opened(tmp_path / "state") == ("", 0)


def test_busy_database_is_not_set_aside(tmp_path, make_row, monkeypatch):
    """A database that another program holds is told as such: it is no damage, and nothing is renamed."""
    filled(tmp_path, make_row)
    monkeypatch.setattr("replicator.stores.journal_file.BUSY_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")

    with pytest.raises(ConfigError, match="locked"):
        Journal.open(str(tmp_path))
    holder.close()
    assert opened(tmp_path) == ("", 300)
