"""Runs a child under ptrace(2) and counts what it does to files, over all its threads; kills it or makes a call fail.

The kernel's filter stops the child only at the calls of the table, on their way in. strace can inject as well, but
counts each thread by itself, so "the twelfth change to anything" cannot be said to it.
Source: ptrace(2), "PTRACE_EVENT_SECCOMP stop"; seccomp(2), SECCOMP_RET_TRACE; linux/audit.h.
"""

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

CANNOT = "" if platform.machine() == "x86_64" else "the tracer knows the system calls of x86_64 only"
"""Why it cannot run here, or ''."""

_BY_FD = {"read": 0, "write": 1, "pread64": 17, "pwrite64": 18, "writev": 20, "sendto": 44, "recvfrom": 45}
_BY_FD |= {"fsync": 74, "fdatasync": 75, "ftruncate": 77, "fchmod": 91}
_BY_PATH = {"open": 2, "truncate": 76, "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87, "chmod": 90}
_BY_DIR_FD = {"openat": 257, "mkdirat": 258, "unlinkat": 263, "fchmodat": 268, "utimensat": 280}
_TWO_DIR_FDS = {"renameat": 264, "linkat": 265, "renameat2": 316}
_TARGET_AND_DIR_FD = {"symlinkat": 266}

_NUMBERS = _BY_FD | _BY_PATH | _BY_DIR_FD | _TWO_DIR_FDS | _TARGET_AND_DIR_FD
_NAMES = {number: name for name, number in _NUMBERS.items()}
_HARMLESS = {"read", "pread64", "sendto", "recvfrom"}
_O_CHANGING = os.O_CREAT | os.O_TRUNC | os.O_TMPFILE & ~os.O_DIRECTORY
_AT_FDCWD = -100

_TRACEME, _CONT, _GETREGS, _SETREGS, _SETOPTIONS = 0, 7, 12, 13, 0x4200
_OPTIONS = 0x2 | 0x4 | 0x8 | 0x80 | 0x100000  # fork, vfork, clone, seccomp; what is traced ends with its tracer
_EVENT_SECCOMP = 7
_WALL = 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 1, 22, 38, 2
_AUDIT_ARCH_X86_64 = 0xC000003E
_RET_TRACE, _RET_ALLOW = 0x7FF00000, 0x7FFF0000


class _Registers(ctypes.Structure):
    _names = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base"
    _fields_ = [(name, ctypes.c_ulonglong) for name in (*_names.split(), "ds", "es", "fs", "gs")]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, tid: int, what: Any = None) -> None:
    if _libc.ptrace(request, tid, None, what) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(frozen=True)
class Call:
    """One call on its way in. Paths are relative to the home, sockets have the name the kernel gives them."""

    name: str
    path: str
    second_path: str = ""
    is_change: bool = False
    """It would change a file beneath the home."""


@dataclass(frozen=True)
class Plan:
    """What is to happen to the child."""

    kill_at: int = 0
    """SIGKILL before the change of this number, from 1; 0 for none."""
    failing: str = ""
    """The name of a call that fails ..."""
    where: str = "*"
    """... on a path of this form ..."""
    errno: int = 0
    """... with this error; 0: the child is killed before it ..."""
    after: int = 0
    """... once so many of them went well ..."""
    times: int = 1
    """... so many times."""


def end_with_parent() -> None:
    """Called in the child: whatever ends the parent ends it, too."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def let_be_traced() -> None:
    """Called in the child: wait for the tracer, then stop at each call of the table."""
    _ptrace(_TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    load, jump, give = 0x20, 0x15, 0x06
    numbers = sorted(_NAMES)
    lines = [(load, 0, 0, 4), (jump, 0, len(numbers) + 1, _AUDIT_ARCH_X86_64), (load, 0, 0, 0)]
    lines += [(jump, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    lines += [(give, 0, 0, _RET_ALLOW), (give, 0, 0, _RET_TRACE)]
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(lines), ctypes.addressof(text)))
    for option, argument, more in ((_PR_SET_NO_NEW_PRIVS, 1, None), (_PR_SET_SECCOMP, _MODE_FILTER, program)):
        if _libc.prctl(option, argument, more, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def trace(child: int, home: str, plan: Plan) -> tuple[int, list[Call]]:
    """Watch a child that lets itself be traced until it has ended: its exit code, and all it did beneath `home`."""
    _, status = os.waitpid(child, _WALL)
    if not os.WIFSTOPPED(status):
        return os.waitstatus_to_exitcode(status), []
    _ptrace(_SETOPTIONS, child, _OPTIONS)
    _ptrace(_CONT, child)
    calls: list[Call] = []
    deal = _dealer(child, home, plan, calls)
    while True:
        tid, status = os.waitpid(-1, _WALL)
        if not os.WIFSTOPPED(status):
            if tid == child:
                return os.waitstatus_to_exitcode(status), calls
            continue
        try:
            if status >> 16 == _EVENT_SECCOMP:
                deal(tid)
            number = os.WSTOPSIG(status)
            is_own = status >> 16 or number in (signal.SIGTRAP, signal.SIGSTOP)
            _ptrace(_CONT, tid, 0 if is_own else int(number))
        except (ProcessLookupError, FileNotFoundError):
            continue  # killed meanwhile


def _dealer(child: int, home: str, plan: Plan, calls: list[Call]) -> Callable[[int], None]:
    changes = failures = 0

    def deal(tid: int) -> None:
        nonlocal changes, failures
        registers = _Registers()
        _ptrace(_GETREGS, tid, ctypes.byref(registers))
        call = _call(tid, registers, home)
        if call is None:
            return
        calls.append(call)
        changes += call.is_change
        if call.is_change and changes == plan.kill_at:
            os.kill(child, signal.SIGKILL)
        paths = (call.path, call.second_path or call.path)
        if call.name != plan.failing or not any(fnmatch(path, plan.where) for path in paths):
            return
        failures += 1
        if not plan.after < failures <= plan.after + plan.times:
            return
        if not plan.errno:
            os.kill(child, signal.SIGKILL)
        else:
            registers.orig_rax, registers.rax = 2**64 - 1, 2**64 - plan.errno
            _ptrace(_SETREGS, tid, ctypes.byref(registers))

    return deal


def _call(tid: int, registers: _Registers, home: str) -> Call | None:
    """None where it is about nothing beneath `home` and no socket."""
    name = _NAMES[registers.orig_rax]
    first, second, third, fourth = registers.rdi, registers.rsi, registers.rdx, registers.r10
    paths = []
    is_change = name not in _HARMLESS
    if name in _BY_FD:
        paths = [_opened(tid, first)]
    elif name in _BY_PATH:
        paths = [_named(tid, _AT_FDCWD, first)]
        paths += [_named(tid, _AT_FDCWD, second)] if name in ("rename", "link") else []
        is_change = name != "open" or bool(second & _O_CHANGING)
    elif name in _TARGET_AND_DIR_FD:
        paths = [_named(tid, second, third)]
    else:
        paths = [_named(tid, first, second) if second else _opened(tid, first)]
        paths += [_named(tid, third, fourth)] if name in _TWO_DIR_FDS else []
        is_change = name != "openat" or bool(third & _O_CHANGING)
    if paths[0].startswith("socket:"):
        return Call(name, paths[0])
    if not any(path.startswith(f"{home}/") for path in paths):
        return None
    first_path, second_path = (*(path.removeprefix(f"{home}/") for path in paths), "")[:2]
    return Call(name, first_path, second_path, is_change)


def _opened(tid: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{tid}/fd/{ctypes.c_int(fd).value}")
    except OSError:
        return ""


def _named(tid: int, fd: int, address: int) -> str:
    with open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        # A name may end right before a page that is not there.
        text = memory.read(4096 - address % 4096)
        if b"\0" not in text:
            text += memory.read(4096)
    name = os.fsdecode(text.partition(b"\0")[0])
    if name.startswith("/"):
        return name
    beside = os.readlink(f"/proc/{tid}/cwd") if ctypes.c_int(fd).value == _AT_FDCWD else _opened(tid, fd)
    return f"{beside}/{name}" if name else beside
