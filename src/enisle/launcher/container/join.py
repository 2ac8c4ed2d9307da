"""A further process in a running container (docker exec): everything between the fork and exec."""

from __future__ import annotations

import functools
import os
import signal
from dataclasses import dataclass
from typing import NoReturn

from enisle.launcher.container.execute import (
    execute,
    lower_oom_priority,
    open_container_ptmx,
    reset_signals,
    take_terminal,
    watch_for_imports,
)
from enisle.launcher.container.failure import PREFIX_EXEC, Channel
from enisle.launcher.descriptors import keep_only, place
from enisle.linux import terminals, user_namespace
from enisle.linux.cgroup.group import Group
from enisle.linux.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    clone_sibling,
    setns,
)
from enisle.linux.syscalls import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, join_new_session_keyring, prctl
from enisle.wire.plans import ProcessPlan

_CHANNEL = 3
ALL = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
"""The namespaces that one joins by itself; that for pids is one's parent's to choose."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """What the child gets from its keeper besides the plan.

    ``stdio``: as of child.Birth. ``group``: to be joined; None where clone3 has done that.
    ``has_own_users``: whether the container has a user namespace of its own. ``hidden``: it was not born in the
    container's pid namespace, and is to be seen there only once it has the rights of its program.
    """

    channel_fd: int
    stdio: list[int]
    init_pidfd: int
    group: Group | None
    has_own_users: bool = False
    hidden: bool = False


def become_further_process(process: ProcessPlan, entry: Entry) -> NoReturn:
    """Enter the container and exec. Failures go to the keeper."""
    prctl(PR_SET_DUMPABLE, 0)  # before anybody inside can see us (CVE-2016-9962)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    place([*(entry.stdio or [null, null, null]), entry.channel_fd])
    os.set_inheritable(_CHANNEL, False)
    keep_only([entry.init_pidfd], first=_CHANNEL + 1)
    channel = Channel(_CHANNEL)
    try:
        reset_signals()
        if not entry.hidden:
            os.setsid()
        warnings = lower_oom_priority(process.oom_score_adj)
        join_new_session_keyring()
        if entry.group is not None:
            entry.group.add(0)
        watch_for_imports(channel)
        setns(entry.init_pidfd, _namespaces(entry))
        os.close(entry.init_pidfd)
        if entry.has_own_users:
            user_namespace.become_root()
            prctl(PR_SET_DUMPABLE, 0)
        slave = _open_terminal(channel) if process.terminal else -1
        if slave >= 0 and not entry.hidden:
            take_terminal(slave, process.terminal_size)
        appear = functools.partial(_appear, process, channel, slave) if entry.hidden else None
        execute(process, channel, warnings, appear=appear)
    except BaseException as error:
        channel.fail(error, PREFIX_EXEC)
    os._exit(1)


def _namespaces(entry: Entry) -> int:
    flags = ALL | (CLONE_NEWUSER if entry.has_own_users else 0)
    return flags | (CLONE_NEWPID if entry.hidden else 0)  # which is for children: see _appear


def _open_terminal(channel: Channel) -> int:
    master, slave = terminals.open_pair(open_container_ptmx())
    channel.send({"terminal": True}, [master])
    os.close(master)
    return slave


def _appear(process: ProcessPlan, channel: Channel, slave: int) -> None:
    """Go on as a child in the container's pid namespace. Who may trace there could take over whatever comes with more
    rights than its own: being undumpable does not stop CAP_SYS_PTRACE.
    """
    child = clone_sibling()
    if child is not None:
        channel.send({"moved": child.pid}, [child.pidfd])
        os._exit(0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    if slave >= 0:
        take_terminal(slave, process.terminal_size)
