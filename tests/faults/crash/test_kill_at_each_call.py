"""Killed before any single change to a file, the next start brings both sides together and sends nothing twice.

Each scenario is run once to count its changes: files made, written, synced, renamed, linked, removed, and the journal's
own writes. Then it is killed where the journal is told of what happened outside it and at a spread of the others, or
before each of them with REPLICATOR_TEST_LONG=1.
"""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from tests import schemas
from tests.faults.crash.tracer import Call, Plan

pytestmark = [pytest.mark.slow, pytest.mark.fault("C2", "C3")]

OLD, NEW, EDIT = b"old words", b"new words, and more of them", b"words of the workload"


class Scenario:
    """What is there before the run, and what has to be there at any moment, and after the next run."""

    environment: ClassVar[dict[str, str]] = {}
    moments = 8
    """How often it is killed in the short run."""
    incoming = "in"
    """Where fetched files land."""
    sent: ClassVar[dict[str, tuple[bytes, ...]]] = {}
    """Each object's contents that were ever whole on the device; the last is the present one."""
    fetched: ClassVar[dict[str, tuple[bytes, ...]]] = {}
    """The same for files that come from the bucket, and for those beside them."""

    def prepare(self, stage) -> None: ...

    def check_at_death(self, stage) -> None:
        for name, body in stage.objects().items():
            assert body in self.sent[name]
        for name, body in stage.files().items():
            assert body in self.fetched[without_stamp(name)], f"{name} is torn"

    def check_in_the_end(self, stage) -> None:
        assert stage.objects() == {name: contents[-1] for name, contents in self.sent.items()}
        found = {without_stamp(name): body for name, body in stage.files().items()}
        assert found == {name: contents[-1] for name, contents in self.fetched.items()}
        assert len(found) == len(stage.files()), "there are two conflict copies"


def without_stamp(name: str) -> str:
    return name.partition(".sync-conflict")[0] + (".sync-conflict" if ".sync-conflict" in name else "")


class SmallFiles(Scenario):
    """Small files are sent, a run at a time."""

    sent: ClassVar = {"a": (b"",), "d/b": (NEW,), "d/c": (bytes(5000),)}

    def prepare(self, stage) -> None:
        for name, contents in self.sent.items():
            stage.write(f"out/{name}", contents[-1])


class RecordedParts(Scenario):
    """A large file is sent in parts that the journal knows."""

    environment: ClassVar = {"REPLICATOR_RESUME_AFTER_S": "0", "REPLICATOR_PART_SIZE_BYTES": str(5 << 20)}
    sent: ClassVar = {"large": (os.urandom(1 << 20) * 6,)}

    def prepare(self, stage) -> None:
        stage.write("out/large", self.sent["large"][-1])


class Stream(RecordedParts):
    """A large file is sent in one call, of which the journal only knows that it began."""

    moments = 4
    environment: ClassVar = {"REPLICATOR_PART_SIZE_BYTES": str(5 << 20)}


class NewFiles(Scenario):
    """Objects become files where nothing was."""

    fetched: ClassVar = {"x": (NEW,), "d/y": (OLD,), "d/z": (b"",)}

    def prepare(self, stage) -> None:
        for name, contents in self.fetched.items():
            stage.put(f"incoming/{name}", contents[-1])


class Overwritten(Scenario):
    """Two objects changed, and one of their files was edited: that is kept beside the new one."""

    fetched: ClassVar = {"x": (OLD, NEW), "y": (EDIT, NEW), "y.sync-conflict": (EDIT,)}

    def prepare(self, stage) -> None:
        for name in ("x", "y"):
            stage.put(f"incoming/{name}", OLD)
        assert stage.run().code == 0
        stage.write("in/y", EDIT)
        for name in ("x", "y"):
            stage.put(f"incoming/{name}", NEW)


class GenerationPublished(Scenario):
    """A set of files becomes visible as a whole, after another one."""

    incoming = "in/.incoming"
    environment: ClassVar = {"REPLICATOR_INGRESS_MARKER": "_set", "REPLICATOR_INGRESS_PUBLISH": "generation"}

    def prepare(self, stage) -> None:
        self._put(stage, OLD)
        assert stage.run(**self.environment).code == 0
        self._put(stage, NEW)

    def _put(self, stage, body) -> None:
        for name in ("x", "d/y"):
            stage.put(f"incoming/{name}", body)
        stage.put("incoming/_set", manifest(body))

    def check_at_death(self, stage) -> None:
        assert stage.files("in/current") in [self._set(OLD), self._set(NEW)]

    def check_in_the_end(self, stage) -> None:
        assert stage.files("in/current") == stage.files("in/.incoming") == self._set(NEW)
        assert len(list((stage.inbox / ".generations").iterdir())) == 2

    def _set(self, body) -> dict[str, bytes]:
        return {"x": body, "d/y": body, "_set": manifest(body)}


def manifest(body: bytes) -> bytes:
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return f"{md5}  x\n{md5}  d/y\n".encode()


class Freed(Scenario):
    """Files leave the device once the store has confirmed them."""

    environment: ClassVar = {"REPLICATOR_DELETE_AFTER_UPLOAD": "true"}
    sent: ClassVar = {"a": (NEW,), "d/b": (OLD,)}

    def prepare(self, stage) -> None:
        for name, contents in self.sent.items():
            stage.write(f"out/{name}", contents[-1])

    def check_at_death(self, stage) -> None:
        super().check_at_death(stage)
        held = [*stage.files("out").values(), *stage.objects().values(), *stage.files(".replicator").values()]
        assert {NEW, OLD} <= set(held), "a file is on neither side"

    def check_in_the_end(self, stage) -> None:
        super().check_in_the_end(stage)
        assert stage.files("out") == {}
        assert stage.files(".replicator") == {}


class Upgraded(Scenario):
    """A journal of the first version is brought to the present one, and its rows hold."""

    sent: ClassVar = {"a": (NEW,), "b": (OLD,)}

    def prepare(self, stage) -> None:
        for name, contents in self.sent.items():
            stage.write(f"out/{name}", contents[-1])
        assert stage.run().code == 0
        path = stage.home / "state/journal.db"
        with stage.journal() as today:
            tables = {name: today.execute(f"SELECT * FROM {name}").fetchall() for name in ("targets", "rows")}
        shutil.rmtree(stage.home / "state")
        path.parent.mkdir(mode=0o700)
        first = sqlite3.connect(path, isolation_level=None)
        first.execute("PRAGMA journal_mode = WAL")
        first.executescript(schemas.script_of(1))
        for name, lines in tables.items():
            for line in lines:
                # The triggers count the rows.
                values = (*line[:2], 0, 0) if name == "targets" else line
                first.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(values))})", values)
        first.close()

    def check_in_the_end(self, stage) -> None:
        super().check_in_the_end(stage)
        assert stage.versions() == {"a": 1, "b": 1}
        assert not list((stage.home / "state").glob("*set-aside*"))


UPGRADED = pytest.param(Upgraded, marks=pytest.mark.fault("C11"))
SCENARIOS = [SmallFiles, RecordedParts, Stream, NewFiles, Overwritten, GenerationPublished, Freed, UPGRADED]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", SCENARIOS)
def test_killed_before_any_change_it_ends_as_if_it_never_was(make_stage, kind, is_long, record_property):
    """Nothing torn, no row ahead of the files, nothing confirmed sent again, nothing left over."""
    scenario: Scenario = kind()
    whole = make_stage()
    scenario.prepare(whole)
    counted = whole.run(Plan(), **scenario.environment)
    assert counted.code == 0, counted.log
    scenario.check_in_the_end(whole)
    changes = counted.changes
    moments = list(range(1, len(changes) + 1)) if is_long else sample(counted.calls, scenario.moments)
    record_property("changes", len(changes))
    record_property("cases", len(moments))

    failed = []
    for number in moments:
        stage = make_stage()
        scenario.prepare(stage)
        died = stage.run(Plan(kill_at=number), **scenario.environment)
        try:
            assert died.was_killed or number > 0.8 * len(changes), died.log
            check_restart(stage, scenario)
        except AssertionError as error:
            failed.append(f"before change {number} {died.changes[-1:]}: {error}")

    assert not failed, "\n".join(failed)


def sample(calls: list[Call], count: int) -> list[int]:
    """Numbers of changes: where the journal is told of what happened outside it, and a spread of all."""
    telling, number, before = [], 0, ""
    for call in calls:
        number += call.is_change
        if call.is_change and call.path.startswith("state/") and not before.startswith("state/"):
            telling.append(number)
        before = call.path
    some = spread(telling[1:], count // 2)  # the first one makes the journal
    return sorted({*some, *spread(range(1, number + 1), count - len(some))})


def spread(numbers: Sequence[int], count: int) -> list[int]:
    """So many of them, or all, from the first to the last."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[place * (len(numbers) - 1) // (count - 1)] for place in range(count)]


def check_restart(stage, scenario) -> None:
    """What was there when it died, and what a restart makes of it."""
    scenario.check_at_death(stage)
    stage.assert_rows_are_true(scenario.incoming)
    confirmed, kept = stage.rows("egress"), stage.rows("ingress")
    versions, inodes = stage.versions(), stage.inodes()

    restarted = stage.run(**scenario.environment)

    assert restarted.code == 0, restarted.log
    scenario.check_in_the_end(stage)
    stage.assert_rows_are_true(scenario.incoming)
    assert {row.relpath: row.etag for row in stage.rows("ingress").values()} == stage.etags("incoming")
    assert stage.temps() == []
    assert stage.open_uploads() == []
    assert [name for name in confirmed if stage.versions()[name] > versions[name]] == []
    here = Path(scenario.incoming).relative_to("in")
    unchanged = [str(here / name) for name, row in kept.items() if row == stage.rows("ingress").get(name)]
    assert [name for name in unchanged if stage.inodes()[name] != inodes[name]] == []
