"""Connections to published ports that the kernel cannot send on: a keeper takes them in and passes them along.

Those are what comes for the host's ``[::1]``, and for its other IPv6 addresses where the instance has none itself. The
sockets are those that reserve the ports; nftables takes everything else away before it gets to them. UDP is relayed
beside, by datagrams.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from enisle.launcher.datagrams import Datagrams, Place

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop

_CHUNK_BYTES = 64 << 10
_CONVERSATIONS_AT_MOST = 256
_BACKLOG = 128


Target = Sequence[object]
"""Where is listened and where that goes: address, port, target's address, target's port."""


class Relays:
    """The relays of one instance."""

    def __init__(self, loop: EpollLoop) -> None:
        self._loop = loop
        self._listeners: dict[Place, socket.socket] = {}
        self._targets: dict[Place, Place] = {}
        self._datagrams = Datagrams(loop)
        self._conversations: set[Conversation] = set()
        self._accepting = True

    def take(self, fds: list[int], targets: Iterable[Target], datagrams: Iterable[Target]) -> None:
        """Listen on those of the sockets that there are targets for; these become ours, and leave the list."""
        self._targets = _by_place(targets)
        self._datagrams.take(fds, _by_place(datagrams))
        for fd in list(fds):
            one = socket.socket(fileno=fd)
            place = _place(one)
            if place not in self._targets:
                one.detach()
                continue
            fds.remove(fd)
            one.setblocking(False)
            one.listen(_BACKLOG)
            # For what is accepted: its remains would keep the port from the next start for a minute. While this one
            # listens nobody else gets the port, whatever he sets.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listeners[place] = one
            self._watch(place, one)

    def point(self, targets: Iterable[Target], datagrams: Iterable[Target]) -> None:
        """Where new connections go, and datagrams from now on."""
        self._targets = _by_place(targets)
        self._datagrams.point(_by_place(datagrams))

    def close(self) -> None:
        """End all of it."""
        self._datagrams.close()
        for listener in self._listeners.values():
            self._loop.remove(listener.fileno())
            listener.close()
        self._listeners.clear()
        for each in list(self._conversations):
            each.close()

    def _watch(self, place: Place, listener: socket.socket) -> None:
        self._loop.add_reader(listener.fileno(), lambda: self._accept(place, listener))

    def _accept(self, place: Place, listener: socket.socket) -> None:
        try:
            client, _address = listener.accept()
        except OSError:
            return
        target = self._targets.get(place)
        if target is None:
            client.close()
            return
        try:
            each = Conversation(self._loop, client, _connecting(target), self._ended)
        except OSError:
            client.close()
            return
        self._conversations.add(each)
        if len(self._conversations) >= _CONVERSATIONS_AT_MOST:
            self._accepting = False
            for one in self._listeners.values():
                self._loop.remove_reader(one.fileno())  # the others wait in the kernel's queue

    def _ended(self, conversation: Conversation) -> None:
        self._conversations.discard(conversation)
        if not self._accepting:
            self._accepting = True
            for place, one in self._listeners.items():
                self._watch(place, one)


class Conversation:
    """One connection and the one it is passed on by, which is made or being made. ``on_end`` is called once."""

    def __init__(
        self, loop: EpollLoop, client: socket.socket, server: socket.socket, on_end: Callable[[Conversation], None]
    ) -> None:
        self._loop = loop
        self._on_end = on_end
        self._client = client
        self._server = server
        self._pipes: list[_Pipe] = []
        client.setblocking(False)
        loop.add_writer(server.fileno(), self._connected)

    def _connected(self) -> None:
        self._loop.remove_writer(self._server.fileno())
        if self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()
            return
        self._pipes = [
            _Pipe(self._loop, self._client, self._server, self._pipe_ended),
            _Pipe(self._loop, self._server, self._client, self._pipe_ended),
        ]

    def _pipe_ended(self, *, broken: bool) -> None:
        if broken or all(pipe.ended for pipe in self._pipes):
            self.close()

    def close(self) -> None:
        """Idempotent."""
        if self._client.fileno() < 0:
            return
        for one in (self._client, self._server):
            self._loop.remove(one.fileno())
            one.close()
        self._on_end(self)


class _Pipe:
    """Bytes from one socket to the other, never more than a chunk of them held; the end of them too."""

    def __init__(
        self, loop: EpollLoop, source: socket.socket, target: socket.socket, on_end: Callable[..., None]
    ) -> None:
        self.ended = False
        self._loop = loop
        self._source, self._target = source, target
        self._on_end = on_end
        self._held = b""
        loop.add_reader(source.fileno(), self._read)

    def _read(self) -> None:
        try:
            self._held = self._source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._on_end(broken=True)
            return
        if self._held:
            self._write()
            return
        self._loop.remove_reader(self._source.fileno())
        self.ended = True
        try:
            self._target.shutdown(socket.SHUT_WR)
        except OSError:
            self._on_end(broken=True)
        else:
            self._on_end(broken=False)

    def _write(self) -> None:
        try:
            sent = self._target.send(self._held)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._on_end(broken=True)
            return
        self._held = self._held[sent:]
        if self._held:
            self._loop.remove_reader(self._source.fileno())
            self._loop.add_writer(self._target.fileno(), self._write)
        else:
            self._loop.remove_writer(self._target.fileno())
            self._loop.add_reader(self._source.fileno(), self._read)


def _connecting(target: Place) -> socket.socket:
    """A socket on its way there. OSError: that is no address."""
    one = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_STREAM)
    one.setblocking(False)
    try:
        one.connect(target)
    except BlockingIOError:
        pass
    except OSError:
        one.close()
        raise
    return one


def _by_place(targets: Iterable[Target]) -> dict[Place, Place]:
    return {(str(ip), int(str(port))): (str(to), int(str(number))) for ip, port, to, number in targets}


def _place(one: socket.socket) -> Place:
    """Where a TCP socket is bound; what is no TCP socket is nowhere."""
    if one.type != socket.SOCK_STREAM or one.family not in (socket.AF_INET, socket.AF_INET6):
        return "", 0
    address = one.getsockname()
    return str(address[0]), int(address[1])
