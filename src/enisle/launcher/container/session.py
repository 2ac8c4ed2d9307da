"""One process of a container with its stdio: over pipes, or over a terminal."""

from __future__ import annotations

import errno
import os
import signal
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.launcher.wall import STDERR, STDOUT, Session, SessionEvents, WallError
from enisle.linux import terminals

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop

_READ_BYTES = 64 << 10
_STDIN_HIGH_BYTES = 64 << 10


class ContainerSession(Session):
    """Owns the keeper's ends of the process's stdio. ``pidfd`` is the caller's loop's.

    ``outputs``: descriptor -> stream. ``stdin`` is the descriptor to write to, -1 if closed; for a terminal it is the
    master, which is also the only output.
    """

    def __init__(
        self, loop: EpollLoop, events: SessionEvents, *, pid: int, pidfd: int, stdin: int, outputs: dict[int, int]
    ) -> None:
        self.pid = pid
        self._loop = loop
        self._events = events
        self.pidfd = pidfd
        self.on_ended: Callable[[], None] = lambda: None
        self.forward: Callable[[int], None] | None = None  # takes signals for what is no process of this kernel
        self._stdin = stdin
        self._outputs = outputs
        self._terminal = stdin in outputs
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._waiting = False
        self._closing_stdin = False
        self._ended = False
        for fd in {stdin, *outputs}:
            if fd >= 0:
                os.set_blocking(fd, False)

    # --- output ----------------------------------------------------------------------------------------------------

    def resume_output(self) -> None:
        """Also how it begins."""
        for fd in self._outputs:
            self._loop.add_reader(fd, lambda fd=fd: self._readable(fd))  # type: ignore[misc]

    def pause_output(self) -> None:
        for fd in self._outputs:
            self._loop.remove_reader(fd)

    def _readable(self, fd: int) -> None:
        try:
            data = os.read(fd, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: nobody has the terminal open any more
                raise
            data = b""
        if data:
            self._events.on_output(self._outputs[fd], data)
            return
        self._loop.remove_reader(fd)
        del self._outputs[fd]
        if fd == self._stdin:
            self._stdin = -1
            self._loop.remove_writer(fd)
        os.close(fd)
        if not self._outputs:
            self._events.on_output_closed()

    # --- input -----------------------------------------------------------------------------------------------------

    def write_stdin(self, data: bytes) -> bool:
        if self._stdin < 0 or self._closing_stdin:
            return True
        self._queue.append(data)
        self._queued += len(data)
        self._flush()
        self._waiting = self._queued > _STDIN_HIGH_BYTES
        return not self._waiting

    def close_stdin(self) -> None:
        if self._terminal or self._stdin < 0:
            return
        self._closing_stdin = True
        if not self._queue:
            self._drop_stdin()

    def _drop_stdin(self) -> None:
        self._queue.clear()
        self._queued = 0
        if self._stdin >= 0 and not self._terminal:
            fd, self._stdin = self._stdin, -1
            self._loop.remove(fd)
            os.close(fd)

    def _flush(self) -> None:
        try:
            while self._queue:
                data = self._queue[0]
                sent = os.write(self._stdin, data)
                self._queued -= sent
                if sent == len(data):
                    self._queue.popleft()
                else:
                    self._queue[0] = data[sent:]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._stdin, self._writable)
            return
        except OSError:  # nobody reads it any more
            self._drop_stdin()
            return
        self._loop.remove_writer(self._stdin)
        if self._closing_stdin:
            self._drop_stdin()

    def _writable(self) -> None:
        self._flush()
        if self._waiting and self._queued <= _STDIN_HIGH_BYTES // 2:
            self._waiting = False
            self._events.on_stdin_drained()

    # --- the process -----------------------------------------------------------------------------------------------

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal and self._stdin >= 0:
            terminals.set_size(self._stdin, rows, columns)

    def signal(self, number: int) -> None:
        if self._ended:
            raise WallError("conflict", "the process has ended")
        if self.forward is not None:
            self.forward(number)
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError as error:
            raise WallError("conflict", "the process has ended") from error

    def ended(self, status: int) -> None:
        """The wait status has come; its pidfd is closed by now."""
        self._ended = True
        code = os.waitstatus_to_exitcode(status)
        self._drop_stdin()
        self.on_ended()
        self._events.on_exit(128 - code if code < 0 else code)


def make_pipes(*, stdin: bool) -> tuple[list[int], int, dict[int, int]]:
    """(the process's stdin, stdout and stderr; our end of stdin or -1; our outputs)."""
    if stdin:
        stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
    else:
        stdin_read, stdin_write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
    stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
    return [stdin_read, stdout_write, stderr_write], stdin_write, {stdout_read: STDOUT, stderr_read: STDERR}
