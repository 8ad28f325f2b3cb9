"""What this machine's kernel tells: its limits, and the file systems that are mounted; None or '' where it does not.

Source: inotify(7), user_namespaces(7), proc_pid_mountinfo(5) (its POLLPRI: a mount was added or removed),
"Multigrain timestamps" of the kernel's documentation.
"""

import functools
import os
import re
import select
from pathlib import Path

_WATCH_LIMITS = {
    "fs.inotify.max_user_watches": "/proc/sys/fs/inotify/max_user_watches",
    "user.max_inotify_watches": "/proc/sys/user/max_inotify_watches",
}
"""The second is that of a user namespace. Containers share both with their host's user, or with their namespace."""

_REMOTE = {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "fakeowner", "fuse", "gfs2", "gpfs", "lustre", "ncpfs"}
_REMOTE |= {"nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"}
"""Others than this kernel may change what is in these. `fuseblk` is not among them: it is a local disk."""


_FINE_SINCE = (6, 13)
_FINE = {"btrfs", "ext4", "tmpfs", "xfs"}
"""Where the kernel stamps finely what was looked at since the last change. Elsewhere all of a tick have one stamp."""


def watch_limit() -> int | None:
    """How many inotify watches one user may hold."""
    return tightest_watch_limit()[1]


def tightest_watch_limit() -> tuple[str, int | None]:
    """The sysctl that ends first, and its value."""
    limits = [(value, name) for name, path in _WATCH_LIMITS.items() if (value := _number(path)) is not None]
    value, name = min(limits, default=(None, "fs.inotify.max_user_watches"))
    return name, value


def event_queues() -> int | None:
    """How many inotify queues one user may have."""
    return _number("/proc/sys/fs/inotify/max_user_instances")


def queued_events() -> int | None:
    """How many events a queue holds before it throws the next ones away."""
    return _number("/proc/sys/fs/inotify/max_queued_events")


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def file_system(device: int) -> str:
    """The type of the file system with this st_dev, such as `ext4` or `nfs4`; '' where the kernel does not tell."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    return file_system_in(mounts, device)


def file_system_in(mountinfo: str, device: int) -> str:
    """As `file_system`, from the text of /proc/self/mountinfo."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mountinfo.splitlines():
        place, _, source = line.partition(" - ")
        fields = place.split(" ")
        if len(fields) > 2 and fields[2] == number:
            return source.partition(" ")[0]
    return ""


def is_remote(file_system: str) -> bool:
    """Whether other machines may change what is in such a file system: their changes make no event here."""
    return file_system.partition(".")[0] in _REMOTE


@functools.lru_cache(maxsize=64)
def tells_changes_apart(device: int) -> bool:
    """Whether two changes of a file on this st_dev have two ctimes, if it was looked at in between, however soon."""
    return _is_fine(os.uname().release, file_system(device))


def _is_fine(release: str, file_system: str) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _FINE_SINCE and file_system in _FINE


class MountChanges:
    """Readable when a mount was added or removed since the last `clear`. Raises OSError where there is no /proc."""

    def __init__(self) -> None:
        fd = os.open("/proc/self/mountinfo", os.O_RDONLY)
        try:
            # An event loop waits for readable descriptors only; this one never is one, it has exceptional news.
            self._epoll = select.epoll(1)
            self._epoll.register(fd, select.EPOLLPRI)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def fileno(self) -> int:
        return self._epoll.fileno()

    def clear(self) -> None:
        """Take note of what happened until now."""
        self._epoll.poll(0)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._fd)
