"""System calls that Python has no function for, through the C library that is already loaded.

Every function raises OSError with the call's errno. All prototypes are made when this module is imported: a process
that has entered a foreign root must not load anything any more.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

# Numbers from 424 on are the same on every architecture (asm-generic/unistd.h); older ones are not.
_OLD_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "keyctl": 250, "bpf": 321},
    "aarch64": {"clone": 220, "pivot_root": 41, "keyctl": 219, "bpf": 280},
}
_NUMBERS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    **_OLD_NUMBERS.get(os.uname().machine, _OLD_NUMBERS["x86_64"]),
}

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECUREBITS = 28
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_KEYCTL_JOIN_SESSION_KEYRING = 1


def fail(what: str = "") -> OSError:
    """The OSError of the call that has just failed; ``what`` names its object."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what) if what else OSError(number, os.strerror(number))


def syscall(name: str, *argument_types: Any, keep_gil: bool = False) -> Callable[..., int]:
    """A function that makes the system call of that name and returns its result, -1 for failure."""
    library: Any = ctypes.PyDLL(None, use_errno=True) if keep_gil else _libc
    function = library["syscall"]  # by index: a new function object, whose prototype is ours alone
    function.argtypes = [ctypes.c_long, *argument_types]
    function.restype = ctypes.c_long
    number = _NUMBERS[name]
    return lambda *arguments: int(function(number, *arguments))


def c_function(name: str, *argument_types: Any) -> Callable[..., int]:
    """The C library's function of that name, returning int."""
    function = _libc[name]
    function.argtypes = list(argument_types)
    function.restype = ctypes.c_int
    return function


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_openat2 = syscall("openat2", ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_OpenHow), ctypes.c_size_t)
_close_range = syscall("close_range", ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_pivot_root = syscall("pivot_root", ctypes.c_char_p, ctypes.c_char_p)
_keyctl = syscall("keyctl", ctypes.c_int, ctypes.c_void_p)
_bpf = syscall("bpf", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
_prctl = c_function("prctl", ctypes.c_int, *[ctypes.c_ulong] * 4)
_prctl_name = c_function("prctl", ctypes.c_int, ctypes.c_char_p)
_sethostname = c_function("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_malloc_trim = c_function("malloc_trim", ctypes.c_size_t)
_setdomainname = c_function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)

PathLike = str | bytes


def openat2(dirfd: int, path: PathLike, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """Open relative to ``dirfd`` under the RESOLVE_* rules (openat2(2)); the descriptor is close-on-exec.

    EXDEV: the path would leave ``dirfd``; ELOOP: a link that the rules forbid; EAGAIN: renames raced, try again.
    """
    name = os.fsencode(path)
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _attempt in range(64):
        fd = _openat2(dirfd, name, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in (11, 4):  # EAGAIN: a rename elsewhere made the walk unsure (openat2(2)); EINTR
            break
    raise fail(os.fsdecode(name))


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor from ``first`` to ``last``."""
    if _close_range(first, last, 0) < 0:
        raise fail()


def pivot_root(new_root: PathLike, put_old: PathLike) -> None:
    """Make ``new_root`` the root of this mount namespace (pivot_root(2))."""
    if _pivot_root(os.fsencode(new_root), os.fsencode(put_old)) < 0:
        raise fail(os.fsdecode(new_root))


def prctl(option: int, argument2: int = 0, argument3: int = 0, argument4: int = 0, argument5: int = 0) -> int:
    """prctl(2) with integer arguments."""
    result = _prctl(option, argument2, argument3, argument4, argument5)
    if result < 0:
        raise fail(f"prctl {option}")
    return result


def set_process_name(name: str) -> None:
    """The name that ps and top show; cut to 15 bytes."""
    if _prctl_name(PR_SET_NAME, name.encode()[:15]) < 0:
        raise fail("process name")


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def set_seccomp_filter(program: bytes) -> None:
    """Install a BPF filter, given as an array of struct sock_filter, for this thread and what it execs."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    if _prctl(PR_SET_SECCOMP, 2, ctypes.addressof(header), 0, 0) < 0:
        raise fail("seccomp filter")


def join_new_session_keyring() -> None:
    """Leave the session keyring inherited from whoever started us. Kernels without keys are silently fine."""
    if _keyctl(_KEYCTL_JOIN_SESSION_KEYRING, None) < 0 and ctypes.get_errno() not in (38, 1):  # ENOSYS, EPERM
        raise fail("session keyring")


def bpf(command: int, attributes: ctypes.Structure) -> int:
    """bpf(2); the result is a descriptor for commands that give one."""
    result = _bpf(command, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if result < 0:
        raise fail(f"bpf {command}")
    return result


def give_back_freed_memory() -> None:
    """Return to the kernel what the C library's heap holds free (malloc_trim(3))."""
    _malloc_trim(0)


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    data = name.encode()
    if _sethostname(data, len(data)) < 0:
        raise fail(name)


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    data = name.encode()
    if _setdomainname(data, len(data)) < 0:
        raise fail(name)
