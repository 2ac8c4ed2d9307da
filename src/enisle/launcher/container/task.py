"""A piece of work in a child of its own, whose result comes back over a socket: the keeper's loop never waits."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.launcher.container.execute import reset_signals
from enisle.launcher.container.failure import MAX_FDS
from enisle.launcher.descriptors import keep_only
from enisle.launcher.loop import report_exception
from enisle.launcher.wall import WallError
from enisle.linux.syscalls import PR_SET_PDEATHSIG, prctl

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop

Answer = dict[str, Any]
Work = Callable[[], Answer]


class Task:
    """Runs ``work`` in a forked child that keeps the descriptors ``kept``; ``done`` gets its answer.

    ``pid`` is 0 once it has ended.
    ``work`` may raise WallError; OSError is reported with its object. An answer's "fds" entry names descriptors that
    are sent along and given to ``done`` as numbers of ours. ``kept`` stay the caller's here.
    """

    def __init__(
        self, loop: EpollLoop, work: Work, kept: list[int], done: Callable[[Answer | WallError], None]
    ) -> None:
        self._loop = loop
        self._done = done
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            _run(work, theirs, kept)
        theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._data = bytearray()
        self._fds: list[int] = []
        loop.add_reader(ours.fileno(), self._readable)

    def kill(self) -> None:
        """End it, if it has not ended; ``done`` gets an error then."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # not reaped before _finish, so the pid is still its own

    def _readable(self) -> None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._socket, 1 << 16, MAX_FDS)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._fds += fds
        self._data += data
        if not data:
            self._finish()

    def _finish(self) -> None:
        self._loop.remove(self._socket.fileno())
        self._socket.close()
        os.waitpid(self.pid, 0)
        self.pid = 0
        try:
            answer = json.loads(self._data)
        except ValueError:
            self._done(WallError("internal", "the work was broken off"))
            return
        if "error" in answer:
            self._done(WallError(answer["kind"], answer["error"], answer.get("exit_code", 0)))
            return
        if self._fds:
            answer["fds"] = self._fds
        self._done(answer)


def _run(work: Work, channel: socket.socket, kept: list[int]) -> None:
    """In the child. Does not return."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        reset_signals()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        keep_only([*kept, channel.fileno()])
        try:
            answer = work()
        except WallError as error:
            answer = {"error": error.message, "kind": error.kind, "exit_code": error.exit_code}
        except OSError as error:
            name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
            answer = {"error": f"{name}{(error.strerror or str(error)).lower()}", "kind": kind_of(error)}
        except Exception as error:
            report_exception()
            answer = {"error": str(error) or repr(error), "kind": "invalid"}
        fds = answer.pop("fds", None)
        data = json.dumps(answer).encode()
        sent = socket.send_fds(channel, [data], fds) if fds else 0
        channel.sendall(data[sent:])
    finally:
        os._exit(0)


def kind_of(error: OSError) -> str:
    """The kind of failure that an errno stands for."""
    if isinstance(error, FileNotFoundError):
        return "not_found"
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return "exhausted"
    if error.errno in (1, 13, 30):  # EPERM, EACCES, EROFS
        return "denied"
    return "invalid"
