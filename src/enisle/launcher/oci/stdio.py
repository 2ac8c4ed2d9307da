"""The stdio of a session whose process a runtime starts: the runtime hands on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enisle.launcher.container.session import ContainerSession, make_pipes
from enisle.launcher.wall import STDOUT, SessionEvents
from enisle.wire.frames import close_all

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop


class RuntimeStdio:
    """``theirs``: stdin, stdout and stderr for the runtime; nothing for a terminal, which comes from it."""

    def __init__(self, *, terminal: bool, stdin: bool) -> None:
        self.theirs: list[int] = []
        self._stdin = -1
        self._outputs: dict[int, int] = {}
        if not terminal:
            self.theirs, self._stdin, self._outputs = make_pipes(stdin=stdin)

    def close_theirs(self) -> None:
        """The runtime has them. Idempotent."""
        theirs, self.theirs = self.theirs, []
        close_all(theirs)

    def session(
        self, loop: EpollLoop, events: SessionEvents, *, pid: int, pidfd: int, master: list[int]
    ) -> ContainerSession:
        """The session of the process, which owns our ends from now on. ``master``: of its terminal, if it has one."""
        if master:
            self._stdin, self._outputs = master[0], {master[0]: STDOUT}
        return ContainerSession(loop, events, pid=pid, pidfd=pidfd, stdin=self._stdin, outputs=self._outputs)

    def close(self) -> None:
        """No process came of it."""
        self.close_theirs()
        close_all([fd for fd in (self._stdin, *self._outputs) if fd >= 0])
