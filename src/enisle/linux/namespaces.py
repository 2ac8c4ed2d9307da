"""Namespaces: flags, creating a process in new ones (clone3), entering existing ones (setns)."""

from __future__ import annotations

import ctypes
import errno
import os
import select
from dataclasses import dataclass

from enisle.linux.syscalls import c_function, fail, syscall

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_CLONE_PIDFD = 0x00001000
_CLONE_PARENT = 0x00008000
_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17

FLAGS = {
    "mnt": CLONE_NEWNS,
    "cgroup": CLONE_NEWCGROUP,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "net": CLONE_NEWNET,
}


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


# The lock of the interpreter is kept over the call, so that the child comes back holding it as its only thread.
_clone3 = syscall("clone3", ctypes.POINTER(_CloneArgs), ctypes.c_size_t, keep_gil=True)
_clone = syscall("clone", ctypes.c_ulong, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), keep_gil=True)
_setns = c_function("setns", ctypes.c_int, ctypes.c_int)
_unshare = c_function("unshare", ctypes.c_int)


@dataclass(slots=True)
class Child:
    """A new process as its parent sees it; ``pidfd`` is close-on-exec and the caller's to close."""

    pid: int
    pidfd: int

    def ends_within(self, limit_s: float) -> bool:
        """Whether it has ended, or does by then; its exit status is still to be read."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(limit_s * 1000))


def clone(flags: int, *, cgroup_fd: int = -1) -> Child | None:
    """Fork into the new namespaces of ``flags``; None in the child, which must end by exec or os._exit.

    Only for single-threaded processes: no fork handlers run. ``cgroup_fd``: a cgroup v2 directory to be born in.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(
        flags=flags | _CLONE_PIDFD, pidfd=ctypes.cast(ctypes.byref(pidfd), ctypes.c_void_p).value, exit_signal=_SIGCHLD
    )
    if cgroup_fd >= 0:
        arguments.flags |= _CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    pid = _clone3(ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid < 0:
        raise fail("clone3")
    if pid == 0:
        return None
    return Child(pid, pidfd.value)


def clone_sibling() -> Child | None:
    """Fork a child of our own parent, which is to reap it; None in the child. As ``clone`` otherwise.

    By clone(2), which filters of containers permit; its third argument is the same on every architecture.
    """
    pidfd = ctypes.c_int(-1)
    pid = _clone(_CLONE_PARENT | _CLONE_PIDFD | _SIGCHLD, None, ctypes.byref(pidfd))
    if pid < 0:
        raise fail("clone")
    return Child(pid, pidfd.value) if pid else None


def setns(fd: int, flags: int) -> None:
    """Enter the namespaces of ``flags`` of a process (pidfd, all at once or none) or one namespace file.

    CLONE_NEWPID takes effect for children only.
    """
    if _setns(fd, flags) < 0:
        raise fail(f"setns {flags:#x}")


def unshare(flags: int) -> None:
    """Move this process into new namespaces of its own."""
    if _unshare(flags) < 0:
        raise fail(f"unshare {flags:#x}")


def open_namespace(pid: int, kind: str) -> int:
    """A descriptor of that process's namespace; ``kind`` as in FLAGS. Raises ProcessLookupError when it is gone."""
    try:
        return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ProcessLookupError(errno.ESRCH, "no such process", str(pid)) from error
