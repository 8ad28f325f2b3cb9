"""Freeing the device: exactly the version that was confirmed goes, whatever happens meanwhile."""

import dataclasses
import os
import signal

import pytest

from replicator.errors import JournalFull, LeftOut, SourceChanged
from replicator.model import Fingerprint
from replicator.stores.files import remove as removing
from replicator.stores.files.export import Export, ignore_lease_signals
from replicator.stores.files.temp import TEMP_DIR


@pytest.fixture
def root(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"confirmed")
    return tmp_path


@pytest.fixture
def export(root):
    return Export(str(root), "d")


@pytest.fixture
def leases():
    """The process as it runs: lease signals end nobody."""
    before = signal.getsignal(signal.SIGIO)
    ignore_lease_signals()
    yield
    signal.signal(signal.SIGIO, before)


def hidden(root):
    """What lies in our own directory."""
    room = root.joinpath(*TEMP_DIR)
    return sorted(path.name for path in room.iterdir()) if room.exists() else []


def test_expected_version_is_removed_and_nothing_stays(export, root):
    """The file goes, its neighbours stay, our own directory is empty."""
    (root / "d/other").write_bytes(b"stay")

    export.remove("f", expected=export.stat("f").fingerprint, forget=lambda: None)

    assert os.listdir(root / "d") == ["other"]
    assert hidden(root) == []


def test_file_that_is_gone_already_is_fine(export, root):
    """Removing twice is removing once."""
    version = export.stat("f").fingerprint
    (root / "d/f").unlink()

    export.remove("f", expected=version, forget=lambda: None)


@pytest.mark.parametrize("change", ["rewritten", "replaced"])
def test_newer_version_stays(export, root, change):
    """What was written after the upload is not what the store confirmed."""
    version = export.stat("f").fingerprint
    if change == "replaced":
        (root / "d/g").write_bytes(b"replaced")
        (root / "d/g").rename(root / "d/f")
    else:
        (root / "d/f").write_bytes(b"rewritten")

    with pytest.raises(SourceChanged):
        export.remove("f", expected=version, forget=lambda: None)

    assert (root / "d/f").read_bytes() == change.encode()
    assert hidden(root) == []


def test_version_that_slips_in_at_the_last_moment_stays(export, root, monkeypatch):
    """Between the look and the rename a writer may act; what was renamed is looked at once more."""
    version = export.stat("f").fingerprint
    real = os.rename

    def rewrite_then_rename(*args, **kwargs):
        (root / "d/f").write_bytes(b"slipped in")
        real(*args, **kwargs)

    monkeypatch.setattr(os, "rename", rewrite_then_rename)
    with pytest.raises(SourceChanged):
        export.remove("f", expected=version, forget=lambda: None)

    assert (root / "d/f").read_bytes() == b"slipped in"
    assert hidden(root) == []


def test_changed_version_whose_name_was_taken_meanwhile_is_kept_beside(export, root, monkeypatch):
    """Two new versions at once: neither is lost."""
    version = export.stat("f").fingerprint
    real = os.rename

    def act_then_rename(*args, **kwargs):
        (root / "d/f").write_bytes(b"slipped in")
        real(*args, **kwargs)
        (root / "d/f").write_bytes(b"written anew")

    monkeypatch.setattr(os, "rename", act_then_rename)
    with pytest.raises(SourceChanged):
        export.remove("f", expected=version, forget=lambda: None)

    assert (root / "d/f").read_bytes() == b"written anew"
    assert (root / "d/f.kept-1").read_bytes() == b"slipped in"
    assert hidden(root) == []


@pytest.mark.usefixtures("leases")
def test_file_with_a_writer_stays(export, root):
    """Who has it open may still write into it."""
    version = export.stat("f").fingerprint
    with (root / "d/f").open("ab"), pytest.raises(SourceChanged):
        export.remove("f", expected=version, forget=lambda: None)

    assert (root / "d/f").read_bytes() == b"confirmed"


@pytest.mark.fault("F3")
def test_link_is_not_followed_and_not_removed(export, root):
    """A link that took the file's place leads nowhere."""
    version = export.stat("f").fingerprint
    (root / "d/f").rename(root / "victim")
    (root / "d/f").symlink_to(root / "victim")

    with pytest.raises((SourceChanged, LeftOut)):
        export.remove("f", expected=version, forget=lambda: None)

    assert (root / "victim").read_bytes() == b"confirmed"
    assert (root / "d/f").is_symlink()


def test_record_goes_once_the_file_is_out_of_sight_and_before_its_bytes(export, root):
    """A crash leaves the bytes under their hidden name, or no record that asks for them."""
    seen: list[object] = []

    export.remove(
        "f",
        expected=export.stat("f").fingerprint,
        forget=lambda: seen.append(((root / "d/f").exists(), len(hidden(root)))),
    )
    export.remove("f", expected=Fingerprint(9, 1, 1, 1), forget=lambda: seen.append("of a file that is gone"))

    assert seen == [(False, 1), "of a file that is gone"]


def test_file_whose_record_cannot_be_dropped_stays(export, root):
    """A full journal keeps the file where it was."""

    def fail():
        raise JournalFull("no room")

    with pytest.raises(JournalFull):
        export.remove("f", expected=export.stat("f").fingerprint, forget=fail)

    assert (root / "d/f").read_bytes() == b"confirmed"
    assert hidden(root) == []


def test_crash_before_the_unlink_is_finished_at_the_next_start(export, root, monkeypatch):
    """What was hidden and is still the confirmed version goes, and its record; the name tells which it must be."""
    version = export.stat("f").fingerprint
    forgotten: list[Fingerprint] = []
    with monkeypatch.context() as crash:
        crash.setattr(os, "unlink", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export.remove("f", expected=version, forget=lambda: None)
    assert len(hidden(root)) == 1

    assert export.finish_removals(forgotten.append) == 1

    assert hidden(root) == []
    assert forgotten == [dataclasses.replace(version, ctime_ns=0)]


def test_hidden_file_that_is_not_what_its_name_says_is_kept(export, root):
    """Somebody wrote into it through an old descriptor: then it may be the only copy."""
    room = root.joinpath(*TEMP_DIR)
    room.mkdir(parents=True, mode=removing.OWN_MODE)
    (room / "9-1-2.removed").write_bytes(b"other")
    (room / "unrelated").write_bytes(b"x")

    assert export.finish_removals(pytest.fail) == 0

    assert hidden(root) == ["9-1-2.removed", "unrelated"]
