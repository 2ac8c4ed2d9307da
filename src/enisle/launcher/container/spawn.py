"""Following a child from its birth until it has become its program, for the first process and for execs alike."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from enisle.launcher.container.failure import GO, MAX_PACKET_BYTES
from enisle.launcher.container.session import ContainerSession, make_pipes
from enisle.launcher.wall import STDOUT, SessionEvents, WallError
from enisle.linux.namespaces import Child
from enisle.wire.frames import close_all

if TYPE_CHECKING:
    from enisle.launcher.container.enter import Entrance
    from enisle.launcher.loop import EpollLoop


class Spawn:
    """The keeper's side of one child's start. Make it, fork, then call ``forked``; ``done`` hears how it went.

    In the child: ``stdio`` and ``channel_fd`` are what to hand over; everything else here is the keeper's.
    """

    def __init__(
        self,
        loop: EpollLoop,
        events: SessionEvents,
        *,
        terminal: bool,
        stdin: bool,
        done: Callable[[ContainerSession | WallError], None],
    ) -> None:
        self._loop = loop
        self._events = events
        self._done: Callable[[ContainerSession | WallError], None] | None = done
        self._is_terminal = terminal
        self._master = -1
        self.stdio: list[int] = []
        self._stdin = -1
        self._outputs: dict[int, int] = {}
        if not terminal:
            self.stdio, self._stdin, self._outputs = make_pipes(stdin=stdin)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._ours, self._theirs = ours, theirs
        self._child: Child | None = None
        self._error: WallError | None = None
        self._executing = False
        self.warnings: list[str] = []
        self.entrance: Entrance | None = None  # who knows what the child's figures mean
        self.root_fd = -1  # the root file system, where it is a new mount; the caller's to keep

    @property
    def channel_fd(self) -> int:
        """The child's end."""
        return self._theirs.fileno()

    def say(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send the child a packet; if it has given up meanwhile, its reason is still to be read."""
        try:
            socket.send_fds(self._ours, [data], fds)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def adopt(self, channel: socket.socket) -> None:
        """Follow a child that was born with a channel of its own."""
        self._ours.close()
        self._ours = channel

    def forked(self, child: Child) -> None:
        """The child is there: close its ends here and listen to it."""
        self._child = child
        self._theirs.close()
        close_all(self.stdio)
        self._loop.add_reader(self._ours.fileno(), self._readable)

    @property
    def is_over(self) -> bool:
        """Whether ``done`` was told already."""
        return self._done is None

    def hand_over(self, fds: list[int]) -> None:
        """Send the child descriptors that it waits for, and close them here."""
        try:
            self.say(b"mounts", fds)
        finally:
            close_all(fds)

    def go(self) -> None:
        """Let a child of our own memory continue past its wait."""
        self.say(GO)

    def abandon(self, error: WallError) -> None:
        """Kill the child, if there is one yet, and report that error."""
        self._error = error
        if self._child is None:
            self._theirs.close()
            close_all(self.stdio)
        else:
            signal.pidfd_send_signal(self._child.pidfd, signal.SIGKILL)
            self._loop.remove(self._ours.fileno())
        self._fail()

    def _readable(self) -> None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._ours, MAX_PACKET_BYTES, 1)
        except ConnectionResetError:
            return  # it ended without having read "go"; what it has sent before comes with the next read
        except OSError:
            data, fds = b"", []
        if not data:
            self._loop.remove(self._ours.fileno())
            self._finish()
            return
        message = json.loads(data)
        if message.get("terminal") and fds and self._master < 0:
            self._master = fds.pop()
        if message.get("root") and fds and self.root_fd < 0:
            self.root_fd = fds.pop()
        if "moved" in message and fds:
            self._follow(Child(message["moved"], fds.pop()))
        close_all(fds)
        self.warnings += message.get("warnings", [])
        self._executing = self._executing or bool(message.get("exec"))
        if self.entrance is not None and ("clamped" in message or "oom_score" in message):
            self.warnings.append(self.entrance.warning(message))
        if self.entrance is not None and "stage" in message:
            self._error = self.entrance.failure(message)
        if "error" in message:
            self._error = WallError(message["kind"], message["error"], message["exit_code"])

    def _follow(self, child: Child) -> None:
        """The program is to be another child of ours; the one we know has done its part."""
        assert self._child is not None
        os.set_inheritable(child.pidfd, False)
        os.waitpid(self._child.pid, 0)
        os.close(self._child.pidfd)
        self._child = child

    def _finish(self) -> None:
        """The channel has closed: the child has become its program, or has given up."""
        assert self._child is not None
        if self._error is None and not self._executing:
            self._error = WallError("internal", "the process ended before its program was reached", 128)
        if self._error is not None:
            self._fail()
            return
        self._ours.close()
        if self._is_terminal:
            self._stdin, self._outputs = self._master, {self._master: STDOUT}
        session = ContainerSession(
            self._loop,
            self._events,
            pid=self._child.pid,
            pidfd=self._child.pidfd,
            stdin=self._stdin,
            outputs=self._outputs,
        )
        self._loop.watch_pidfd(self._child.pid, self._child.pidfd, session.ended)
        self._tell(session)
        session.resume_output()

    def _fail(self) -> None:
        self._ours.close()
        close_all([fd for fd in (self._stdin, self._master, *self._outputs) if fd >= 0])
        if self._child is not None:
            os.waitpid(self._child.pid, 0)
            os.close(self._child.pidfd)
        assert self._error is not None
        self._tell(self._error)

    def _tell(self, result: ContainerSession | WallError) -> None:
        """Once; what the callback holds, the request with the whole plan, is let go."""
        done, self._done = self._done, None
        assert done is not None
        done(result)
