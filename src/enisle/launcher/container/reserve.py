"""A first process born ahead of need, in the namespaces that nearly every container wants, waiting for its plan.

Making those namespaces and the first use of its memory take longer than all that is left to do once the plan is known.
Its mount namespace is not made before: what is mounted on the host meanwhile could not be bound from it.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from enisle.launcher.container.child import become_reserve
from enisle.launcher.container.failure import MAX_PACKET_BYTES
from enisle.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUTS, Child, clone
from enisle.wire.plans import NamespacePlan

_FLAGS = CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWUTS


@dataclass(slots=True)
class Reserve:
    """``channel``: our end of the socket to it; it ends when that is closed without a plan having been sent."""

    child: Child
    channel: socket.socket

    def give(self, plan: bytes, stdio: list[int]) -> bool:
        """Send it its plan, as JSON. False when it cannot be used (a longer plan is cloned for): discard it then."""
        if len(plan) > MAX_PACKET_BYTES:
            return False
        try:
            return socket.send_fds(self.channel, [plan], stdio) == len(plan)
        except OSError:
            return False

    def discard(self) -> None:
        """End it and wait for that."""
        self.channel.close()
        signal.pidfd_send_signal(self.child.pidfd, signal.SIGKILL)  # not reaped yet, so it is there at least as that
        os.waitpid(self.child.pid, 0)
        os.close(self.child.pidfd)


def make_reserve(rehearse: Callable[[], Callable[[], None]], entering: int) -> Reserve | None:
    """Make one, which calls ``rehearse`` before it waits, and its result before it becomes its program. None where no
    process or namespace is to be had. ``entering``: as of wall.ContainerWall."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        child = clone(_FLAGS)
    except OSError:
        ours.close()
        theirs.close()
        return None
    if child is None:
        become_reserve(theirs.fileno(), rehearse, entering)
    theirs.close()
    return Reserve(child, ours)


def suits(wanted: NamespacePlan) -> bool:
    """Whether a reserve has the namespaces that a container wants; those not named here are made later anyway."""
    return wanted.net == wanted.pid == wanted.ipc == wanted.uts == "private" and wanted.user == "host"
