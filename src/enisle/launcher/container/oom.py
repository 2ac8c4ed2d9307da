"""Telling of processes that the kernel has killed for want of memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop
    from enisle.linux.cgroup.group import Group

_LOOK_EVERY_S = 0.1
_LOOKS = 30


class OomWatch:
    """``tell`` is called once for each time that more processes were killed. Made without cost, until ``start``."""

    def __init__(self, loop: EpollLoop, group: Group, tell: Callable[[], None]) -> None:
        self._loop = loop
        self._group = group
        self._tell = tell
        self._fd = -1
        self._told = 0
        self._looking = False

    def start(self) -> None:
        """Watch from now on, if the kernel can tell; once is enough."""
        if self._fd < 0:
            self._fd = self._group.oom_event_fd()
            if self._fd >= 0:
                self._loop.add_reader(self._fd, self._event)

    def close(self) -> None:
        """End it; nothing more is told."""
        if self._fd >= 0:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _event(self) -> None:
        os.read(self._fd, 4096)
        if not self._looking:
            self._looking = True
            self._look(_LOOKS)

    def _look(self, looks: int) -> None:
        """cgroup v1 tells that memory is short before it kills, and v2 of much else: so it is looked for a while."""
        if self._fd < 0:
            return
        kills = self._group.oom_kills()
        if kills <= self._told and looks:
            self._loop.call_later(_LOOK_EVERY_S, lambda: self._look(looks - 1))
            return
        self._looking = False
        if kills > self._told:
            self._told = kills
            self._tell()
