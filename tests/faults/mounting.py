"""Mounts for children that have a mount namespace of their own: see the fixture `in_namespaces`."""

import ctypes
import os
from pathlib import Path

_RDONLY, _REMOUNT, _BIND = 0x1, 0x20, 0x1000
_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def mount_memory(path: Path, options: str) -> None:
    """An empty file system in memory, such as `size=1m,nr_inodes=10`."""
    _mount(b"none", path, b"tmpfs", 0, options.encode())


def bind(source: Path, path: Path, *, is_read_only: bool = False) -> None:
    """The directory `source` once more, at `path`."""
    _mount(os.fsencode(source), path, None, _BIND, None)
    if is_read_only:
        _mount(None, path, None, _BIND | _REMOUNT | _RDONLY, None)


def unmount(path: Path) -> None:
    """Whatever is mounted at `path` goes, even where somebody still has it open."""
    if _libc.umount2(os.fsencode(path), _DETACH):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


def _mount(source: bytes | None, path: Path, kind: bytes | None, flags: int, options: bytes | None) -> None:
    if _libc.mount(source, os.fsencode(path), kind, ctypes.c_ulong(flags), options):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
