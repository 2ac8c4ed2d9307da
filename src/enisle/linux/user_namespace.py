"""User namespaces made ahead of their use (user_namespaces(7)): a descriptor to enter, or to map a mount's ids by."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NoReturn

from enisle.linux import mounts
from enisle.linux.namespaces import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, clone, open_namespace, setns

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
        write_maps(child.pid, ids, ids)
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


def write_maps(pid: int, uids: Iterable[Sequence[int]], gids: Iterable[Sequence[int]]) -> None:
    """Give the new user namespace of that process its ids; once only."""
    for name, ranges in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges)
        with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:
            file.write(text.encode())


def enter(descriptor: int) -> None:
    """Become root of that user namespace. What we could do outside ends here."""
    setns(descriptor, CLONE_NEWUSER)
    become_root()


def become_root() -> None:
    """Be the root of the user namespace that we are in, instead of an id that is unknown in it."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


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
