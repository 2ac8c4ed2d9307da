"""Names for a container that is on no bridge: its keeper listens inside of it and passes the questions to the resolver.

A workload may want port 53 of all addresses for itself, so other ports are listened on, and nftables leads there inside
the container's network namespace. How the resolver is spoken to: :mod:`enisle.wire.names`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from enisle.launcher.relay import Conversation
from enisle.linux.nftables.connection import Nftables, NftablesError
from enisle.linux.nftables.model import Chain, Element, Hook, Is, Redirect, SetType, Table
from enisle.linux.nftables.values import IP_DADDR, IPV4, L4PROTO, PROTOCOL, SERVICE, TH_DPORT, Family
from enisle.linux.nics import visiting_process
from enisle.wire.names import BY_TCP, BY_UDP, NAMESERVER

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop
    from enisle.launcher.resolver import Resolver

_PORT = 53
_QUESTIONS_AT_MOST = 64
_CONNECTIONS_AT_MOST = 8
_PATIENCE_S = 15.0  # a C library has long asked again
_MESSAGE_BYTES = 65535
_BACKLOG = 16
_OUTPUT_DSTNAT = -100


def redirection(udp_port: int, tcp_port: int) -> Table:
    """What leads the workload's questions to these ports."""
    ports = SetType("ports", (PROTOCOL, SERVICE), (IPV4, SERVICE))
    wanted = (("udp", udp_port), ("tcp", tcp_port))
    asked = (Is(IP_DADDR, NAMESERVER), Redirect(4, (L4PROTO, TH_DPORT), ports.name))
    return Table(
        family=Family.INET,
        name="enisle-names",
        sets=(ports,),
        elements=tuple(Element(ports, (kind, str(_PORT)), (NAMESERVER, str(port))) for kind, port in wanted),
        chains=(Chain("output", (asked,), Hook("nat", "output", _OUTPUT_DSTNAT)),),
    )


class Names:
    """What listens in the network namespace of a process, whose loopback is up."""

    def __init__(self, loop: EpollLoop, resolver: Resolver, pid: int) -> None:
        """OSError when it cannot listen there."""
        self._loop = loop
        self._resolver = resolver
        self._questions: dict[_Question, Any] = {}  # and who asks, the longest waiting first
        self._conversations: set[Conversation] = set()
        self._udp, self._tcp = _listen_inside(pid)
        loop.add_reader(self._udp.fileno(), self._read)
        loop.add_reader(self._tcp.fileno(), self._accept)

    def _read(self) -> None:
        try:
            message, client = self._udp.recvfrom(_MESSAGE_BYTES)
        except OSError:  # nothing there, or an answer that its asker did not wait for
            return
        connection = self._resolver.connect(BY_UDP, len(message).to_bytes(2, "big") + message)
        if connection is None:
            return  # as if it had been lost: the client asks again
        if len(self._questions) >= _QUESTIONS_AT_MOST:
            next(iter(self._questions)).close()
        self._questions[_Question(self._loop, connection, self._answered)] = client

    def _answered(self, question: _Question, reply: bytes) -> None:
        client = self._questions.pop(question)
        if reply:
            try:
                self._udp.sendto(reply, client)
            except OSError:
                pass  # as if it had been lost on the way

    def _accept(self) -> None:
        try:
            client, _address = self._tcp.accept()
        except OSError:
            return
        full = len(self._conversations) >= _CONNECTIONS_AT_MOST
        connection = None if full else self._resolver.connect(BY_TCP)
        if connection is None:
            client.close()
        else:
            self._conversations.add(Conversation(self._loop, client, connection, self._conversations.discard))

    def close(self) -> None:
        """End all of it."""
        for one in (self._udp, self._tcp):
            self._loop.remove(one.fileno())
            one.close()
        for question in list(self._questions):
            question.close()
        for each in list(self._conversations):
            each.close()


class _Question:
    """One that came by UDP, until its reply is there or nobody waits for it any more.

    ``on_end`` hears the reply, b"" for none.
    """

    def __init__(self, loop: EpollLoop, connection: socket.socket, on_end: Callable[[_Question, bytes], None]) -> None:
        self._loop = loop
        self._connection = connection
        self._on_end = on_end
        self._reply = bytearray()
        self._timer = loop.call_later(_PATIENCE_S, self.close)
        loop.add_reader(connection.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self._connection.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._reply += data
        length = 2 + int.from_bytes(self._reply[:2], "big")
        if not data:
            self._end(b"")
        elif len(self._reply) >= max(length, 3):
            self._end(bytes(self._reply[2:length]))

    def close(self) -> None:
        """Wait no longer."""
        self._end(b"")

    def _end(self, reply: bytes) -> None:
        self._timer.cancel()
        self._loop.remove(self._connection.fileno())
        self._connection.close()
        self._on_end(self, reply)


def _listen_inside(pid: int) -> tuple[socket.socket, socket.socket]:
    """Sockets for UDP and TCP that a process reaches at the nameserver's address. OSError.

    Where the kernel has no nftables they have the port itself, which nobody else inside can have then.
    """
    with visiting_process(pid), ExitStack() as undo:
        try:
            found = _listen(0, undo)
            with Nftables() as nftables:
                nftables.commit(redirection(*(one.getsockname()[1] for one in found)))
        except NftablesError:
            undo.close()
            found = _listen(_PORT, undo)
        undo.pop_all()
    return found


def _listen(port: int, undo: ExitStack) -> tuple[socket.socket, socket.socket]:
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    udp, tcp = (socket.socket(socket.AF_INET, kind | flags) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    for one in (udp, tcp):
        undo.enter_context(one)
        one.bind((NAMESERVER, port))
    tcp.listen(_BACKLOG)
    return udp, tcp
