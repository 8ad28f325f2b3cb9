"""What a directory allows, tried without leaving a trace."""

import os
import signal

import pytest

from replicator.errors import Refused
from replicator.model import OWN_DIR
from replicator.stores.trial import is_writable_if_there, nearest, try_directory

TRY = "from replicator.stores.trial import *\nfound = try_directory(args[0], ('.replicator', 'tmp'))\n"


@pytest.fixture(autouse=True)
def _lease_signals_ignored():
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.mark.parametrize("made", ["", OWN_DIR, f"{OWN_DIR}/tmp"])
def test_directory_of_ours_allows_everything_and_stays_as_it_was(root, made):
    """Readable, writable, writers are told, room is there; no name is left, and no directory is made."""
    (root / made).mkdir(parents=True, exist_ok=True)
    before = sorted(root.rglob("*"))

    found = try_directory(str(root), (OWN_DIR, "tmp"))

    assert (found.unreadable, found.unwritable, found.tells_writers) == ("", "", True)
    assert found.free_bytes > 0
    assert found.device == root.stat().st_dev
    assert sorted(root.rglob("*")) == before


def test_missing_directory_file_and_link_are_refused(root):
    """None of them is an export."""
    (root / "file").write_bytes(b"")
    (root / "link").symlink_to(root)

    for name in ("missing", "file", "link"):
        with pytest.raises(Refused):
            try_directory(str(root / name))


@pytest.mark.parametrize(
    ("mode", "found"), [(0o755, "False True"), (0o333, "True False"), (0o777, "False False"), (0o000, "True True")]
)
def test_directory_of_another_user_allows_what_its_mode_says(open_root, run_as_nobody, mode, found):
    """Whether listing and writing fail is found out as the kernel decides it."""
    if os.geteuid() != 0:
        pytest.skip("needs two users")
    path = open_root / "export"
    path.mkdir()
    path.chmod(mode)

    said = run_as_nobody(TRY + "print(bool(found.unreadable), bool(found.unwritable))", path)

    assert said.strip() == found


def test_own_directory_that_another_user_made_is_what_cannot_be_written(open_root, run_as_nobody):
    """A writable export does not help where `.replicator` belongs to somebody else; it is named."""
    if os.geteuid() != 0:
        pytest.skip("needs two users")
    (open_root / OWN_DIR / "tmp").mkdir(parents=True)
    (open_root / OWN_DIR).chmod(0o700)
    open_root.chmod(0o777)

    said = run_as_nobody(TRY + "print(found.unwritable)", open_root)

    assert said.strip() == f"{OWN_DIR}/tmp: Permission denied"


def test_where_files_need_names_permission_is_asked_for(root, monkeypatch):
    """A file system without nameless files is not called read-only; who writes is then not known."""
    monkeypatch.setattr("replicator.stores.trial._NAMELESS", os.O_RDWR)  # EISDIR, as old kernels say

    found = try_directory(str(root))

    assert (found.unwritable, found.tells_writers) == ("", None)


def test_nearest_directory_is_the_one_to_be_written_in(root):
    """A directory that is not there yet would be made in the one above; links of an administrator are followed."""
    (root / "link").symlink_to(root)

    assert nearest(str(root / "link" / "a" / "b")) == str(root)
    assert nearest(str(root)) == str(root)


def test_file_of_another_user_is_not_writable(open_root, run_as_nobody):
    """Missing is fine, one's own is fine, another user's is not."""
    path = open_root / "journal.db"
    assert is_writable_if_there(str(path))
    path.write_bytes(b"")
    path.chmod(0o600)
    assert is_writable_if_there(str(path))
    if os.geteuid() == 0:
        said = run_as_nobody("from replicator.stores.trial import *\nprint(is_writable_if_there(args[0]))", path)
        assert said.strip() == "False"
