"""Versions that the kernel's coarse clock cannot tell apart yet."""

import time

import pytest

from replicator.stores.files import openfile

MS_NS = 10**6


@pytest.mark.parametrize(
    ("since_change_ns", "is_fine", "has_to_wait"),
    [
        (0, False, True),
        (-MS_NS, False, True),
        (1, False, False),
        (10**9, False, False),
        (-3600 * 10**9, False, False),
        (0, True, False),
        (-MS_NS, True, False),
    ],
    ids=["its tick", "ahead of the tick", "the next", "long ago", "clock set back", "fine stamps", "fine, ahead"],
)
def test_file_is_waited_for_only_in_the_tick_of_its_change(
    export, root, monkeypatch, since_change_ns, is_fine, has_to_wait
):
    """And only where the file system's stamps are coarse."""
    (root / "f").write_bytes(b"x")
    monkeypatch.setattr(openfile, "tells_changes_apart", lambda _device: is_fine)
    with export.open("f") as file:
        now_ns = file.fingerprint.ctime_ns + since_change_ns
        monkeypatch.setattr(time, "clock_gettime_ns", lambda _clock: now_ns)

        assert bool(file.tick_left_s()) is has_to_wait


def test_wait_is_a_tick(export, root, monkeypatch):
    """Ten milliseconds at most, on any kernel."""
    (root / "f").write_bytes(b"x")
    monkeypatch.setattr(openfile, "tells_changes_apart", lambda _device: False)
    with export.open("f") as file:
        monkeypatch.setattr(time, "clock_gettime_ns", lambda _clock: file.fingerprint.ctime_ns)

        assert 0 < file.tick_left_s() <= 0.011
