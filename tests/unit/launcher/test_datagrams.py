"""UDP ports that a keeper relays, on the loopback of this host."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from enisle.launcher.datagrams import Datagrams
from enisle.launcher.loop import EpollLoop


class Server:
    """Answers each datagram with the port it came from and what it said."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.place = (address, self.socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            data, peer = self.socket.recvfrom(70000)
            if data == b"end":
                return
            self.socket.sendto(str(peer[1]).encode() + b" " + data, peer)

    def close(self) -> None:
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", self.place)


class Relayed:
    """A port of [::1] that is relayed to a server."""

    def __init__(self, stack: ExitStack, **limits: float) -> None:
        self.loop = EpollLoop()
        self.server = Server()
        stack.callback(self.server.close)
        entrance = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        entrance.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        entrance.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        entrance.bind(("::", 0))
        self.place = ("::", entrance.getsockname()[1])
        self.relay = Datagrams(self.loop, **limits)  # type: ignore[arg-type]
        stack.callback(self.relay.close)
        fds = [entrance.detach()]
        self.relay.take(fds, {self.place: self.server.place})
        assert not fds
        self._stack = stack

    def client(self) -> socket.socket:
        client = self._stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        client.connect(("::1", self.place[1]))  # so that answers from elsewhere do not arrive
        return client

    def ask(self, client: socket.socket, words: bytes = b"hello") -> bytes:
        """What comes back to a client, the loop running meanwhile."""
        client.send(words)
        client.setblocking(False)
        for _ in range(1000):
            self.turn()
            try:
                return client.recv(70000)
            except BlockingIOError:
                continue
        return b""

    def turn(self, seconds: float = 0.02) -> None:
        self.loop.call_later(seconds, lambda: None)
        self.loop.run_once()

    def run_until(self, condition: Callable[[], bool]) -> bool:
        return any(condition() or self.turn() for _ in range(500))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_each_client_has_a_source_of_its_own_and_keeps_it(stack: ExitStack) -> None:
    relayed = Relayed(stack)
    one, two = relayed.client(), relayed.client()
    first, second = relayed.ask(one), relayed.ask(two)
    assert first.endswith(b" hello")
    assert first != second
    assert relayed.ask(one) == first


def test_datagrams_of_any_size(stack: ExitStack) -> None:
    relayed = Relayed(stack)
    client = relayed.client()
    for size in (0, 1, 1400, 60000):
        assert relayed.ask(client, b"x" * size).partition(b" ")[2] == b"x" * size


def test_the_longest_unused_flow_gives_way(stack: ExitStack) -> None:
    relayed = Relayed(stack, flows_at_most=3)
    clients = [relayed.client() for _ in range(4)]
    first = [relayed.ask(client) for client in clients[:3]]
    assert relayed.ask(clients[0]) == first[0], "used again: the second is the oldest now"
    assert relayed.ask(clients[3])
    assert [relayed.ask(clients[each]) == first[each] for each in (0, 2)] == [True, True]
    assert relayed.ask(clients[1]).endswith(b" hello"), "it begins anew"


def test_idle_flows_end(stack: ExitStack) -> None:
    relayed = Relayed(stack, idle_s=0.2)
    client = relayed.client()
    first = relayed.ask(client)
    assert relayed.run_until(lambda: not relayed.relay._flows)
    assert relayed.ask(client).partition(b" ")[2] == first.partition(b" ")[2]


def test_flows_follow_to_another_target(stack: ExitStack) -> None:
    relayed = Relayed(stack)
    other = Server("::1")
    stack.callback(other.close)
    client = relayed.client()
    assert relayed.ask(client)
    relayed.server.close()
    relayed.relay.point({relayed.place: other.place})
    assert relayed.ask(client).endswith(b" hello")
    relayed.relay.point({})
    client.send(b"hello")
    relayed.turn()
    assert not relayed.relay._flows


def test_a_server_that_is_not_there_yet(stack: ExitStack) -> None:
    relayed = Relayed(stack)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as later:
        later.bind(("127.0.0.1", 0))
        place = later.getsockname()
    relayed.relay.point({relayed.place: place})
    client = relayed.client()
    client.send(b"nobody listens")
    relayed.turn()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as later:
        later.bind(place)
        later.settimeout(10)
        client.send(b"now")
        relayed.turn()
        data, peer = later.recvfrom(100)
        while data != b"now":
            data, peer = later.recvfrom(100)
        later.sendto(b"answer", peer)
        assert relayed.ask(client, b"") == b"answer"
