"""When a request is expected late, and what it endangers."""

from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from replicator.errors import AccessDenied, IntegrityFailed, RemoteChanged, Throttled, Unavailable
from replicator.model import Fingerprint, Row
from replicator.stores.journal.journal import Journal
from replicator.transfer.late import endangers, unless_answered


@pytest.fixture
def lane(tmp_path):
    """Its number and its journal, which is all that is asked for here."""
    with closing(Journal.open(str(tmp_path / "state"))) as journal:
        yield SimpleNamespace(journal=journal, number=journal.target("one"))


def row(checksum: str) -> Row:
    return Row("f", Fingerprint(1, 2, 3, 4), "etag", checksum)


def fail(lane: Any, checksum: str, error: Exception) -> None:
    with pytest.raises(type(error)), unless_answered(lane, "f", checksum):
        raise error


@pytest.mark.parametrize("error", [Throttled, AccessDenied, IntegrityFailed, RemoteChanged])
def test_refusal_is_an_answer(lane, error):
    """What the store has refused never comes in."""
    fail(lane, "md5:1", error("no"))

    assert lane.journal.late_writes(lane.number) == []


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
