"""The resolver: a process that answers names for the instances of an engine, and survives it.

Its listening sockets are made and handed over by :mod:`enisle.network.names`, each bound to its network's bridge, so
that the socket a query came in by says whose it is. An instance that is on no bridge asks by its keeper (see
``launcher.names``), which says so itself. It gives up root before it reads the first byte.
"""

from __future__ import annotations

import argparse
import asyncio
import encodings.idna  # noqa: F401 - asyncio would import it late, when the files may be out of reach
import os
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from dnslib import RCODE

from enisle.network import zone
from enisle.network.names import GENERATION
from enisle.network.upstream import Upstreams
from enisle.network.zone import Zone
from enisle.wire import frames
from enisle.wire.frames import Message
from enisle.wire.names import BY_TCP, HEAD_BYTES

NOBODY = 65534
IN_FLIGHT_AT_MOST = 512
IN_FLIGHT_EACH = 64
CONNECTIONS_AT_MOST = 128
CONNECTIONS_EACH = 8
IDLE_S = 10.0
LOOK_AROUND_S = 30.0
IDLE_LOOKS_AT_MOST = 2
_PLAIN_UDP_BYTES = 65535


class Refusals:
    """Counts what is going on, in all and for each client, and says when it is too much."""

    def __init__(self, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._held: Counter[str] = Counter()

    def enter(self, client: str) -> bool:
        if self._held.total() >= self._total or self._held[client] >= self._each:
            return False
        self._held[client] += 1
        return True

    def leave(self, client: str) -> None:
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]


class Listener(asyncio.DatagramProtocol):
    """The resolver on one network, UDP and TCP. On a network without a bridge it only knows names."""

    def __init__(self, resolver: Resolver, names: Zone, *, internal: bool) -> None:
        self.names = names
        self.internal = internal
        self._resolver = resolver
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self.facts: Message = {}

    async def listen(self, udp: socket.socket, tcp: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=udp)
        self._server = await asyncio.start_server(self._on_connection, sock=tcp, limit=_PLAIN_UDP_BYTES + 2)

    def close(self) -> None:
        if self._transport:
            self._transport.close()
        if self._server:
            self._server.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        client = addr[0]
        if not self._resolver.queries.enter(client):
            return  # as if it had been lost: the client asks again
        self._resolver.start(self._on_datagram(data, addr))

    async def _on_datagram(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            reply = await self.reply(data, addr[0], tcp=False)
            if reply and self._transport and not self._transport.is_closing():
                self._transport.sendto(reply, addr)
        finally:
            self._resolver.queries.leave(addr[0])

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = str(writer.get_extra_info("peername", ("",))[0])
        if not self._resolver.connections.enter(client):
            writer.close()
            return
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await _converse(reader, writer, lambda data: self.reply(data, client, tcp=True)):
                    pass
        finally:
            self._resolver.connections.leave(client)
            writer.close()

    async def reply(self, data: bytes, client: str, *, tcp: bool) -> bytes | None:
        """The reply to a query that came in here; None for what is no query."""
        return await self._resolver.reply(data, self.names.owner_of(client), self, tcp=tcp)


class Resolver:
    """All networks of one engine, told what to do over a unix socket by frames (``op``: see ``_obey``)."""

    def __init__(self, upstreams: Upstreams) -> None:
        self.upstreams = upstreams
        self.queries = Refusals(IN_FLIGHT_AT_MOST, IN_FLIGHT_EACH)
        self.connections = Refusals(CONNECTIONS_AT_MOST, CONNECTIONS_EACH)
        self.quit = asyncio.Event()
        self._told = asyncio.Event()  # all that the engine knew when it started us
        self._listeners: dict[str, Listener] = {}
        self._engines = 0
        self._idle_looks = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def reply(self, data: bytes, owner: str, asked: Listener | None, *, tcp: bool) -> bytes | None:
        """The reply to a query; None for what is no query. ``asked``: where it came in, None for a keeper's.

        Names of all networks that the asking instance is on are answered, the one's it asks by first. What is on
        internal networks only does not get its questions out of the host.
        """
        query = zone.parse(data)
        if query is None:
            return None
        listeners = self._listeners_of(owner, asked)
        if not listeners:  # it has just gone, or is not known yet
            return zone.failure(*query, RCODE.SERVFAIL)
        for listener in listeners:
            own = listener.names.answer(query, owner)
            if own is not None:
                return own
        if all(listener.internal for listener in listeners):
            return zone.failure(*query, RCODE.NXDOMAIN)
        servers = listeners[0].names.upstreams_of(owner)
        if servers is not None and not servers:
            return zone.failure(*query, RCODE.REFUSED)  # it has a nameserver of its own to ask next
        return await self.upstreams.ask(data, tcp=tcp, servers=servers) or zone.failure(*query, RCODE.SERVFAIL)

    def _listeners_of(self, owner: str, first: Listener | None) -> list[Listener]:
        """The networks an instance is on, ``first`` the one it asks by."""
        found = [each for each in self._listeners.values() if owner and each is not first and each.names.has(owner)]
        return [first, *found] if first else found

    async def _listen_to_keepers(self, listening: socket.socket) -> None:
        """Take in what keepers pass on, once it is known who is who."""
        await self._told.wait()
        # The socket's file is the engine's; and its directory may be one that we cannot enter.
        options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        limit = _PLAIN_UDP_BYTES + 2
        server = await asyncio.start_unix_server(self._on_keeper, sock=listening, limit=limit, **options)
        async with server:
            await server.serve_forever()

    async def _on_keeper(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What it says: see ``wire.names``."""
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(IDLE_S):
                head = await reader.readexactly(HEAD_BYTES)
            by_tcp, owner = head[:1] == BY_TCP, head[1:].decode("latin-1")
            going_on = self.connections if by_tcp else self.queries
            if not going_on.enter(owner):
                return
            try:
                while (
                    await _converse(reader, writer, lambda data: self.reply(data, owner, None, tcp=by_tcp)) and by_tcp
                ):
                    pass
            finally:
                going_on.leave(owner)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve(self, control: socket.socket, for_keepers: socket.socket) -> None:
        """Take orders until told to quit."""
        loop = asyncio.get_running_loop()
        control.setblocking(False)
        listening = [loop.create_task(work) for work in (self._accept(control), self._listen_to_keepers(for_keepers))]
        for task in listening:
            task.add_done_callback(lambda _: self.quit.set())  # without either we are of no use: better a new one
        while not self.quit.is_set() and not self._is_abandoned():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AROUND_S):
                    await self.quit.wait()
        for task in listening:
            if task.done():
                task.result()
            task.cancel()
        for listener in self._listeners.values():
            listener.close()

    def _is_abandoned(self) -> bool:
        """Whether its engine went away for good: nobody is connected and the bridges are gone."""
        self._idle_looks = 0 if self._engines else self._idle_looks + 1
        bridges = [bridge for listener in self._listeners.values() if (bridge := listener.facts["bridge"])]
        return self._idle_looks > IDLE_LOOKS_AT_MOST and not any(_link_exists(index) for index in bridges)

    async def _accept(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(control)
            self.start(self._listen_to(connection))

    async def _listen_to(self, connection: socket.socket) -> None:
        """Obey one engine until it goes; the networks stay as it left them."""
        loop = asyncio.get_running_loop()
        decoder, fds = frames.Decoder(), list[int]()
        ready = asyncio.Event()
        loop.add_reader(connection.fileno(), ready.set)
        self._engines += 1
        try:
            while not self.quit.is_set():
                try:
                    data, received = frames.receive(connection)
                except BlockingIOError:
                    await ready.wait()
                    ready.clear()
                    continue
                fds += received
                if not data:
                    return
                for message in decoder.feed(data):
                    taken = [fds.pop(0) for _ in range(message.get("fds", 0))]
                    answer = await self._obey(message, taken)
                    if answer is not None:
                        await loop.sock_sendall(connection, frames.encode(answer))
        except (OSError, frames.ProtocolError) as error:
            print(f"enisle resolver: its engine's connection broke: {error}", file=sys.stderr)  # noqa: T201
        finally:
            self._engines -= 1
            loop.remove_reader(connection.fileno())
            connection.close()
            frames.close_all(fds)

    async def _obey(self, message: Message, fds: list[int]) -> Message | None:
        op, network = message["op"], message.get("network", "")
        if op == "hello":
            facts = {key: listener.facts for key, listener in self._listeners.items()}
            return {"generation": GENERATION, "pid": os.getpid(), "networks": facts}
        if op == "listen":
            await self._listen(message, fds)
        elif op == "drop":
            listener = self._listeners.pop(network, None)
            if listener:
                listener.close()
        elif op in ("tell", "tell_all") and network in self._listeners:
            known = self._listeners[network].names
            if op == "tell_all":
                known.clear()
            for endpoint, told in message["endpoints"].items():
                known.tell(endpoint, zone.Known(**told))
        elif op == "told":
            self._told.set()
        elif op == "forget" and network in self._listeners:
            self._listeners[network].names.forget(message["endpoint"])
        elif op == "quit":
            self.quit.set()
        return None

    async def _listen(self, message: Message, fds: list[int]) -> None:
        old = self._listeners.pop(message["network"], None)
        if old:
            old.close()
        facts = message["facts"]
        names = Zone(facts["name"], facts["subnets"], answers=facts["names"])
        listener = Listener(self, names, internal=facts["internal"])
        listener.facts = facts
        if fds:
            udp, tcp = (socket.socket(fileno=fd) for fd in fds)
            await listener.listen(udp, tcp)
        self._listeners[message["network"]] = listener


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Callable[[bytes], Awaitable[bytes | None]]
) -> bool:
    """One question and its reply, as DNS over TCP has them; False: that was no question, and no reply was given."""
    async with asyncio.timeout(IDLE_S):
        length = int.from_bytes(await reader.readexactly(2), "big")
        data = await reader.readexactly(length)
    reply = await answer(data)
    if reply is None:
        return False
    writer.write(len(reply).to_bytes(2, "big") + reply)
    async with asyncio.timeout(IDLE_S):
        await writer.drain()
    return True


def _link_exists(index: int) -> bool:
    try:
        socket.if_indextoname(index)
    except OSError:
        return False
    return True


def _drop_privileges() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def main() -> None:
    """``python -m enisle.network.resolver --control FD --keepers FD [--resolv-conf PATH]``; started by
    enisle.network.names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--keepers", type=int, required=True)
    parser.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"))
    parser.add_argument("--upstream-port", type=int, default=53)
    arguments = parser.parse_args()
    _drop_privileges()
    control, for_keepers = (socket.socket(fileno=fd) for fd in (arguments.control, arguments.keepers))

    async def serve() -> None:
        await Resolver(Upstreams(arguments.resolv_conf, port=arguments.upstream_port)).serve(control, for_keepers)

    asyncio.run(serve())


if __name__ == "__main__":
    main()
