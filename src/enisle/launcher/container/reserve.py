"""The first process of a container as the program in C (program/birth.c), and one born ahead of need.

A reserve waits in the namespaces that nearly every container wants, with the file systems created that it will mount.
Making those takes longer than all that is left to do once the plan is known.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from enisle.launcher.container import program, setup
from enisle.launcher.container.enter import Stage
from enisle.launcher.container.failure import MAX_PACKET_BYTES, ChildFailure, reason_of
from enisle.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUTS, Child
from enisle.wire.frames import close_all
from enisle.wire.plans import NamespacePlan

_FLAGS = CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUTS


@dataclass(slots=True)
class Newborn:
    """It waits for its steps. ``channel``: our end of the socket to it; it ends when that is closed before them."""

    child: Child
    channel: socket.socket

    def discard(self) -> None:
        """End it and wait for that."""
        self.channel.close()
        signal.pidfd_send_signal(self.child.pidfd, signal.SIGKILL)  # not reaped yet, so it is there at least as that
        os.waitpid(self.child.pid, 0)
        os.close(self.child.pidfd)


def bear(entering: int, flags: int, joined: dict[str, int], cgroup_fd: int = -1, *, ahead: bool = False) -> Newborn:
    """Have one born. ``entering``: a descriptor of the program. ``flags``: CLONE_NEW* of the namespaces that are to be
    its own; ``joined``: kind -> descriptor of others; ``cgroup_fd``: a cgroup of v2. All stay the caller's. ``ahead``:
    whether it has time to create what nearly every container mounts.

    OSError, ChildFailure.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        with theirs:
            pid = program.start(entering, program.FIRST, [theirs.fileno()], ())
        fds = [*joined.values(), *([cgroup_fd] if cgroup_fd >= 0 else [])]
        try:
            request = setup.birth_request(flags, len(joined), in_cgroup=cgroup_fd >= 0, ahead=ahead)
            socket.send_fds(ours, [request], fds)
            return Newborn(_receive(ours, list(joined)), ours)
        finally:
            os.waitpid(pid, 0)  # that was its parent, which ends at once
    except BaseException:
        ours.close()
        raise


def _receive(channel: socket.socket, joined: Sequence[str]) -> Child:
    data, fds, _flags, _address = socket.recv_fds(channel, MAX_PACKET_BYTES, 1)
    message = json.loads(data) if data else {}
    if "born" in message and fds:
        os.set_inheritable(fds[0], False)
        return Child(message["born"], fds[0])
    close_all(fds)
    error = OSError(message.get("errno", 0), "")
    if message.get("stage") == Stage.JOIN:
        raise ChildFailure(f"cannot join the {joined[message['which']]} namespace: {reason_of(error)}")
    if message.get("stage") == Stage.BIRTH:
        raise ChildFailure(f"clone3: {reason_of(error)}")
    raise ChildFailure("the first process ended before it was born", kind="internal")


def make_reserve(entering: int) -> Newborn | None:
    """Have one born ahead of need; None where no process or namespace is to be had."""
    try:
        return bear(entering, _FLAGS, {}, ahead=True)
    except (OSError, ChildFailure):
        return None


def suits(wanted: NamespacePlan) -> bool:
    """Whether a reserve has the namespaces that a container wants; those not named here are made later anyway."""
    return wanted.net == wanted.pid == wanted.ipc == wanted.uts == "private" and wanted.user == "host"
