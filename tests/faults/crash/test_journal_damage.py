"""A journal that lies, or is lost, costs comparing: whatever is in it, nothing is deleted and both sides end equal."""

import contextlib
import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.faults.crash.tracer import Plan

pytestmark = [pytest.mark.slow, pytest.mark.fault("C6")]

SENT = {f"d{number % 3}/sent{number}": f"sent {number}".encode() * (number + 1) for number in range(12)}
FETCHED = {f"d{number % 3}/fetched{number}": f"fetched {number}".encode() * (number + 1) for number in range(12)}


def flip(content: bytearray, chance: random.Random) -> None:
    """Some bits, anywhere."""
    for _ in range(chance.choice((1, 8, 64))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def flip_rows(content: bytearray, chance: random.Random) -> None:
    """A few bits in what rows tell, where no check of the database would see them."""
    for _ in range(chance.randint(1, 4)):
        place = content.find(chance.choice((b"sent1", b"fetched1", b"md5:", b"workload")), 8192)
        if place > 0:
            content[place + chance.randrange(20)] ^= 1 << chance.randrange(3)


def cut(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def blank(content: bytearray, chance: random.Random) -> None:
    """One page, or a piece that crosses pages."""
    begin = chance.randrange(len(content))
    content[begin : begin + 4096] = bytes(len(content[begin : begin + 4096]))


def swap(content: bytearray, chance: random.Random) -> None:
    """Two pages in each other's place."""
    one, two = (4096 * chance.randrange(len(content) // 4096) for _ in range(2))
    content[one : one + 4096], content[two : two + 4096] = content[two : two + 4096], content[one : one + 4096]


DAMAGES = (flip, flip_rows, cut, blank, swap)


@pytest.fixture
def replicated(stage):
    """A stage in step, with a copy of its state."""
    for name, body in SENT.items():
        stage.write(f"out/{name}", body)
    for name, body in FETCHED.items():
        stage.put(f"incoming/{name}", body)
    assert stage.run().code == 0
    shutil.copytree(stage.home / "state", stage.home / "whole")
    return stage


def check(stage) -> None:
    assert stage.objects() == SENT
    assert stage.files("out") == SENT
    assert stage.files() == FETCHED
    stage.assert_rows_are_true()


@pytest.mark.timeout(900)
def test_seeded_damage_neither_deletes_nor_sends_again(replicated, is_long, record_property):
    """Damage that is seen sets the journal aside and nothing moves again; what is not seen may move equal bytes."""
    stage = replicated
    damaged = stage.home / "state/journal.db"
    whole = damaged.read_bytes()
    cases = 200 if is_long else 10
    aside = 0
    for seed in range(cases):
        chance = random.Random(seed)
        shutil.rmtree(stage.home / "state")
        shutil.copytree(stage.home / "whole", stage.home / "state")
        content = bytearray(whole)
        DAMAGES[seed % len(DAMAGES)](content, chance)
        damaged.write_bytes(content)
        before, inodes = stage.versions(), stage.inodes()

        ended = stage.run()
        if "out of order" in ended.log:  # seen when it is read: this process ends, and the next one sets it aside
            assert ended.code == 1
            ended = stage.run()

        assert ended.code == 0, f"seed {seed}: {ended.log}"
        check(stage)
        if "journal is set aside" in ended.log:
            aside += 1
            assert stage.versions() == before, f"seed {seed}: sent again"
            assert stage.inodes() == inodes, f"seed {seed}: fetched again"
            assert list((stage.home / "state").glob("journal.db.set-aside-*"))
        # The inodes of what was fetched again are no longer those of the rows that are put back.
        if stage.inodes() != inodes:
            shutil.rmtree(stage.home / "whole")
            shutil.copytree(stage.home / "state", stage.home / "whole")
            whole = damaged.read_bytes()
    record_property("cases", cases)
    record_property("set_aside", aside)

    assert 0 < aside < cases


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def garbled(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("name", "damage"),
    [("journal.db-wal", removed), ("journal.db-wal", garbled), ("journal.db", emptied), ("journal.db", garbled)],
)
def test_crash_and_damage_together_end_in_step(stage, name, damage):
    """The log or the database of a killed process is lost: contents are compared, and that is all."""
    for file, body in SENT.items():
        stage.write(f"out/{file}", body)
    for file, body in FETCHED.items():
        stage.put(f"incoming/{file}", body)
    # The first write is of a new journal, the second one folds the log into it.
    killed = stage.run(Plan(failing="pwrite64", where="state/journal.db", after=1))
    assert killed.was_killed
    assert stage.rows("egress").keys() == SENT.keys()
    assert stage.rows("ingress").keys() == FETCHED.keys()
    damage(stage.home / "state" / name)

    ended = stage.run()

    assert ended.code == 0, ended.log
    check(stage)


@pytest.mark.fault("C11")
def test_journal_of_a_later_release_is_left_for_it(replicated):
    """After a downgrade the newer journal is set aside whole and named; contents are compared, and nothing moves."""
    path = replicated.home / "state/journal.db"
    with contextlib.closing(sqlite3.connect(path)) as journal:
        journal.execute("PRAGMA user_version = 99")
    newer, versions, inodes = path.read_bytes(), replicated.versions(), replicated.inodes()

    ended = replicated.run()

    (aside,) = (replicated.home / "state").glob("journal.db.set-aside-*Z")
    assert ended.code == 0, ended.log
    assert str(aside) in ended.log
    assert "later-release" in ended.log
    assert aside.read_bytes() == newer
    assert (replicated.versions(), replicated.inodes()) == (versions, inodes)
    check(replicated)
