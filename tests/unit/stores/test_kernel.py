"""What the kernel tells: limits, file systems, and that a mount has changed."""

import os
import select
import subprocess
from pathlib import Path

import pytest

from replicator.stores import kernel

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
60 27 8:1 / /data rw,relatime shared:1 master:2 - ext4 /dev/vda rw
61 27 0:52 / /net\040work rw,relatime shared:1 - nfs4 server:/export rw
62 27 0:53 /sub /host rw - fuse.sshfs me@there:/ rw
""".strip()


@pytest.mark.parametrize(
    ("device", "kind"),
    [((8, 1), "ext4"), ((0, 52), "nfs4"), ((0, 53), "fuse.sshfs"), ((0, 5), "")],
)
def test_file_system_is_found_by_its_device(device, kind):
    """Whatever path leads there: optional fields, escaped names and bind mounts do not matter."""
    assert kernel.file_system_in(MOUNTS, os.makedev(*device)) == kind


def test_broken_list_of_mounts_is_no_error():
    """Lines of another form are passed over."""
    assert kernel.file_system_in("\n - \nx y\n", os.makedev(8, 1)) == ""


def test_file_system_of_proc_is_proc():
    """The list is that of this process."""
    assert kernel.file_system(os.stat("/proc").st_dev) == "proc"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuse.sshfs", "virtiofs", "ceph"])
def test_file_system_of_others_is_remote(kind):
    """Other machines, or another kernel, may change what is in it."""
    assert kernel.is_remote(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "fuseblk", "f2fs", ""])
def test_local_file_system_is_not_remote(kind):
    """All changes pass this kernel; what is not known is not slandered."""
    assert not kernel.is_remote(kind)


def test_tightest_limit_is_named(tmp_path, monkeypatch):
    """Of the two limits the smaller counts, and one that is missing does not."""
    (tmp_path / "wide").write_text("500\n")
    (tmp_path / "narrow").write_text("20\n")

    def limits(**paths: str) -> None:
        monkeypatch.setattr(kernel, "_WATCH_LIMITS", {name: str(tmp_path / path) for name, path in paths.items()})

    limits(a="wide", b="narrow")
    assert kernel.tightest_watch_limit() == ("b", 20)
    limits(a="wide", b="missing")
    assert kernel.tightest_watch_limit() == ("a", 500)
    limits(a="missing")
    assert kernel.tightest_watch_limit() == ("fs.inotify.max_user_watches", None)
    assert kernel.watch_limit() is None


def test_mount_wakes_and_is_cleared(tmp_path):
    """Readable after a mount, in a loop of its own too, and not any more once it was taken note of."""
    if os.geteuid() != 0:
        pytest.skip("mounts a tmpfs, which needs root")
    changes = kernel.MountChanges()
    loop = select.epoll()
    loop.register(changes.fileno(), select.EPOLLIN)
    try:
        assert loop.poll(0) == []
        mounted = subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=False, capture_output=True)
        if mounted.returncode != 0:
            pytest.skip("may not mount a tmpfs here")
        try:
            assert loop.poll(5)
            changes.clear()
            assert loop.poll(0) == []
        finally:
            subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
        assert loop.poll(5)
    finally:
        loop.close()
        changes.close()


def test_nothing_is_left_open():
    """Both descriptors are given back."""
    before = set(os.listdir("/proc/self/fd"))
    kernel.MountChanges().close()

    assert len(set(os.listdir("/proc/self/fd")) - before) == 0
    assert Path("/proc/self/mountinfo").exists()


@pytest.mark.parametrize(
    ("release", "kind", "is_fine"),
    [
        ("6.13.0", "ext4", True),
        ("6.18.44-fc-v595", "tmpfs", True),
        ("7.0-rc1", "xfs", True),
        ("6.12.9", "ext4", False),
        ("5.14.0-503.el9.x86_64", "xfs", False),
        ("6.18.1", "nfs4", False),
        ("6.18.1", "", False),
        ("strange", "ext4", False),
    ],
)
def test_changes_are_told_apart_only_where_the_kernel_says_so(release, kind, is_fine):
    """What is not known is taken for coarse: that costs a tick, and the other mistake a version."""
    assert kernel._is_fine(release, kind) is is_fine
