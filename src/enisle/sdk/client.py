"""The blocking client: plain sockets, no event loop."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterable, Iterator
from typing import Any, TypeVar

from enisle.errors import Unavailable
from enisle.sdk import address
from enisle.sdk.facets import Builds, Execs, Images, Instances, Networks, System, Volumes
from enisle.sdk.framing import FrameDecoder, ObjectDecoder
from enisle.sdk.http1 import LAST_CHUNK, BodyDecoder, Head, chunk, split_head
from enisle.sdk.request import API_VERSION, Reply, Request, failure

T = TypeVar("T")
_READ_BYTES = 256 << 10


class Exchange:
    """One request on one connection: the head has come, the body is read by iterating. Close it, or use ``with``.

    A connection that was read to its end goes back to the client for the next request.
    """

    def __init__(self, client: Client, connection: socket.socket, head: Head, rest: bytes, *, method: str) -> None:
        self.head = head
        self._client = client
        self._connection: socket.socket | None = connection
        self._decoder = BodyDecoder(head, method=method)
        self._rest = rest

    @property
    def status(self) -> int:
        return self.head.status

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        """Whether ``read`` has something to give without waiting: then the descriptor may never poll readable."""
        return bool(self._rest) or self._decoder.done

    def fileno(self) -> int:
        """The connection's descriptor, to poll for more of the body once it is not ``ready``."""
        return self._connection.fileno() if self._connection else -1

    def __iter__(self) -> Iterator[bytes]:
        """Pieces of the body as they come."""
        while piece := self.read():
            yield piece

    def read(self) -> bytes:
        """The next piece of the body; empty at its end. Raises Unavailable when the connection breaks off."""
        while not self._decoder.done and self._connection is not None:
            data, self._rest = self._rest, b""
            if not data:
                data = _receive(self._connection)
                if not data:
                    self._decoder.end()
                    break
            if piece := self._decoder.feed(data):
                return piece
        return b""

    def objects(self) -> Iterator[dict[str, Any]]:
        """The body as JSON objects, one after the other as they come (events, progress, stats)."""
        decoder = ObjectDecoder()
        for piece in self:
            yield from decoder.feed(piece)
        yield from decoder.end()

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The body as (stream, data) of Docker's framing."""
        decoder = FrameDecoder()
        for piece in self:
            yield from decoder.feed(piece)

    def reply(self) -> Reply:
        """The whole response."""
        body = b"".join(self)
        self.close()
        return Reply(self.head.status, self.head.headers, body)

    def reply_head(self) -> Reply:
        """The response without its body, which is still to be read."""
        return Reply(self.head.status, self.head.headers, b"")

    def detach(self) -> tuple[socket.socket, bytes]:
        """The bare connection, now the caller's, and what was read of it after the head (hijacking)."""
        if self._connection is None:
            raise Unavailable("The connection is closed.")
        connection, self._connection = self._connection, None
        return connection, self._rest

    def close(self) -> None:
        """Give the connection back to the client if it can serve another request, else close it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        reusable = self._decoder.done and not self._decoder.rest and not self._rest
        if reusable and self.head.headers.get("connection", "").lower() != "close" and self.head.status != 101:
            self._client.give_back(connection)
        else:
            connection.close()


class Client:
    """The API, blocking. ``host`` as in ENISLE_HOST (unix:///path or tcp://host:port); None: from the environment.

    Failures are :mod:`enisle.errors`. Not for use by several threads at once: give each its own.
    """

    def __init__(self, host: str | None = None) -> None:
        self.address = address.parse(host) if host else address.from_environment()
        self.version = os.environ.get("DOCKER_API_VERSION") or API_VERSION
        self._idle: list[socket.socket] = []
        self.instances = Instances(self)
        self.execs = Execs(self)
        self.builds = Builds(self)
        self.images = Images(self)
        self.volumes = Volumes(self)
        self.networks = Networks(self)
        self.system = System(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections; exchanges under way keep theirs."""
        while self._idle:
            self._idle.pop().close()

    def give_back(self, connection: socket.socket) -> None:
        """An idle connection for a later request."""
        if len(self._idle) < 2:
            self._idle.append(connection)
        else:
            connection.close()

    def call(self, request: Request[T]) -> T:
        """Carry out a request and read its whole answer."""
        with self.open(request) as exchange:
            return request.parse(exchange.reply())

    def open(self, request: Request[Any]) -> Exchange:
        """Send a request; the exchange once its head has come. Raises what a status of 300 or more stands for."""
        exchange = self._exchange(request)
        while 100 <= exchange.status < 200 and exchange.status != 101:
            connection, rest = exchange.detach()
            exchange = self._receive_head(connection, rest, method=request.method)
        if exchange.status >= 300:
            raise failure(exchange.reply())
        return exchange

    def hijack(self, request: Request[Any]) -> tuple[socket.socket, bytes]:
        """Send a request that turns its connection into a bare stream; the stream and its first bytes."""
        return self.open(request.with_hijack()).detach()

    def _exchange(self, request: Request[Any]) -> Exchange:
        while self._idle:
            connection = self._idle.pop()
            # An idle connection that polls readable was closed by the server: do not risk a request on it.
            if not _is_quiet(connection):
                connection.close()
                continue
            try:
                self._send(connection, request)
                return self._receive_head(connection, b"", method=request.method)
            except Unavailable:
                # Closed just now. What only reads can be asked again (RFC 9110, 9.2.2); what acts may have been done.
                if request.method not in ("GET", "HEAD"):
                    raise
        connection = address.connect(self.address)
        self._send(connection, request)
        return self._receive_head(connection, b"", method=request.method)

    def _send(self, connection: socket.socket, request: Request[Any]) -> None:
        body = request.body
        if isinstance(body, AsyncIterable):
            raise TypeError("an asynchronous body needs the AsyncClient")
        head = request.head(self.version)
        try:
            if isinstance(body, bytes) or body is None:
                connection.sendall(head + (body or b""))
                return
            connection.sendall(head)
            for piece in body:
                if piece:
                    connection.sendall(chunk(piece))
            connection.sendall(LAST_CHUNK)
        except (BrokenPipeError, ConnectionResetError):
            # The server has answered (an error, say) before it had read everything: its answer tells more.
            return
        except BaseException:
            connection.close()
            raise

    def _receive_head(self, connection: socket.socket, data: bytes, *, method: str) -> Exchange:
        try:
            while (split := split_head(data)) is None:
                piece = _receive(connection)
                if not piece:
                    raise Unavailable(f"The Enisle daemon at {self.address.text} closed the connection.")
                data += piece
        except BaseException:
            connection.close()
            raise
        return Exchange(self, connection, split[0], split[1], method=method)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_READ_BYTES)
    except OSError as error:
        raise Unavailable(f"The connection to the Enisle daemon broke off: {error.strerror or error}.") from error


def _is_quiet(connection: socket.socket) -> bool:
    import select

    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)
