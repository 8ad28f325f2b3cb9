"""Runs a command as a container would: on a root of its own that is read-only, as another user, without a capability.

    python jail.py UID NEW_ROOT SOURCE:PLACE[:ro]... -- COMMAND...

SOURCE is seen under PLACE, and nothing but this machine's programs beside it. Uid 0 keeps its capabilities, as a
builder of images has them. Exits with CANNOT and a line that says why where this machine does not allow it.
Source: mount_setattr(2), Linux 5.12; capabilities(7); prctl(2).
"""

import ctypes
import os
import struct
import sys
from pathlib import Path

CANNOT = 77

_NEWNS = 0x00020000
_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000
_RDONLY = 1
_RECURSIVE, _AT_FDCWD = 0x8000, -100
_MOUNT_SETATTR = 442
_CAPBSET_DROP, _NO_NEW_PRIVS = 24, 38
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(code: int) -> None:
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _mount(source: str, place: Path, kind: str, flags: int) -> None:
    _checked(_libc.mount(os.fsencode(source), os.fsencode(place), kind.encode(), flags, None))


def _set_readonly(place: str, *, is_on: bool) -> None:
    """On: of the mount and of all beneath it; off: of this one."""
    attributes = struct.pack("QQQQ", _RDONLY * is_on, _RDONLY * (not is_on), 0, 0)
    flags = _RECURSIVE if is_on else 0
    _checked(_libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(place), flags, attributes, len(attributes)))


def _enter(root: Path, mounts: list[list[str]]) -> None:
    """A root in memory, in which everything is bound to its place; then only what is not `ro` can be written."""
    _checked(_libc.unshare(_NEWNS))
    _mount("none", Path("/"), "", _REC | _PRIVATE)
    _mount("none", root, "tmpfs", 0)
    machine = []
    for name in ("bin", "lib", "lib64", "sbin", "usr", "etc", "dev", "proc"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), root / name)
        elif os.path.isdir(f"/{name}"):
            machine.append([f"/{name}", f"/{name}", "ro"])
    for source, place, *_ in (*machine, *mounts):
        target = root / place.lstrip("/")
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        _mount(source, target, "", _BIND | _REC)
    (root / "tmp").mkdir(mode=0o777, exist_ok=True)
    os.chroot(root)
    os.chdir("/tmp")
    _set_readonly("/", is_on=True)
    for _, place, *flags in mounts:
        if "ro" not in flags:
            _set_readonly(place, is_on=False)


def _drop(uid: int) -> None:
    """Become `uid`, for good."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        _checked(_libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)  # which takes the permitted and effective ones
    _checked(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))


if __name__ == "__main__":
    cut = sys.argv.index("--")
    user, new_root, *shown = sys.argv[1:cut]
    try:
        _enter(Path(new_root), [mount.split(":") for mount in shown])
        if int(user):
            _drop(int(user))
        os.execvp(sys.argv[cut + 1], sys.argv[cut + 1 :])
    except OSError as error:
        sys.stderr.write(f"this machine does not allow it: {error}\n")
        sys.exit(CANNOT)
