"""Clients that attach before their instance starts: kept, handed over at the start, dropped when they go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Iterable

from enisle.contracts import Connection


class EarlyClients:
    """The waiting clients of one instance; owns their descriptors.

    Only a full hang-up drops one: `echo x | docker run -i` has closed its sending half before the start. A poll set of
    its own tells it, because the event loop knows only "readable", which it is as soon as there is input.
    """

    def __init__(self) -> None:
        self._clients: dict[int, tuple[Connection, select.epoll]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, connection: Connection) -> None:
        """Keep it until ``take`` or until the client hangs up."""
        hangups = select.epoll(1)
        hangups.register(connection.fd, 0)  # hang-ups and errors are always reported
        self._clients[connection.fd] = (connection, hangups)
        asyncio.get_running_loop().add_reader(hangups.fileno(), self._drop, connection.fd)

    def take(self) -> list[Connection]:
        """All that wait; they are the caller's from now on."""
        return [self._forget(fd) for fd in list(self._clients)]

    def close(self) -> None:
        """Hang up on all."""
        close_connections(self.take())

    def _drop(self, fd: int) -> None:
        close_connections([self._forget(fd)])

    def _forget(self, fd: int) -> Connection:
        connection, hangups = self._clients.pop(fd)
        asyncio.get_running_loop().remove_reader(hangups.fileno())
        hangups.close()
        return connection


def close_connections(connections: Iterable[Connection]) -> None:
    """Close our copies of clients' connections."""
    for connection in connections:
        with contextlib.suppress(OSError):
            os.close(connection.fd)
