"""A device whose replicator was upgraded: what an older release recorded as sent and fetched stays sent and fetched."""

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import schemas

pytestmark = [pytest.mark.slow, pytest.mark.fault("C11")]

SENT = {f"d{number % 2}/sent{number}": f"sent {number}".encode() for number in range(6)}
FETCHED = {f"d{number % 2}/fetched{number}": f"fetched {number}".encode() for number in range(6)}


@pytest.fixture
def counted(stage, proxy):
    """A stage in step whose requests are all seen by the proxy."""
    stage.environment["OBC_BUCKET_PORT"] = str(urlsplit(proxy.endpoint).port)
    for name, body in SENT.items():
        stage.write(f"out/{name}", body)
    for name, body in FETCHED.items():
        stage.put(f"incoming/{name}", body)
    assert stage.run().code == 0
    assert len(proxy.seen("put", "get")) == len(SENT) + len(FETCHED)
    return stage


def made_older(path: Path, version: int) -> None:
    """Put the same account of both sides in its place, written by a release of an older schema."""
    today = path.rename(path.with_name("today.db"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as journal:
        journal.executescript(schemas.script_of(version))
        tables = [name for (name,) in journal.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        journal.execute("ATTACH ? AS today", (str(today),))
        journal.execute("INSERT INTO targets (id, identity) SELECT id, identity FROM today.targets")
        for name in set(tables) - {"targets"}:
            journal.execute(f"INSERT INTO {name} SELECT * FROM today.{name}")
    today.unlink()


@pytest.mark.parametrize("version", schemas.OLDER)
def test_upgraded_device_sends_and_fetches_nothing_again(counted, proxy, version):
    """With the journal of an older release no object is asked for and none is sent; what is new is sent as ever."""
    made_older(counted.home / "state/journal.db", version)
    before, versions, inodes = len(proxy.seen()), counted.versions(), counted.inodes()

    ended = counted.run()

    assert ended.code == 0, ended.log
    assert {call.operation for call in proxy.seen()[before:]} == {"list"}
    assert (counted.versions(), counted.inodes()) == (versions, inodes)
    assert "set-aside" not in ended.log
    counted.write("out/new", b"since the upgrade")
    assert counted.run().code == 0
    assert [call.key.rpartition("/")[2] for call in proxy.seen("put")[len(SENT) :]] == ["new"]
    assert counted.objects() == SENT | {"new": b"since the upgrade"}
    assert counted.files() == FETCHED
    counted.assert_rows_are_true()
