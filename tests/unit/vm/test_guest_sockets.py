"""Sockets of the host in a guest: connections one at a time, both directions, their ends, and guests that mean harm."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.launcher.resolver import Resolver
from enisle.launcher.vm.protocol import Call, FromGuest, ToGuest, u32
from enisle.launcher.vm.sockets import CONNECTIONS_LIMIT, GuestSockets
from enisle.wire.names import HEAD_BYTES
from tests.unit.vm.guest_end import Channel


class Host:
    """A listening socket of the host's, and the keeper's end of it."""

    def __init__(self, directory: Path) -> None:
        self.channel = Channel()
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(os.fspath(directory / "s"))
        self.server.listen(CONNECTIONS_LIMIT)
        self.server.settimeout(5)
        source = os.open(directory / "s", os.O_PATH)
        self.sockets = GuestSockets(self.channel.loop, self.channel.agent, [source])

    def asked(self) -> int:
        """The channel on which the keeper waits for a connection."""
        kind, number, body = self.channel.hear()
        assert (kind, body) == (ToGuest.CALL, bytes([Call.ACCEPT]) + u32(0))
        return number

    def taken(self, number: int, data: bytes = b"") -> socket.socket:
        """A program in the guest connects; the host's end of that."""
        self.channel.say(FromGuest.OUTPUT, number, b"\0" + data, stream=1)
        connection, _ = self.server.accept()
        connection.settimeout(5)
        return connection

    def close(self) -> None:
        self.sockets.close()
        self.channel.agent.close()
        self.channel.guest.close()
        self.server.close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def test_a_connection_goes_both_ways_and_each_way_ends_by_itself(host: Host) -> None:
    channel, number = host.channel, host.asked()
    with host.taken(number, b"hello") as connection:
        assert host.asked() != number  # the next one is waited for at once
        assert connection.recv(100) == b"hello"
        channel.say(FromGuest.CLOSED, number)
        assert connection.recv(100) == b""
        connection.sendall(b"late answer")
        channel.run()
        assert channel.hear() == (ToGuest.INPUT, number, b"late answer")
    channel.run()
    assert channel.hear() == (ToGuest.INPUT_END, number, b"")
    channel.say(FromGuest.EXITED, number, struct.pack("<I", 0))
    assert channel.told == []


def test_a_host_that_has_gone_ends_the_guests_connection(host: Host) -> None:
    number = host.asked()
    host.server.close()
    host.channel.say(FromGuest.OUTPUT, number, b"\0x", stream=1)
    following = host.asked()
    assert following != number
    assert host.channel.hear() == (ToGuest.ABORT, number, b"")


def test_a_guest_has_so_many_connections_and_no_more(host: Host) -> None:
    connections = []
    for _ in range(CONNECTIONS_LIMIT):
        number = host.asked()
        connections.append(host.taken(number))
    host.channel.run()
    host.channel.guest.settimeout(0.05)
    with pytest.raises(TimeoutError):
        host.channel.guest.recv(1)
    host.channel.guest.settimeout(5)
    host.channel.say(FromGuest.CLOSED, number)
    host.channel.say(FromGuest.EXITED, number, struct.pack("<I", 0))
    assert host.asked() not in range(number)
    for connection in connections:
        connection.close()


def test_an_agent_that_has_no_such_socket_is_not_asked_again(host: Host) -> None:
    number = host.asked()
    host.channel.say(FromGuest.CLOSED, number)
    host.channel.say(FromGuest.EXITED, number, struct.pack("<I", 3))
    host.channel.guest.settimeout(0.05)
    with pytest.raises(TimeoutError):
        host.channel.guest.recv(1)


class Asking(Host):
    """A resolver instead of a socket of the host's."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.sockets.close()
        self.channel = Channel()
        resolver = Resolver(os.fspath(directory / "s"), "ab" * 32)
        self.sockets = GuestSockets(self.channel.loop, self.channel.agent, [], resolver)

    def asked(self) -> int:
        kind, number, body = self.channel.hear()
        assert (kind, body) == (ToGuest.CALL, bytes([Call.ASKED]))
        return number


@pytest.mark.parametrize(("said", "kind"), [(b"u", b"u"), (b"t", b"t"), (b"\xff", b"u")])
def test_a_question_comes_to_the_resolver_with_the_asker_before_it(tmp_path: Path, said: bytes, kind: bytes) -> None:
    host = Asking(tmp_path)
    number = host.asked()
    host.channel.say(FromGuest.OUTPUT, number, said + b"\0\3abc", stream=1)
    connection, _ = host.server.accept()
    with connection:
        connection.settimeout(5)
        assert host.asked() != number  # the next one is waited for at once
        assert connection.recv(HEAD_BYTES) == kind + b"ab" * 32
        assert connection.recv(100) == b"\0\3abc"
        connection.sendall(b"\0\2ok")
        host.channel.run()
        assert host.channel.hear() == (ToGuest.INPUT, number, b"\0\2ok")
    host.channel.run()
    assert host.channel.hear() == (ToGuest.INPUT_END, number, b"")
    host.close()


def test_a_question_without_a_resolver_is_given_up(tmp_path: Path) -> None:
    host = Asking(tmp_path)
    number = host.asked()
    host.server.close()
    host.channel.say(FromGuest.OUTPUT, number, b"u\0\3abc", stream=1)
    assert host.asked() != number
    assert host.channel.hear() == (ToGuest.ABORT, number, b"")
    host.close()
