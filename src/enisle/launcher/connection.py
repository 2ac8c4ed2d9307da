"""A connection from enisled: frames in, frames out, descriptors with them; never blocks."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.wire import frames

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop

_MAX_SOCKET_PATH_BYTES = 107  # sun_path (unix(7))
_MAX_QUEUED_BYTES = 8 << 20


class Connection:
    """Owns its socket and every descriptor received that nobody has taken yet.

    ``on_message`` gets each message with the descriptors it names; ``on_closed`` is called once.
    """

    def __init__(
        self,
        loop: EpollLoop,
        sock: socket.socket,
        *,
        on_message: Callable[[Connection, frames.Message, list[int]], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._on_message = on_message
        self._on_closed = on_closed
        self._decoder = frames.Decoder()
        self._fds: deque[int] = deque()
        self._out = bytearray()
        self._ending = False
        self.watching = False
        loop.add_reader(self._fd, self._readable)

    @property
    def open(self) -> bool:
        """Whether the peer is there."""
        return self._fd >= 0

    def answer(self, request: frames.Message, fields: frames.Message) -> None:
        """The good answer to a request."""
        self.send({"id": request.get("id"), "ok": fields})

    def fail(self, request: frames.Message, kind: str, message: str, exit_code: int = 0) -> None:
        """The bad answer to a request."""
        error = {"kind": kind, "message": message, "exit_code": exit_code}
        self.send({"id": request.get("id"), "error": error})

    def send(self, message: frames.Message) -> None:
        """Queue one message. A peer that never reads is dropped."""
        if self._fd < 0:
            return
        idle = not self._out
        self._out += frames.encode(message)
        if idle:
            self._flush()
        if len(self._out) > _MAX_QUEUED_BYTES:
            self.close()

    def end(self) -> None:
        """Close once everything queued has been sent."""
        self._ending = True
        if not self._out:
            self.close()

    def close(self) -> None:
        """Close now. Idempotent."""
        if self._fd < 0:
            return
        self._loop.remove(self._fd)
        self._fd = -1
        self._sock.close()
        frames.close_all(list(self._fds))
        self._fds.clear()
        self._on_closed(self)

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._sock.send(self._out)
                del self._out[:sent]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._fd, self._flush)
            return
        except OSError:
            self.close()
            return
        self._loop.remove_writer(self._fd)
        if self._ending:
            self.close()

    def _readable(self) -> None:
        try:
            data, fds = frames.receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, fds = b"", []
        self._fds.extend(fds)
        if not data or len(self._fds) > frames.MAX_FDS:
            self.close()
            return
        try:
            messages = self._decoder.feed(data)
        except frames.ProtocolError:
            self.close()
            return
        for message in messages:
            count = message.get("fds", 0)
            if not isinstance(count, int) or not 0 <= count <= len(self._fds):
                self.close()
                return
            self._on_message(self, message, [self._fds.popleft() for _ in range(count)])
            if self._fd < 0:
                return


def peer_is_root(sock: socket.socket) -> bool:
    """Whether the process at the other end of a unix socket ran as us or root when it connected."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid = int.from_bytes(credentials[4:8], "little")
    return uid in (0, os.geteuid())


def listen(path: str) -> socket.socket:
    """A unix socket listening at ``path``, for root only; a dead one in its place is removed.

    The path may be longer than sun_path takes: it is bound through its directory.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
            sock.bind(path)
        else:
            directory, name = os.path.split(path)
            dirfd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            sock.bind(f"/proc/self/fd/{dirfd}/{name}")
            os.close(dirfd)
    finally:
        os.umask(mask)
    sock.listen(64)
    return sock
