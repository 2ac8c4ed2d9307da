"""The asyncio client: the same requests as the blocking one, on streams of the running loop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar

from enisle.errors import Unavailable
from enisle.sdk import address, builds, execs, images, instances, networks, system, volumes
from enisle.sdk.framing import FrameDecoder
from enisle.sdk.http1 import BodyDecoder, Head, request_head, split_head
from enisle.sdk.request import API_VERSION, Reply, Request, failure

T = TypeVar("T")
P = ParamSpec("P")
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
        """The body as JSON objects, one a line."""
        pending = b""
        async for piece in self:
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield json.loads(line)
        if pending.strip():
            yield json.loads(pending)

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
        headers = {"Host": "enisle", "User-Agent": "enisle"} | request.headers
        if isinstance(body, bytes):
            headers["Content-Length"] = str(len(body))
        elif body is not None:
            headers["Transfer-Encoding"] = "chunked"
        elif request.method in ("POST", "PUT"):
            headers["Content-Length"] = "0"
        writer.write(request_head(request.method, request.target(self.version), headers))
        try:
            if isinstance(body, bytes):
                writer.write(body)
            elif body is not None:
                async for piece in _pieces(body):
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
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


class _Facet:
    """A part of the API; its methods carry out the requests of one module."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client


def _calling(build: Callable[P, Request[T]]) -> Callable[Concatenate[_Facet, P], Awaitable[T]]:
    """A coroutine method with the parameters of ``build`` that carries out the request it builds."""

    async def method(self: _Facet, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._client.call(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    return method


def _opening(build: Callable[P, Request[Any]]) -> Callable[Concatenate[_Facet, P], Awaitable[AsyncExchange]]:
    """As ``_calling``, for answers that are read while they come."""

    async def method(self: _Facet, /, *args: P.args, **kwargs: P.kwargs) -> AsyncExchange:
        return await self._client.open(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    return method


def _hijacking(build: Callable[P, Request[Any]]) -> Callable[Concatenate[_Facet, P], Awaitable[tuple[Stream, bytes]]]:
    """As ``_calling``, for requests that turn into a bare stream."""

    async def method(self: _Facet, /, *args: P.args, **kwargs: P.kwargs) -> tuple[Stream, bytes]:
        return await self._client.hijack(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    return method


class Instances(_Facet):
    """Instances behind either wall."""

    list = _calling(instances.list_all)
    get = _calling(instances.get)
    create = _calling(instances.create)
    start = _calling(instances.start)
    stop = _calling(instances.stop)
    restart = _calling(instances.restart)
    kill = _calling(instances.kill)
    pause = _calling(instances.pause)
    unpause = _calling(instances.unpause)
    remove = _calling(instances.remove)
    rename = _calling(instances.rename)
    update = _calling(instances.update)
    resize = _calling(instances.resize)
    top = _calling(instances.top)
    changes = _calling(instances.changes)
    prune = _calling(instances.prune)
    stat = _calling(instances.stat)
    put = _calling(instances.put)
    commit = _calling(instances.commit)
    wait = _calling(instances.wait)
    stats_once = _calling(instances.stats_once)
    open_wait = _opening(instances.wait)
    open_logs = _opening(instances.logs)
    open_stats = _opening(instances.stats)
    open_archive = _opening(instances.archive)
    open_export = _opening(instances.export)
    attach = _hijacking(instances.attach)


class Execs(_Facet):
    """Processes run inside instances."""

    create = _calling(execs.create)
    start_detached = _calling(execs.start_detached)
    start = _hijacking(execs.start)
    get = _calling(execs.get)
    resize = _calling(execs.resize)


class Images(_Facet):
    """Images."""

    list = _calling(images.list_all)
    get = _calling(images.get)
    history = _calling(images.history)
    tag = _calling(images.tag)
    remove = _calling(images.remove)
    prune = _calling(images.prune)
    open_pull = _opening(images.pull)
    open_push = _opening(images.push)
    open_load = _opening(images.load)
    open_save = _opening(images.save)
    open_files = _opening(images.files)
    open_import = _opening(images.import_tar)
    open_bootstrap = _opening(images.bootstrap)


class Builds(_Facet):
    """Builds of images."""

    open_build = _opening(builds.build)
    prune = _calling(builds.prune)


class Volumes(_Facet):
    """Volumes."""

    list = _calling(volumes.list_all)
    get = _calling(volumes.get)
    create = _calling(volumes.create)
    remove = _calling(volumes.remove)
    prune = _calling(volumes.prune)
    open_export = _opening(volumes.export)
    import_tar = _calling(volumes.import_tar)
    clone = _calling(volumes.clone)
    rename = _calling(volumes.rename)
    resize = _calling(volumes.resize)
    snapshots = _calling(volumes.snapshots)
    take_snapshot = _calling(volumes.take_snapshot)
    restore = _calling(volumes.restore)
    remove_snapshot = _calling(volumes.remove_snapshot)


class Networks(_Facet):
    """Networks."""

    list = _calling(networks.list_all)
    get = _calling(networks.get)
    create = _calling(networks.create)
    remove = _calling(networks.remove)
    connect = _calling(networks.connect)
    disconnect = _calling(networks.disconnect)
    prune = _calling(networks.prune)


class System(_Facet):
    """The daemon and its host."""

    ping = _calling(system.ping)
    version = _calling(system.version)
    info = _calling(system.info)
    disk_usage = _calling(system.disk_usage)
    doctor = _calling(system.doctor)
    login = _calling(system.login)
    open_events = _opening(system.events)
