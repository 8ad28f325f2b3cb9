"""When a request is expected late, and what it endangers."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from replicator.errors import AccessDenied, IntegrityFailed, RemoteChanged, Throttled, Unavailable
from replicator.model import LATE_LOOK_S, LATE_OVER_S, Fingerprint, LateWrite, Row
from replicator.transfer.late import endangers, looked_at, unless_answered


@dataclass
class Lane:
    """Only what is asked for here; it is its own journal."""

    number: int = 1
    late: dict[str, LateWrite] = field(default_factory=dict)

    @property
    def journal(self) -> Any:
        return self

    def late_write(self, _number: int, relpath: str) -> LateWrite | None:
        return self.late.get(relpath)

    def expect_late(self, _number: int, late: LateWrite) -> None:
        self.late[late.relpath] = late

    def drop_late(self, _number: int, relpath: str) -> None:
        del self.late[relpath]


@pytest.fixture
def lane() -> Any:
    return Lane()


def row(checksum: str) -> Row:
    return Row("f", Fingerprint(1, 2, 3, 4), "etag", checksum)


def fail(lane: Any, checksum: str, error: Exception) -> None:
    with pytest.raises(type(error)), unless_answered(lane, "f", checksum):
        raise error


@pytest.mark.parametrize("error", [Throttled, AccessDenied, IntegrityFailed, RemoteChanged])
def test_refusal_is_an_answer(lane, error):
    """What the store has refused never comes in."""
    fail(lane, "md5:1", error("no"))

    assert not lane.late


def test_only_another_content_is_a_danger(lane):
    """The same bytes late change nothing; of several contents any may be another."""
    fail(lane, "md5:1", Unavailable("cut"))
    assert endangers(lane, row("md5:2"))
    assert not endangers(lane, row("md5:1"))

    fail(lane, "md5:1", Unavailable("cut"))
    assert not endangers(lane, row("md5:1"))

    fail(lane, "md5:2", Unavailable("cut"))
    assert endangers(lane, row("md5:1"))
    assert endangers(lane, row("md5:2"))
    assert endangers(lane, row(""))


def test_looks_end_with_the_second(lane):
    """A look before its time counts for nothing; the second one in time is the last."""
    late = lane.late["f"] = LateWrite("f", "md5:1", since_s=1000)
    looked_at(lane, "f", 1000 + LATE_LOOK_S - 1)
    assert lane.late["f"] == late

    looked_at(lane, "f", 1000 + LATE_LOOK_S)
    assert lane.late["f"].is_looked_at
    looked_at(lane, "f", 1000 + LATE_OVER_S - 1)
    assert lane.late["f"].is_looked_at

    looked_at(lane, "f", 1000 + LATE_OVER_S)
    assert not lane.late
    looked_at(lane, "f", 1000 + LATE_OVER_S)


def test_another_lost_answer_begins_the_wait_anew(lane, monkeypatch):
    """The wait is that of the last request, whatever was looked at before."""
    monkeypatch.setattr("time.time", lambda: 2000.4)
    lane.late["f"] = LateWrite("f", "md5:1", since_s=1000, is_looked_at=True)
    fail(lane, "md5:1", Unavailable("cut"))

    assert lane.late["f"] == LateWrite("f", "md5:1", since_s=2001)
