"""The asyncio client: the same requests as the blocking one, on streams of the running loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, TypeVar

from enisle.errors import Unavailable
from enisle.sdk import address
from enisle.sdk.facets import Builds, Execs, Images, Instances, Networks, System, Volumes
from enisle.sdk.framing import FrameDecoder, ObjectDecoder
from enisle.sdk.http1 import LAST_CHUNK, BodyDecoder, Head, chunk, split_head
from enisle.sdk.request import API_VERSION, Reply, Request, failure

T = TypeVar("T")
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_READ_BYTES = 256 << 10


class AsyncExchange:
    """One request on a connection of its own: the head has come, the body is read by ``async for``."""

    def __init__(self, stream: Stream, head: Head, rest: bytes, *, method: str) -> None:
        self.head = head
        self._reader, self._writer = stream
        self._decoder = BodyDecoder(head, method=method)
        self._rest = rest

    @property
    def status(self) -> int:
        return self.head.status

    async def __aenter__(self) -> AsyncExchange:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they come. Raises Unavailable when the connection breaks off."""
        while not self._decoder.done:
            data, self._rest = self._rest, b""
            data = data or await _receive(self._reader)
            if not data:
                self._decoder.end()
                return
            if piece := self._decoder.feed(data):
                yield piece

    async def objects(self) -> AsyncIterator[dict[str, Any]]:
        """The body as JSON objects, one after the other as they come (events, progress, stats)."""
        decoder = ObjectDecoder()
        async for piece in self:
            for item in decoder.feed(piece):
                yield item
        for item in decoder.end():
            yield item

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """The body as (stream, data) of Docker's framing."""
        decoder = FrameDecoder()
        async for piece in self:
            for frame in decoder.feed(piece):
                yield frame

    async def reply(self) -> Reply:
        """The whole response."""
        body = b"".join([piece async for piece in self])
        self.close()
        return Reply(self.head.status, self.head.headers, body)

    def detach(self) -> tuple[Stream, bytes]:
        """The bare connection, now the caller's, and what was read of it after the head (hijacking)."""
        return (self._reader, self._writer), self._rest

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class AsyncClient:
    """The API for asyncio. ``host`` as in ENISLE_HOST; None: from the environment. Failures are enisle.errors.

    Each request has a connection of its own, so any number may be under way at once.
    """

    def __init__(self, host: str | None = None) -> None:
        self.address = address.parse(host) if host else address.from_environment()
        self.version = os.environ.get("DOCKER_API_VERSION") or API_VERSION
        self.instances = Instances(self)
        self.execs = Execs(self)
        self.builds = Builds(self)
        self.images = Images(self)
        self.volumes = Volumes(self)
        self.networks = Networks(self)
        self.system = System(self)

    async def call(self, request: Request[T]) -> T:
        """Carry out a request and read its whole answer."""
        async with await self.open(request) as exchange:
            return request.parse(await exchange.reply())

    async def open(self, request: Request[Any]) -> AsyncExchange:
        """Send a request; the exchange once its head has come. Raises what a status of 300 or more stands for."""
        stream = await self._connect()
        try:
            await self._send(stream[1], request)
            head, rest = await _receive_head(stream[0], b"")
            while 100 <= head.status < 200 and head.status != 101:
                head, rest = await _receive_head(stream[0], rest)
            exchange = AsyncExchange(stream, head, rest, method=request.method)
            if exchange.status >= 300:
                raise failure(await exchange.reply())
        except BaseException:
            stream[1].close()
            raise
        return exchange

    async def hijack(self, request: Request[Any]) -> tuple[Stream, bytes]:
        """Send a request that turns its connection into a bare stream; the stream and its first bytes."""
        return (await self.open(request.with_hijack())).detach()

    async def _connect(self) -> Stream:
        where = self.address
        try:
            if where.path:
                return await asyncio.open_unix_connection(where.path)
            if where.ssh or where.certificates:
                return await asyncio.open_unix_connection(sock=await asyncio.to_thread(address.connect, where))
            return await asyncio.open_connection(where.host, where.port)
        except OSError as error:
            raise address.connect_failure(where, error) from error

    async def _send(self, writer: asyncio.StreamWriter, request: Request[Any]) -> None:
        body = request.body
        writer.write(request.head(self.version))
        try:
            if isinstance(body, bytes):
                writer.write(body)
            elif body is not None:
                async for piece in _pieces(body):
                    writer.write(chunk(piece))
                    await writer.drain()
                writer.write(LAST_CHUNK)
            await writer.drain()
        except (BrokenPipeError, ConnectionResetError):
            # The server has answered before it had read everything: its answer tells more.
            return


async def _pieces(body: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(body, AsyncIterable):
        async for piece in body:
            if piece:
                yield piece
        return
    for piece in body:
        if piece:
            yield piece


async def _receive(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_READ_BYTES)
    except OSError as error:
        raise Unavailable(f"The connection to the Enisle daemon broke off: {error.strerror or error}.") from error


async def _receive_head(reader: asyncio.StreamReader, data: bytes) -> tuple[Head, bytes]:
    while (split := split_head(data)) is None:
        piece = await _receive(reader)
        if not piece:
            raise Unavailable("The Enisle daemon closed the connection.")
        data += piece
    return split
