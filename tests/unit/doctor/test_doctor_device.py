"""What the doctor says of the state directory, exports, writers and events."""

import contextlib
import dataclasses
import errno
import os
import tempfile
import warnings
from pathlib import Path

import pytest

from replicator.doctor import device
from replicator.doctor.findings import Verdict, carry_out
from replicator.errors import Refused
from replicator.stores import inotify, kernel
from replicator.stores.files.export import Export
from replicator.stores.files.openfile import OpenFile
from replicator.stores.trial import Trial

ROOMY = Trial(device=0, free_bytes=2**40, unreadable="", unwritable="", tells_writers=True)
READ_ONLY = Trial(device=0, free_bytes=2**40, unreadable="", unwritable="Read-only file system", tells_writers=None)


def with_room(free_bytes: int) -> Trial:
    return Trial(device=0, free_bytes=free_bytes, unreadable="", unwritable="", tells_writers=True)


def test_everything_is_fine_and_nothing_is_left_behind(root, new_target, new_settings, tmp_path):
    """Every check of a good device is ok, in a stated order, and neither export nor state directory has a new name."""
    (root / "out").mkdir()
    (root / "out/f").write_bytes(b"x")
    targets = [new_target(subdir="out"), new_target("ingress", "in")]

    found = list(carry_out(device.checks(new_settings(free_space_floor_bytes="0"), targets)))

    assert {one.verdict for one in found} == {Verdict.OK}, [one.as_line() for one in found]
    names = ["state directory", "export", "writing", "free space", "file system", "directory", "writers", "events"]
    assert [one.check for one in found] == names
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["export", "f", "out"]


def test_missing_export_is_told_once(root, new_target, new_settings):
    """What is beneath a missing export is not complained about."""
    root.rmdir()

    found = list(carry_out(device.checks(new_settings(watcher="off"), [new_target(subdir="out")])))

    assert [one.check for one in found if one.verdict is Verdict.FAILED] == ["export"]
    assert "No such file" in found[1].found
    assert found[1].fix == "Make or mount it, or correct its name"
    assert [one.check for one in found] == ["state directory", "export", "events"]


@pytest.mark.parametrize(
    ("directions", "options", "verdict", "words"),
    [
        (["egress"], {}, Verdict.WARNING, "egress works"),
        (["egress", "ingress"], {}, Verdict.FAILED, "ingress cannot"),
        (["egress"], {"delete_after_upload": True}, Verdict.FAILED, "delete_after_upload cannot"),
    ],
)
def test_read_only_export_is_judged_by_what_is_mapped(new_target, directions, options, verdict, words):
    """Egress does without writing; ingress, and freeing the device, do not."""
    answer = device.writable(READ_ONLY, [new_target(direction, direction, **options) for direction in directions])

    assert answer.verdict is verdict
    assert words in answer.found
    assert answer.fix


@pytest.mark.parametrize(("free", "verdict"), [(100, Verdict.FAILED), (101, Verdict.OK)])
def test_free_space_is_compared_with_the_floor(new_settings, free, verdict):
    """At the floor ingress fetches nothing any more."""
    assert device.free_space(with_room(free), new_settings(free_space_floor_bytes="100")).verdict is verdict


def test_unreadable_export_fails():
    """An export that cannot be listed cannot be sent."""
    trial = Trial(device=0, free_bytes=0, unreadable="Permission denied", unwritable="", tells_writers=True)

    assert device.readable(trial).verdict is Verdict.FAILED


@pytest.mark.parametrize(("kind", "verdict"), [("nfs4", Verdict.WARNING), ("ext4", Verdict.OK), ("", Verdict.OK)])
def test_file_system_of_others_is_a_warning(monkeypatch, new_settings, kind, verdict):
    """There the changes of other machines make no event, and a sweep has to find them."""
    monkeypatch.setattr(kernel, "file_system", lambda _: kind)

    answer = device.file_system(ROOMY, new_settings())

    assert answer.verdict is verdict
    assert kind in answer.found


def test_small_state_directory_is_a_warning(monkeypatch, new_settings):
    """The journal needs room to grow."""
    monkeypatch.setattr(device, "try_directory", lambda _: with_room(2**20))

    assert device.state_directory(new_settings()).verdict is Verdict.WARNING


@pytest.mark.parametrize("reason", ["unwritable", "unreadable", "journal"])
def test_state_directory_of_another_user_fails(monkeypatch, new_settings, reason):
    """Neither the directory nor the journal in it may belong to somebody else."""
    words = {"unwritable": "", "unreadable": ""} | ({reason: "Permission denied"} if reason != "journal" else {})
    monkeypatch.setattr(
        device, "try_directory", lambda _: Trial(device=0, free_bytes=2**40, tells_writers=True, **words)
    )
    monkeypatch.setattr(device, "is_writable_if_there", lambda _: reason != "journal")

    assert device.state_directory(new_settings()).verdict is Verdict.FAILED


def test_mapped_directory_that_is_not_there_is_a_warning(root, new_target):
    """It may come yet; until then nothing is sent."""
    assert device.mapped(new_target(subdir="out")).verdict is Verdict.WARNING
    (root / "out").mkdir()
    assert device.mapped(new_target(subdir="out")).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("has_file", "file_told", "own_told", "verdict", "words"),
    [
        (True, True, True, Verdict.OK, "once it is closed"),
        (True, True, None, Verdict.OK, "once it is closed"),
        (True, False, True, Verdict.WARNING, "CAP_LEASE"),
        (True, False, False, Verdict.WARNING, "REPLICATOR_DEBOUNCE_QUIET_S"),
        (True, False, None, Verdict.WARNING, "REPLICATOR_DEBOUNCE_QUIET_S"),
        (False, False, True, Verdict.OK, "none yet"),
        (False, False, False, Verdict.WARNING, "quiet for 0.5 s"),
        (False, False, None, Verdict.OK, "no file yet"),
    ],
)
def test_who_writes_is_told_or_quiet_time_decides(
    monkeypatch, root, new_target, new_settings, has_file, file_told, own_told, verdict, words
):
    """The workload's file counts before our own; a file of another user names the two ways out."""
    if has_file:
        (root / "f").write_bytes(b"x")
    monkeypatch.setattr(OpenFile, "has_writer", lambda _: False if file_told else None)
    trial = Trial(device=0, free_bytes=0, unreadable="", unwritable="", tells_writers=own_told)

    answer = device.writers(trial, new_target(), new_settings())

    assert answer.verdict is verdict
    assert words in f"{answer.found} {answer.fix}"


def test_file_of_another_user_is_where_quiet_time_decides(new_settings, new_target):
    """Without privilege the kernel tells of one's own files only, and that is what is said."""
    if os.geteuid() != 0:
        pytest.skip("needs two users")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        (Path(name) / "f").write_bytes(b"x")
        target = dataclasses.replace(new_target(), root=name)
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of other tests stay behind
            child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.setuid(65534)
                found = carry_out(device.checks(new_settings(watcher="off"), [target]))
                os.write(writing, "|".join(f"{one.check} {one.verdict}: {one.found}" for one in found).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)

        with os.fdopen(reading, encoding="utf-8") as answer:
            told = answer.read().split("|")

    assert "writing ok: writable" in told
    assert any(
        line.startswith("writers warning: the kernel does not tell who writes 'f', another user's") for line in told
    )


def test_links_are_passed_over_for_a_file(root, new_target, new_settings):
    """What is left out anyway is not taken for a file of the workload."""
    (root / "one").write_bytes(b"x")
    (root / "two").hardlink_to(root / "one")

    assert "none yet" in device.writers(ROOMY, new_target(), new_settings()).found


def test_file_that_may_not_be_read_fails(monkeypatch, root, new_target, new_settings):
    """The first file of the workload stands for the others: it names the permission that is missing."""
    (root / "f").write_bytes(b"x")

    def refuse(*_):
        raise Refused("'f' cannot be read: Permission denied. Give this user the permission")

    monkeypatch.setattr(Export, "open", refuse)

    with pytest.raises(Refused):
        device.writers(ROOMY, new_target(), new_settings())


@pytest.mark.parametrize(("limit", "verdict"), [(3, Verdict.WARNING), (4, Verdict.OK), (None, Verdict.OK)])
def test_directories_are_counted_against_the_watches(monkeypatch, root, new_target, new_settings, limit, verdict):
    """With fewer watches than directories the sysctl and a number for it are named; nested ones all count."""
    (root / "a/b/c").mkdir(parents=True)
    monkeypatch.setattr(kernel, "tightest_watch_limit", lambda: ("fs.inotify.max_user_watches", limit))
    monkeypatch.setattr("replicator.detect.inotify.tightest_watch_limit", kernel.tightest_watch_limit)

    answer = device.events(new_settings(), [new_target()])

    assert answer.verdict is verdict
    assert "4 directories" in answer.found
    if limit:
        assert "fs.inotify.max_user_watches" in answer.found + answer.fix
    if verdict is Verdict.WARNING:
        assert answer.fix == "set fs.inotify.max_user_watches to 8"


def test_large_tree_is_not_counted_to_its_end(monkeypatch, root, new_target, new_settings):
    """Counting stops in time, and says so."""
    (root / "a").mkdir()
    monkeypatch.setattr(device, "_COUNTING_S", -1.0)

    assert "more than 1 directory" in device.events(new_settings(), [new_target()]).found


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(errno.EMFILE, ""), "fs.inotify.max_user_instances (now 128) to 256"), (OSError(errno.ENOSYS, ""), "")],
)
def test_no_event_queue_is_a_warning(monkeypatch, new_target, new_settings, error, words):
    """Sweeps go on; where it is a limit, the sysctl and a number for it are named."""

    def refuse():
        raise error

    monkeypatch.setattr(inotify, "Inotify", refuse)
    monkeypatch.setattr(kernel, "event_queues", lambda: 128)

    answer = device.events(new_settings(watcher="inotify"), [new_target()])

    assert answer.verdict is Verdict.WARNING
    assert "sweeps find changes" in answer.found
    assert words in answer.fix


@pytest.mark.parametrize(("is_available", "source"), [(True, "inotify"), (False, "watchfiles")])
def test_source_is_the_one_that_would_be_chosen(monkeypatch, new_target, new_settings, is_available, source):
    """`auto` is resolved as the service does it; `off` is no fault."""
    monkeypatch.setattr(inotify, "is_available", lambda: is_available)

    assert device.events(new_settings(), [new_target()]).found.startswith(source)
    assert "switched off" in device.events(new_settings(watcher="off"), [new_target()]).found


def test_without_egress_there_is_no_word_of_events(new_target, new_settings):
    """Ingress polls: neither events, writers nor the type of the file system matter."""
    checks = device.checks(new_settings(), [new_target("ingress")])

    assert [check.name for check in checks] == ["state directory", "export", "writing", "free space"]
