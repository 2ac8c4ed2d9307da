"""A network namespace that is there before the container, to be named in its description."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from enisle.launcher.descriptors import keep_only
from enisle.linux.namespaces import CLONE_NEWNET, clone
from enisle.linux.syscalls import PR_SET_PDEATHSIG, prctl


class NetworkHolder:
    """A process that does nothing but hold it. ``end`` before the keeper's own end is a must."""

    def __init__(self) -> None:
        child = clone(CLONE_NEWNET)
        if child is None:
            _hold()
        self.pid, self._pidfd = child.pid, child.pidfd

    def end(self) -> None:
        """Once the container has the namespace, or will not come."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._pidfd)


def _hold() -> NoReturn:
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        keep_only([], first=0)
        while True:
            signal.pause()
    finally:
        os._exit(0)
