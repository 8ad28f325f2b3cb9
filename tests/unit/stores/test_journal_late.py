"""Requests that were never answered, as the journal keeps them."""

import os
from contextlib import closing
from dataclasses import replace

import pytest

from replicator.errors import JournalFull
from replicator.model import LATE_LOOK_S, LATE_OVER_S, LateWrite
from replicator.stores.journal import late as late_module
from replicator.stores.journal.journal import Journal

LATE = LateWrite(os.fsdecode(b"d/\xff'"), "md5:0", since_s=1_700_000_000, is_looked_at=True)


def expect(journal: Journal, target: int, relpath: str = LATE.relpath, checksum: str = LATE.checksum) -> None:
    """Not answered, and looked at once since."""
    journal.expect_late(target, relpath, checksum, now_s=LATE.since_s)
    journal.looked_at(target, relpath, began_s=LATE.since_s + LATE_LOOK_S)


def test_late_write_outlives_the_process(tmp_path):
    """Every field survives, odd names included; another target's are apart, and what is dropped is gone for good."""
    state = str(tmp_path / "state")
    with closing(Journal.open(state)) as journal:
        one, two = journal.target("one"), journal.target("two")
        expect(journal, one)
        expect(journal, two, checksum="md5:1")
        expect(journal, two, relpath="gone")
        journal.drop_late(two, "gone")

    with closing(Journal.open(state)) as journal:
        assert journal.late_write(one, LATE.relpath) == LATE
        assert journal.late_writes(one) == [LATE]
        assert journal.late_writes(two) == [replace(LATE, checksum="md5:1")]
        assert journal.late_write(one, "gone") is None


def test_target_that_is_dropped_takes_its_late_writes_along(tmp_path):
    """Nothing of it comes back with the next start."""
    with closing(Journal.open(str(tmp_path / "state"))) as journal:
        number = journal.target("one")
        expect(journal, number)
        journal.drop_target(number)
        assert journal.late_writes(number) == []

    with closing(Journal.open(str(tmp_path / "state"))) as journal:
        assert journal.late_writes(number) == []


def test_full_device_costs_only_the_line(journal, monkeypatch):
    """Where nothing can be written, memory still knows: an upload's failure stays what it was."""

    def full(*_: object) -> None:
        raise JournalFull("no room")

    number = journal.target("one")
    monkeypatch.setattr(journal._committer, "commit", full)
    expect(journal, number)
    assert journal.late_write(number, LATE.relpath) == LATE

    journal.drop_late(number, LATE.relpath)
    assert journal.late_write(number, LATE.relpath) is None


def test_late_writes_are_bounded(tmp_path, monkeypatch):
    """Beyond the bound the one goes that has waited longest; what is expected anew waits from then."""
    monkeypatch.setattr(late_module, "_MOST", 2)
    with closing(Journal.open(str(tmp_path / "state"))) as journal:
        number = journal.target("one")
        for name in ("a", "b", "a", "c"):
            expect(journal, number, relpath=name)
        assert [late.relpath for late in journal.late_writes(number)] == ["a", "c"]

    with closing(Journal.open(str(tmp_path / "state"))) as journal:
        assert {late.relpath for late in journal.late_writes(number)} == {"a", "c"}


@pytest.mark.parametrize(
    ("is_looked_at", "after_s", "is_due"),
    [
        (False, 0, False),
        (False, LATE_LOOK_S - 1, False),
        (False, LATE_LOOK_S, True),
        (True, LATE_LOOK_S, False),
        (True, LATE_OVER_S - 1, False),
        (True, LATE_OVER_S, True),
        (False, -30 * 60, False),  # signed by a clock that was ahead by as much as a store can have taken
        (True, -30 * 60, False),
        (False, -365 * 86400, True),  # by one that no store took
    ],
)
def test_when_the_object_is_looked_at(is_looked_at, after_s, is_due):
    """After a minute, and after half an hour; a clock that was set back keeps nobody waiting for years."""
    late = replace(LATE, is_looked_at=is_looked_at)

    assert late.is_due(late.since_s + after_s) is is_due


def test_looks_end_with_the_second(journal):
    """A look before its time counts for nothing; the second one in time is the last."""
    number = journal.target("one")
    journal.expect_late(number, "f", "md5:1", now_s=999.5)
    for after_s, is_looked_at in ((LATE_LOOK_S - 1, False), (LATE_LOOK_S, True), (LATE_OVER_S - 1, True)):
        journal.looked_at(number, "f", began_s=1000 + after_s)
        assert journal.late_write(number, "f") == LateWrite("f", "md5:1", 1000, is_looked_at)

    journal.looked_at(number, "f", began_s=1000 + LATE_OVER_S)
    assert journal.late_write(number, "f") is None
    journal.looked_at(number, "f", began_s=1000 + LATE_OVER_S)


def test_another_lost_answer_begins_the_wait_anew(journal):
    """The wait is that of the last request, whatever was looked at; of several contents none is known."""
    number = journal.target("one")
    expect(journal, number, "f", "md5:1")
    journal.expect_late(number, "f", "md5:1", now_s=LATE.since_s + 100)
    assert journal.late_write(number, "f") == LateWrite("f", "md5:1", LATE.since_s + 100)

    journal.expect_late(number, "f", "md5:2", now_s=LATE.since_s + 200)
    assert journal.late_write(number, "f") == LateWrite("f", "", LATE.since_s + 200)


def test_request_that_outlives_its_process_is_expected_late(tmp_path):
    """What ended is off the record, whatever its end; what did not is found by the next process, and only once."""
    state = str(tmp_path / "state")
    name = os.fsdecode(b"d/" + b"\xff" * 900)
    dead = Journal.open(state)
    number = dead.target("one")
    with dead.sending.on_record(number, "ended", "md5:1"):
        pass
    with pytest.raises(ValueError, match="cut"), dead.sending.on_record(number, "failed", "md5:1"):
        raise ValueError("cut")
    under_way = [dead.sending.on_record(number, one, text) for one, text in ((name, "md5:2"), ("g", ""))]
    for one in under_way:
        one.__enter__()
    with dead.sending.on_record(number, "ended too", "md5:1"):
        pass
    dead.close()
    for one in under_way:
        one.__exit__(None, None, None)  # threads that outlive it do no harm

    with closing(Journal.open(state)) as journal:
        assert {late.relpath: late.checksum for late in journal.late_writes(number)} == {name: "md5:2", "g": ""}
        for late in journal.late_writes(number):
            journal.drop_late(number, late.relpath)

    with closing(Journal.open(state)) as journal:
        assert journal.late_writes(number) == []


@pytest.mark.parametrize("rubbish", [b"\0" * 5000, b"\xff" * 5000, os.urandom(5000), b"\1" + bytes(7) + b"\4\0\1\0"])
def test_record_that_a_power_cut_tore_is_passed_over(tmp_path, rubbish):
    """It is memory, not truth: whatever stands there, the journal opens."""
    state = tmp_path / "state"
    Journal.open(str(state)).close()
    assert not (state / "sending").exists()
    (state / "sending").write_bytes(rubbish)

    with closing(Journal.open(str(state))) as journal:
        assert all(len(late.relpath) < 2048 for late in journal.late_writes(1))
    assert not (state / "sending").exists()
