"""Sockets of the host in a guest: what connects there is connected here, to the socket that was bound, and to no other.

The guest is asked for one connection after the other, so it has as many at once as are allowed here, each with the
windows of any session. Questions for names are such connections, too: each is one to the resolver (see wire.names).
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from enisle.launcher.vm.protocol import Call, Failure, ToGuest, u32
from enisle.wire.names import BY_TCP, BY_UDP

if TYPE_CHECKING:
    from enisle.launcher.resolver import Resolver
    from enisle.launcher.vm.agent import Agent
    from enisle.launcher.wall import Loop

CONNECTIONS_LIMIT = 64
_NAMES = -1
_CHUNK_BYTES = 128 << 10


class GuestSockets:
    """All sockets of one VM. ``sources``: descriptors of the host's, in the order of the mounts; ours from here."""

    def __init__(self, loop: Loop, agent: Agent, sources: list[int], resolver: Resolver | None = None) -> None:
        self.loop = loop
        self.agent = agent
        self._sources = sources
        self._open = 0
        self._resolver = resolver
        self._idle = {*range(len(sources)), *([_NAMES] if resolver else [])}
        self._ask()

    def _ask(self) -> None:
        while self._idle and self._open < CONNECTIONS_LIMIT:
            self._open += 1
            number = self._idle.pop()
            _Connection(self, number)

    def connected(self, number: int, said: bytes) -> socket.socket | None:
        """A connection to the host's socket, for one that the guest has taken; None: nobody listens there.

        ``said``: the byte by which the guest told of it.
        """
        self._idle.add(number)
        try:
            if number == _NAMES and self._resolver is not None:
                return self._resolver.connect(BY_TCP if said == BY_TCP else BY_UDP)
            return _connection_to(self._sources[number])
        finally:
            self._ask()

    def ended(self) -> None:
        """A connection is gone."""
        self._open -= 1
        self._ask()

    def close(self) -> None:
        """Let go of the host's sockets. The connections end with the agent's channel."""
        self._idle.clear()
        while self._sources:
            os.close(self._sources.pop())


def _connection_to(source: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{source}")
    except OSError:
        sock.close()
        return None
    return sock


class _Connection:
    """One connection, waited for at first. Implements ``launcher.vm.agent.Peer``."""

    def __init__(self, sockets: GuestSockets, number: int) -> None:
        self._sockets = sockets
        self._number = number
        self._sock: socket.socket | None = None
        self._waiting = bytearray()  # for the host; bounded by the window that the guest was granted
        self._taken = self._closed = self._exited = self._input_ended = self._ended = False
        body = bytes([Call.ASKED]) if number == _NAMES else bytes([Call.ACCEPT]) + u32(number)
        self._channel = sockets.agent.open(ToGuest.CALL, body, self)

    def on_started(self, pid: int) -> None:
        """Calls do not say so."""

    def on_failed(self, failure: Failure) -> None:
        self._finish()

    def on_output(self, stream: int, data: bytes) -> None:
        if stream != 1 or self._ended:
            self._sockets.agent.consumed(self._channel, len(data))
            return
        if not self._taken:
            self._taken = True
            self._sockets.agent.consumed(self._channel, 1)
            self._sock = self._sockets.connected(self._number, data[:1])
            data = data[1:]
            if self._sock is None:
                self._give_up()
                return
            self._sockets.loop.add_reader(self._sock.fileno(), self._read)
        self._waiting += data
        self._write()

    def on_closed(self) -> None:
        self._closed = True
        self._settle()

    def on_exited(self, code: int) -> None:
        self._exited = True
        self._settle()

    def on_input_credit(self, size: int) -> None:
        if self._sock is not None and not self._input_ended:
            self._sockets.loop.add_reader(self._sock.fileno(), self._read)

    def on_lost(self, code: int) -> None:
        self._finish()

    def _write(self) -> None:
        while self._waiting and self._sock is not None:
            try:
                sent = self._sock.send(self._waiting)
            except BlockingIOError:
                self._sockets.loop.add_writer(self._sock.fileno(), self._write)
                return
            except OSError:
                self._give_up()
                return
            del self._waiting[:sent]
            self._sockets.agent.consumed(self._channel, sent)
        if self._sock is not None:
            self._sockets.loop.remove_writer(self._sock.fileno())
            self._settle()

    def _read(self) -> None:
        assert self._sock is not None
        room = min(self._sockets.agent.input_room(self._channel), _CHUNK_BYTES)
        if room <= 0:
            self._sockets.loop.remove_reader(self._sock.fileno())
            return
        try:
            data = self._sock.recv(room)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._sockets.agent.send_input(self._channel, data)
            return
        self._input_ended = True
        self._sockets.loop.remove_reader(self._sock.fileno())
        self._sockets.agent.send(ToGuest.INPUT_END, self._channel)

    def _settle(self) -> None:
        if self._waiting or not self._closed:
            return
        if self._exited:
            self._finish()
        elif self._sock is not None:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:  # the other end has gone
                self._give_up()

    def _give_up(self) -> None:
        self._sockets.agent.abort(self._channel)
        self._finish()

    def _finish(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._waiting.clear()
        if self._sock is not None:
            self._sockets.loop.remove_reader(self._sock.fileno())
            self._sockets.loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None
        if self._taken:
            self._sockets.ended()
