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


def test_late_write_outlives_the_process(tmp_path):
    """Every field survives, odd names included; another target's are apart, and what is dropped is gone for good."""
    state = str(tmp_path / "state")
    with closing(Journal.open(state)) as journal:
        one, two = journal.target("one"), journal.target("two")
        journal.expect_late(one, LATE)
        journal.expect_late(two, replace(LATE, checksum=""))
        journal.expect_late(two, replace(LATE, relpath="gone"))
        journal.drop_late(two, "gone")

    with closing(Journal.open(state)) as journal:
        assert journal.late_write(one, LATE.relpath) == LATE
        assert journal.late_writes(one) == [LATE]
        assert journal.late_writes(two) == [replace(LATE, checksum="")]
        assert journal.late_write(one, "gone") is None


def test_target_that_is_dropped_takes_its_late_writes_along(tmp_path):
    """Nothing of it comes back with the next start."""
    with closing(Journal.open(str(tmp_path / "state"))) as journal:
        number = journal.target("one")
        journal.expect_late(number, LATE)
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
    journal.expect_late(number, LATE)
    assert journal.late_write(number, LATE.relpath) == LATE

    journal.drop_late(number, LATE.relpath)
    assert journal.late_write(number, LATE.relpath) is None


def test_late_writes_are_bounded(tmp_path, monkeypatch):
    """Beyond the bound the one goes that has waited longest; what is expected anew waits from then."""
    monkeypatch.setattr(late_module, "_MOST", 2)
    with closing(Journal.open(str(tmp_path / "state"))) as journal:
        number = journal.target("one")
        for name in ("a", "b", "a", "c"):
            journal.expect_late(number, replace(LATE, relpath=name))
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
