"""Questions that are not ours to answer, sent on to the host's nameservers as they are."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from enisle.network import resolv_conf

_PORT = 53
_TIMEOUT_S = 2.0
_ROUNDS = 2
_TCP_TIMEOUT_S = 8.0
_LOOK_AGAIN_S = 1.0  # how often the host's resolv.conf is looked at, at most
_SETTLED_NS = 2_000_000_000
_HEADER_BYTES = 12


class _Answer(asyncio.DatagramProtocol):
    """One question on a socket of its own: a port that is new each time is hard to guess (RFC 5452)."""

    def __init__(self, expected: Callable[[bytes], bool]) -> None:
        self._expected = expected
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.done.done() and self._expected(data):
            self.done.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("closed"))


class Upstreams:
    """The nameservers of a resolv.conf, which is read again when it changes."""

    def __init__(self, path: Path, *, port: int = _PORT) -> None:
        self._path = path
        self._port = port
        self._servers: tuple[str, ...] = ()
        self._seen: tuple[int, int, int] | None = None
        self._looked_at = -_LOOK_AGAIN_S

    def servers(self) -> tuple[str, ...]:
        """The nameservers, in order; the one that answered last comes first."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_AGAIN_S:
            self._looked_at = now
            self._look()
        return self._servers

    def _look(self) -> None:
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._seen:
                return
            nameservers = resolv_conf.parse(self._path.read_text(errors="replace")).nameservers
            if sorted(nameservers) != sorted(self._servers):
                self._servers = nameservers
            # A file that has just been written may be written again without its time stamp telling.
            self._seen = seen if time.time_ns() - status.st_mtime_ns > _SETTLED_NS else None
        except OSError:
            self._servers, self._seen = (), None

    async def ask(self, query: bytes, *, tcp: bool, servers: Sequence[str] | None = None) -> bytes | None:
        """The reply of the first nameserver that gives one, under the query's own id; None when none does.

        ``servers``: those to ask instead of the host's.
        """
        number = secrets.token_bytes(2)
        sent = number + query[2:]
        for _ in range(_ROUNDS):
            for server in self.servers() if servers is None else servers:
                try:
                    reply = await (self._by_tcp(server, sent) if tcp else self._by_udp(server, sent))
                except (OSError, asyncio.IncompleteReadError):
                    continue  # not there, too slow, or its reply was no reply
                if servers is None:
                    self._servers = (server, *(other for other in self._servers if other != server))
                return query[:2] + reply[2:]
        return None

    async def _by_udp(self, server: str, query: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Answer(lambda reply: _answers(reply, query)), remote_addr=(server, self._port)
        )
        try:
            transport.sendto(query)
            async with asyncio.timeout(_TIMEOUT_S):
                return await protocol.done
        finally:
            transport.close()

    async def _by_tcp(self, server: str, query: bytes) -> bytes:
        async with asyncio.timeout(_TCP_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(server, self._port)
            try:
                writer.write(len(query).to_bytes(2, "big") + query)
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = await reader.readexactly(length)
            finally:
                writer.close()
        if not _answers(reply, query):
            raise ConnectionError(f"nameserver {server} answered another question")
        return reply


def _answers(reply: bytes, query: bytes) -> bool:
    """Whether it is a reply to that query: same id, marked as a reply, same question."""
    if len(reply) < _HEADER_BYTES or reply[:2] != query[:2] or not reply[2] & 0x80:
        return False
    if reply[4:6] == b"\0\0":
        return True  # an error without the question
    end = _question_end(query)
    return reply[_HEADER_BYTES:end].lower() == query[_HEADER_BYTES:end].lower()


def _question_end(query: bytes) -> int:
    """Where the question section of a query with one uncompressed question ends."""
    offset = _HEADER_BYTES
    while offset < len(query) and query[offset]:
        offset += query[offset] + 1
    return offset + 5
