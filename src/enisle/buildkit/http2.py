"""HTTP/2 over a connection that has been upgraded, as far as gRPC needs it: streams with flow control.

What a peer sends is held only as far as its windows reach; a window grows when the bytes have been used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

STREAM_WINDOW_BYTES = 1 << 20
CONNECTION_WINDOW_BYTES = 4 << 20
_STREAMS_LIMIT = 128
_HEADERS_LIMIT_BYTES = 64 << 10  # patterns of a .dockerignore travel in headers, too: but those we send
_INITIAL_WINDOW_BYTES = 65535  # RFC 9113 section 6.9.2

Headers = list[tuple[str, str]]


class StreamClosed(ConnectionError):
    """The peer has reset the stream, or the connection is gone."""


class Stream:
    """One request and its answer. Reading gives back room in the peer's window."""

    def __init__(self, connection: Connection, number: int, headers: Headers) -> None:
        self.number = number
        self.headers = headers
        self.trailers: Headers | None = None
        self.closed: str | None = None
        self._connection = connection
        self._received: deque[tuple[bytes, int]] = deque()
        self._ended = False
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()  # what one writes is not torn apart by another
        self.task: asyncio.Task[None] | None = None

    # --- what the connection tells ---

    def _receive(self, data: bytes, window: int) -> None:
        self._received.append((data, window))
        self._changed.set()

    def _end(self) -> None:
        self._ended = True
        self._changed.set()

    def _answer(self, headers: Headers) -> None:
        self.headers = headers
        self._changed.set()

    def _close(self, why: str) -> None:
        if self.closed is None:
            self.closed = why
            self._changed.set()
            if self.task is not None:
                self.task.cancel()

    def _wake(self) -> None:
        self._changed.set()

    # --- reading ---

    async def answered(self) -> Headers:
        """The first headers of the answer."""
        while not self.headers:
            await self._wait()
        return self.headers

    async def read(self) -> bytes:
        """The next bytes; b"" at the end. Raises StreamClosed."""
        while not self._received:
            if self._ended:
                return b""
            await self._wait()
        data, window = self._received.popleft()
        self._connection.consumed(self, window)
        return data

    async def _wait(self) -> None:
        if self.closed is not None:
            raise StreamClosed(self.closed)
        self._changed.clear()
        await self._changed.wait()

    def forget(self) -> None:
        """Nobody will read what has come, or comes yet."""
        while self._received:
            self._connection.consumed(self, self._received.popleft()[1])
        self._connection.release(self)

    # --- writing ---

    async def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        """Begin an answer, or end it with trailers."""
        self._connection.act(self, lambda wire: wire.send_headers(self.number, headers, end_stream=end))

    async def write(self, data: bytes, *, end: bool = False) -> None:
        """Send bytes, as fast as the peer takes them. Raises StreamClosed."""
        async with self._writing:
            view = memoryview(data)
            while view or end:
                await self._connection.writable()
                room = self._connection.room(self)
                if room <= 0 and view:
                    await self._wait()
                    continue
                piece, view = view[:room], view[room:]
                last = end and not view
                self._send(bytes(piece), end=last)
                if last:
                    return

    def _send(self, data: bytes, *, end: bool) -> None:
        self._connection.act(self, lambda wire: wire.send_data(self.number, data, end_stream=end))

    def reset(self, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Break it off, if it is still there."""
        with contextlib.suppress(StreamClosed):
            self._connection.act(self, lambda wire: wire.reset_stream(self.number, code))


Accept = Callable[[Stream], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One connection. ``accept`` serves each request of the peer in a task of its own; None: we are the client."""

    def __init__(self, accept: Accept | None) -> None:
        self._accept = accept
        self._wire = H2Connection(H2Configuration(client_side=accept is None, header_encoding="utf-8"))
        self._streams: dict[int, Stream] = {}
        self._transport: asyncio.Transport | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- asyncio's side ---

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        values: dict[SettingCodes, int] = {
            SettingCodes.MAX_CONCURRENT_STREAMS: _STREAMS_LIMIT,
            SettingCodes.MAX_HEADER_LIST_SIZE: _HEADERS_LIMIT_BYTES,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            SettingCodes.ENABLE_PUSH: 0,
        }
        self._wire.local_settings = Settings(client=self._accept is None, initial_values=values)
        self._wire.initiate_connection()
        self._wire.increment_flow_control_window(CONNECTION_WINDOW_BYTES - _INITIAL_WINDOW_BYTES)
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._wire.receive_data(data):
                self._handle(event)
        except (H2Error, ValueError, KeyError, IndexError):  # of h2 and hpack, for bytes that break the protocol
            self._flush()
            self.close()
            return
        self._flush()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        self._may_write.set()
        for stream in list(self._streams.values()):
            stream._close("the connection was closed")
        self._streams.clear()
        if not self.lost.done():
            self.lost.set_result(None)

    # --- events ---

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event.stream_id, _texts(event.headers))
            case h2.events.ResponseReceived():
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream._answer(_texts(event.headers))
            case h2.events.TrailersReceived():
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.trailers = _texts(event.headers)
            case h2.events.DataReceived():
                stream = self._streams.get(event.stream_id)
                if stream is None:
                    self._give_back(event.flow_controlled_length, event.stream_id)
                else:
                    stream._receive(event.data, event.flow_controlled_length)
            case h2.events.StreamEnded():
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream._end()
            case h2.events.StreamReset():
                if (stream := self._streams.pop(event.stream_id, None)) is not None:
                    stream._close("the call was called off")
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for one in self._streams.values():
                    one._wake()
            case h2.events.ConnectionTerminated():
                self.close()

    def _begin(self, number: int, headers: Headers) -> None:
        if self._accept is None:
            return
        stream = self._streams[number] = Stream(self, number, headers)
        task = asyncio.ensure_future(self._serve(stream))
        stream.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: Stream) -> None:
        assert self._accept is not None
        try:
            await self._accept(stream)
        except StreamClosed:
            pass
        except asyncio.CancelledError:
            if stream.closed is None:
                raise
        finally:
            stream.forget()

    # --- what streams ask for ---

    async def open(self, headers: Headers) -> Stream:
        """Begin a request. Raises StreamClosed when the connection is gone."""
        await self.writable()
        if self._transport is None:
            raise StreamClosed("the connection was closed")
        number = self._wire.get_next_available_stream_id()
        stream = self._streams[number] = Stream(self, number, [])
        self.act(stream, lambda wire: wire.send_headers(number, headers))
        return stream

    def act(self, stream: Stream, what: Callable[[H2Connection], None]) -> None:
        """Do something to a stream and send what comes of it. Raises StreamClosed."""
        if self._transport is None or stream.closed is not None:
            raise StreamClosed(stream.closed or "the connection was closed")
        try:
            what(self._wire)
        except (H2Error, KeyError) as error:
            raise StreamClosed(f"the stream has ended: {error}") from error
        self._flush()

    def room(self, stream: Stream) -> int:
        """How many bytes may be sent now. Raises StreamClosed."""
        if stream.closed is not None:
            raise StreamClosed(stream.closed)
        try:
            window = self._wire.local_flow_control_window(stream.number)
        except H2Error as error:
            raise StreamClosed(f"the stream has ended: {error}") from error
        return min(window, self._wire.max_outbound_frame_size)

    async def writable(self) -> None:
        """Wait until the socket takes more."""
        await self._may_write.wait()

    def consumed(self, stream: Stream, count: int) -> None:
        """Bytes of a stream have been used: the peer may send as many again."""
        if count and self._transport is not None:
            self._give_back(count, stream.number)
            self._flush()

    def _give_back(self, count: int, number: int) -> None:
        with contextlib.suppress(H2Error, KeyError):
            self._wire.acknowledge_received_data(count, number)

    def release(self, stream: Stream) -> None:
        """A stream is over on our side; if it is not on the peer's, it is told."""
        if self._streams.pop(stream.number, None) is not None and self._transport is not None:
            with contextlib.suppress(H2Error, KeyError):
                self._wire.reset_stream(stream.number, ErrorCodes.NO_ERROR)
            self._flush()

    def _flush(self) -> None:
        if self._transport is not None and (data := self._wire.data_to_send()):
            self._transport.write(data)

    def close(self) -> None:
        """End it, and all its streams."""
        if self._transport is not None:
            self._transport.close()

    async def closed(self) -> None:
        """Wait until it is gone and all that served it has ended."""
        await asyncio.shield(self.lost)
        await self.called_off()

    async def called_off(self) -> None:
        """Call off all that is being served, and wait for its end."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _texts(headers: Any) -> Headers:
    return [(_text(name), _text(value)) for name, value in headers]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


async def adopt(fd: int, initial: bytes, accept: Accept | None) -> Connection:
    """Speak HTTP/2 on a connected socket, which is ours from now on; ``initial`` was read from it already."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(fileno=fd)
    os.set_blocking(fd, False)
    try:
        _, connection = await loop.connect_accepted_socket(lambda: Connection(accept), sock)
    except BaseException:
        sock.close()
        raise
    if initial:
        connection.data_received(initial)
    return connection
