"""A device whose replicator was upgraded: what an older release recorded as sent and fetched stays sent and fetched."""

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from replicator.errors import Unavailable
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


@pytest.mark.parametrize("version", [version for version in schemas.OLDER if version >= 2])
async def test_upload_that_was_cut_before_the_upgrade_goes_on_after_it(device, witness, until, version):
    """The parts that the older release had confirmed are not sent again."""
    content = os.urandom(16 * 2**20)
    device.write("out/f", content)
    settings = {"part_size_bytes": 5 * 2**20, "resume_after_s": 0, "drain_timeout_s": 0}
    failed: set[int] = set()
    async with device.running(device.egress(), **settings) as running:
        lane = next(iter(running.engine.patrols.values())).lane
        put_part = lane.objects.put_part

        def fail_from_the_third(key, upload_id, number, body, *, md5):
            if number > 2:
                failed.add(number)
                raise Unavailable("the network is gone")
            return put_part(key, upload_id, number, body, md5=md5)

        lane.objects.put_part = fail_from_the_third
        await until(lambda: failed and len(lane.journal.upload(lane.number, "f").parts) == 2)
    made_older(device.home / "state/journal.db", version)

    async with device.running(device.egress(), **settings) as running:
        await running.in_step()

        assert running.requests()["upload_part"] == 2
    assert await witness.get("sent/f") == content
