"""Generations on a real file system: built, brought in force by one link, removed only where all of it is ours."""

import errno
import os
from pathlib import Path

import pytest

from replicator.errors import Refused, SourceChanged
from replicator.model import Fingerprint
from replicator.stores.files.beneath import fingerprint_of
from replicator.stores.files.generation import Shelf

FIRST = "20260101T000000Z-" + "0" * 16
SECOND = "20260102T000000Z-" + "0" * 16


@pytest.fixture
def incoming(root: Path) -> Path:
    """Where files land; the export's `in` is the target's directory."""
    path = root / "in/.incoming"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def shelf(root: Path, incoming: Path) -> Shelf:
    return Shelf(str(root), "in/.incoming")


@pytest.fixture
def current(root: Path) -> Path:
    return root / "in/current"


@pytest.fixture
def land(incoming: Path):
    """Write a file as ingress does, by rename; its fingerprint there."""

    def write(relpath: str, content: bytes = b"content") -> Fingerprint:
        path = incoming / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        temp = incoming / "tmp"
        temp.write_bytes(content)
        temp.rename(path)
        return fingerprint_of(path.stat())

    return write


@pytest.fixture
def publish(shelf, land):
    """Bring a generation with these files in force; their fingerprints."""

    def work(id_: str, **files: bytes) -> dict[str, Fingerprint]:
        ours = {}
        for relpath, content in files.items():
            ours[relpath] = land(relpath, content)
            parent, _, name = relpath.rpartition("/")
            with shelf.group(id_, parent) as group:
                assert group.link(name, ours[relpath])
        shelf.flip(id_)
        return ours

    return work


def test_link_leads_to_the_generation_with_its_files(shelf, publish, current):
    """Readers find the files under `current`, and the one in force is told with its time."""
    publish(FIRST, **{"a": b"1", "sub/b": b"2"})

    assert (current / "a").read_bytes() == b"1"
    assert (current / "sub/b").read_bytes() == b"2"
    assert shelf.in_force().id == FIRST
    assert shelf.in_force().since_ts == pytest.approx(current.lstat().st_mtime)


def test_nothing_is_in_force_at_first(tmp_path, shelf):
    """Neither without a link nor without the directory."""
    assert shelf.in_force() is None
    assert Shelf(str(tmp_path), "never/.incoming").in_force() is None


def test_link_to_a_generation_that_somebody_removed_is_none(shelf, publish, root):
    """It has to be built anew."""
    publish(FIRST, a=b"1")
    (root / "in/.generations" / FIRST / "a").unlink()
    (root / "in/.generations" / FIRST).rmdir()

    assert shelf.in_force() is None


@pytest.mark.parametrize("make", ["file", "directory", "elsewhere", "other-name", "dangling"])
def test_whatever_is_not_our_link_is_left_alone(make, shelf, publish, current, root):
    """A file, a directory or a link elsewhere under the name `current` is Refused, and is the same afterwards."""
    match make:
        case "file":
            current.write_bytes(b"mine")
        case "directory":
            current.mkdir()
        case "elsewhere":
            current.symlink_to(root)
        case "other-name":
            current.symlink_to(".generations/mine")
        case "dangling":
            current.symlink_to(f"/.generations/{FIRST}")
    before = current.lstat()

    with pytest.raises(Refused, match="'current' is not a link of replicator's"):
        shelf.in_force()
    with pytest.raises(Refused, match="'current' is not a link of replicator's"):
        publish(FIRST, a=b"1")

    assert os.path.samestat(before, current.lstat())


def test_leftover_of_a_crash_between_link_and_rename_is_replaced(shelf, publish, current, root):
    """The link to be is ours when it looks like ours; anything else under its name stops the flip."""
    publish(FIRST, a=b"1")
    left = root / "in/.generations/.next"
    left.symlink_to(f".generations/{FIRST}")
    publish(SECOND, a=b"2")
    assert (current / "a").read_bytes() == b"2"

    left.write_bytes(b"mine")
    with pytest.raises(Refused, match=r"'\.next' is not a link"):
        shelf.flip(FIRST)

    assert left.read_bytes() == b"mine"


@pytest.mark.parametrize("planted", ["in/.generations", f"in/.generations/{FIRST}", f"in/.generations/{FIRST}/sub"])
@pytest.mark.fault("F3", "F8")
def test_planted_link_is_not_followed(planted, shelf, publish, root, tmp_path):
    """No directory of a generation may be a link, wherever it leads."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / planted).parent.mkdir(parents=True, exist_ok=True)
    (root / planted).symlink_to(outside)

    with pytest.raises(Refused):
        publish(FIRST, **{"sub/b": b"2"})

    assert list(outside.iterdir()) == []


@pytest.mark.fault("F4")
def test_link_that_took_the_place_of_a_file_gets_no_second_name(shelf, land, incoming, root):
    """What is linked is looked at afterwards: another version is SourceChanged, and its name goes again."""
    version = land("a")
    (incoming / "a").unlink()
    (incoming / "a").symlink_to("/etc/passwd")

    with pytest.raises(SourceChanged), shelf.group(FIRST, "") as group:
        group.link("a", version)

    assert list((root / "in/.generations" / FIRST).iterdir()) == []


def test_newer_version_gets_no_second_name(shelf, land, root):
    """A file that was replaced since it was looked at does not slip into the set."""
    version = land("a", b"old")
    land("a", b"new")

    with pytest.raises(SourceChanged), shelf.group(FIRST, "") as group:
        group.link("a", version)

    assert list((root / "in/.generations" / FIRST).iterdir()) == []


def test_what_stands_there_already_is_recognised_and_foreign_files_are_refused(shelf, land, root):
    """An attempt goes on where another ended; somebody else's file in the way stops it."""
    version = land("a")
    with shelf.group(FIRST, "") as group:
        assert not group.holds("a", version)
        group.link("a", version)
        assert group.holds("a", version)
        (root / "in/.generations" / FIRST / "b").write_bytes(b"mine")

        with pytest.raises(Refused, match="'b' in a generation that is being built is not replicator's"):
            group.holds("b", version)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_file_system_without_links_is_told(code, shelf, land, monkeypatch):
    """The caller copies then; any other error is one."""
    version = land("a")

    def refuse(*_, **__):
        raise OSError(code, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with shelf.group(FIRST, "") as group:
        assert group.link("a", version) is False


def test_removal_takes_what_is_ours_and_nothing_else(shelf, publish, current, root):
    """An old generation goes as a whole; the one in force, the files that landed and foreign names stay."""
    ours = publish(FIRST, **{"a": b"1", "sub/deep/b": b"1"})
    publish(SECOND, a=b"2")
    mine = root / "in/.generations/mine"
    mine.mkdir()

    shelf.remove(FIRST, ours)

    assert shelf.ids() == [SECOND]
    assert mine.is_dir()
    assert (current / "a").read_bytes() == b"2"
    assert (root / "in/.incoming/sub/deep/b").read_bytes() == b"1"
    shelf.remove(FIRST, ours)  # once more is fine


@pytest.mark.parametrize("hand", ["edited", "added", "link", "directory", "replaced"])
def test_generation_in_which_somebody_had_a_hand_stays_whole(hand, shelf, publish, root):
    """Not one file of it is removed."""
    ours = publish(FIRST, **{"a": b"1", "sub/b": b"1"})
    top = root / "in/.generations" / FIRST
    match hand:
        case "edited":
            (top / "sub/b").write_bytes(b"edited")
        case "added":
            (top / "sub/c").write_bytes(b"mine")
        case "link":
            (top / "c").symlink_to("a")
        case "directory":
            (top / "mine").mkdir()
        case "replaced":
            (top / "sub/b").unlink()
            (top / "sub/b").write_bytes(b"1")
    before = sorted(top.rglob("*"))

    with pytest.raises(Refused, match="was edited or added there, so all of it stays"):
        shelf.remove(FIRST, ours)

    assert sorted(top.rglob("*")) == before


def test_order_of_syncs_survives_a_power_cut(shelf, land, monkeypatch):
    """Names in the generation are synced before the link is made, and the link's directory after its rename."""
    version = land("a")
    steps: list[str] = []

    def noting(name: str):
        real = getattr(os, name)

        def call(*args, **more):
            steps.append(name)
            return real(*args, **more)

        return call

    for name in ("link", "symlink", "rename", "fsync"):
        monkeypatch.setattr(os, name, noting(name))

    with shelf.group(FIRST, "") as group:
        group.link("a", version)
    assert steps[-2:] == ["link", "fsync"]
    steps.clear()
    shelf.flip(FIRST)

    assert steps == ["symlink", "rename", "fsync", "fsync"]
