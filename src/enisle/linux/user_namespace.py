"""User namespaces made ahead of their use (user_namespaces(7)): a descriptor to enter, or to map a mount's ids by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from enisle.linux import mounts
from enisle.linux.namespaces import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, clone, open_namespace

_PROC_REFUSED = 3

IdMap = Sequence[tuple[int, int, int]]
"""(first id inside, first id outside, how many) of each range."""


def make(ids: IdMap) -> int:
    """A descriptor of a new user namespace; users and groups are mapped alike.

    OSError: this kernel or host makes none, or a process in it could not mount a /proc (which the kernel refuses where
    parts of ours are hidden by other mounts), so that a program which wants a process namespace of its own would fail.
    """
    waiting, go = os.pipe2(os.O_CLOEXEC)
    child = clone(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS)
    if child is None:
        _try_proc(waiting, go)
    os.close(waiting)
    descriptor = -1
    try:
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child.pid}/{name}", "wb") as file:
                file.write(b"".join(b"%d %d %d\n" % each for each in ids))
        descriptor = open_namespace(child.pid, "user")
        os.write(go, b"1")
    finally:
        os.close(go)  # without a byte it ends at once
        _, status = os.waitpid(child.pid, 0)
        os.close(child.pidfd)
    if os.waitstatus_to_exitcode(status) != 0:
        os.close(descriptor)
        raise OSError("a process in a user namespace cannot mount a /proc of its own here")
    return descriptor


def _try_proc(waiting: int, go: int) -> NoReturn:
    """In the namespace's first process, until told; does not return."""
    code = _PROC_REFUSED
    try:
        os.close(go)
        if os.read(waiting, 1):
            mounts.mount("proc", "/proc", "proc")
            code = 0
    finally:
        os._exit(code)
