"""What a power cut may leave is decided by an order of system calls; so the calls themselves are looked at."""

import pytest

from tests.faults.crash.tracer import Call, Plan

pytestmark = [pytest.mark.slow, pytest.mark.fault("C4")]

WAL = "state/journal.db-wal"


def first(calls: list[Call], after: int, *names: str, path: str) -> int:
    """The number of the next call of this name on this path (or from it); fails where there is none."""
    found = [place for place, call in enumerate(calls) if place > after and call.name in names and call.path == path]
    assert found, f"no {names} on {path} after {calls[after]}"
    return found[0]


def test_fetched_file_is_durable_before_its_name_and_its_name_before_its_row(stage):
    """Temporary file synced, intent, rename, directory synced, row; and nothing in between that would be too early."""
    stage.put("incoming/d/x", b"old")
    assert stage.run().code == 0
    stage.put("incoming/d/x", b"new and longer")

    calls = stage.run(Plan()).calls

    (rename,) = [place for place, call in enumerate(calls) if call.second_path == "export/in/d/x"]
    temp = calls[rename].path
    assert temp.startswith("export/.replicator/tmp/")
    written = first(calls, 0, "write", path=temp)
    synced = first(calls, written, "fsync", path=temp)
    intended = first(calls, synced, "pwrite64", path=WAL)
    in_place = first(calls, rename, "fsync", path="export/in/d")
    recorded = first(calls, rename, "pwrite64", path=WAL)
    assert written < synced < intended < rename < in_place < recorded
    after = [call.name for call in calls[synced + 1 :] if call.path == temp]
    assert set(after) <= {"renameat"}, "what is synced is not touched again"
    assert (stage.inbox / "d/x").read_bytes() == b"new and longer"


def test_name_that_readers_see_is_only_ever_renamed_onto(stage):
    """No call opens the final name for writing, cuts it or removes it."""
    stage.put("incoming/x", b"old")
    assert stage.run().code == 0
    stage.put("incoming/x", b"new and longer")

    changes = stage.run(Plan()).changes

    assert [call.name for call in changes if "export/in/x" in (call.path, call.second_path)] == ["renameat"]


def test_row_of_what_is_sent_follows_the_stores_answer(stage):
    """Between the body and the answer the journal is not written."""
    assert stage.run().code == 0
    stage.write("out/f", b"content")

    calls = stage.run(Plan()).calls

    sent = max(place for place, call in enumerate(calls) if call.name == "writev")
    answered = first(calls, sent, "recvfrom", path=calls[sent].path)
    recorded = first(calls, sent, "pwrite64", path=WAL)
    assert sent < answered < recorded
    assert stage.objects() == {"f": b"content"}


def test_file_that_a_crash_left_in_its_place_is_synced_before_its_row(stage, make_stage):
    """Killed between rename and directory sync, the next start syncs what it finds before it records it."""
    stage.put("incoming/x", b"content")
    changes = stage.run(Plan()).changes
    (rename,) = [place for place, call in enumerate(changes, 1) if call.second_path == "export/in/x"]
    other = make_stage()
    other.put("incoming/x", b"content")
    assert other.run(Plan(kill_at=rename + 1)).was_killed
    assert other.rows("ingress") == {}
    assert other.files() == {"x": b"content"}

    calls = other.run(Plan()).calls

    synced = first(calls, 0, "fsync", path="export/in")
    assert first(calls, 0, "fsync", path="export/in/x") < synced
    assert any(call.path == WAL for call in calls[synced:])
    assert [call.second_path for call in calls if call.name == "renameat"] == []


def test_link_to_a_generation_follows_all_of_its_directories(stage):
    """Each directory of the set is synced before the link is renamed, and the link's own after it."""
    words = {"REPLICATOR_INGRESS_MARKER": "_set", "REPLICATOR_INGRESS_PUBLISH": "generation"}
    stage.put("incoming/d/x", b"one")
    stage.put("incoming/_set", b"f97c5d29941bfb1b2fdab0874906ab82  d/x\n")

    calls = stage.run(Plan(), **words).calls

    (flipped,) = [place for place, call in enumerate(calls) if call.second_path == "export/in/current"]
    synced = [call.path for call in calls[:flipped] if call.name == "fsync" and "/.generations/" in call.path]
    assert {path.split("/", 4)[-1] for path in synced} >= {"d"}
    assert len({path for path in synced if path.count("/") == 3}) == 1, "the top of the set is synced"
    first(calls, flipped, "fsync", path="export/in")
