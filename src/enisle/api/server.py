"""Serving the API so that a request can take its connection away (``attach``, ``exec``).

aiohttp owns a connection for as long as it lives. Docker's protocol turns some of them into raw byte streams, which we
hand to a keeper as a descriptor; :class:`ApiProtocol` lets go of a connection without shutting it down.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from enisle.api.reply import error_response
from enisle.api.tls import TlsFiles, TlsListener
from enisle.errors import Internal

SHUTDOWN_TIMEOUT_S = 2.0
BODY_LIMIT_BYTES = 8 << 20  # of bodies that are read whole; streams have none
_LINE_LIMIT_BYTES = 16384  # filters travel in the query
_FIELD_LIMIT_BYTES = 65536  # X-Registry-Auth and X-Registry-Config carry base64 JSON

_HOLD_LIMIT_BYTES = 1 << 20
_MAY_TAKE_OVER = re.compile(
    rb"POST [^ ?]*/(?:containers/[^/ ?]+/attach|exec/[^/ ?]+/start|grpc|session)[ ?][^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n"
)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Taken:
    """A connection that is no longer HTTP: a descriptor that the holder must close, and what was read from it."""

    fd: int
    initial: bytes


class ApiProtocol(RequestHandler):
    """One client connection.

    A client may send the first bytes of its raw stream along with the request, and aiohttp would read them as the next
    request. So what follows a request that may turn the connection into a stream is held back until it is answered.
    """

    __slots__ = ("_body_left", "_held", "_holds", "_taken", "watched")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._taken = False
        self._holds = False
        self._body_left = 0  # bytes of such a request's body that are to come
        self._held = bytearray()
        self.watched: asyncio.Task[Any] | None = None  # cancelled when the client goes away

    def data_received(self, data: bytes) -> None:
        if not self._holds and (match := _MAY_TAKE_OVER.match(data)):
            self._holds = True
            self._body_left = match.end() + _content_length(match[0])
        if not self._holds:
            super().data_received(data)
            return
        body, rest = data[: self._body_left], data[self._body_left :]
        self._body_left -= len(body)
        self._held += rest
        if len(self._held) > _HOLD_LIMIT_BYTES and self.transport is not None:
            self.transport.pause_reading()
        if body:
            super().data_received(body)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """The request was answered; what was held back is another one, unless the connection is gone."""
        if self._holds and not self._taken:
            self._holds = False
            held, self._held = bytes(self._held), bytearray()
            if self.transport is not None:
                self.transport.resume_reading()
            if held:
                self.data_received(held)
        return await super().finish_response(request, resp, start_time)

    def connection_lost(self, exc: BaseException | None) -> None:
        watched, self.watched = self.watched, None
        super().connection_lost(exc)
        if watched is not None:
            watched.cancel()

    def take_over(self, head: bytes) -> Taken:
        """Answer with ``head``, then leave the connection to the caller; HTTP on it is over.

        Raises ConnectionError when the client has gone.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError(errno.ECONNRESET, "the client went away")
        if transport.get_write_buffer_size():
            raise Internal("the client has not read an earlier answer on this connection")
        transport.pause_reading()
        # The duplicate keeps the connection open when the transport closes its own descriptor: close(2) of one of
        # several descriptors sends no FIN.
        fd = os.dup(transport.get_extra_info("socket").fileno())
        self._taken = True
        try:
            if os.write(fd, head) != len(head):
                raise ConnectionResetError(errno.ECONNRESET, "the client does not read")
        except OSError as error:
            os.close(fd)
            raise ConnectionResetError(errno.ECONNRESET, "the client went away") from error
        finally:
            self._force_close = True
            transport.abort()
        return Taken(fd, bytes(self._held))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp itself refuses (bad HTTP), or what escaped every handler, as Docker's JSON."""
        if status == 500 and not isinstance(exc, ConnectionError):
            self.log_exception("Error handling request", exc_info=exc)
            message = "internal error: see the daemon's log"
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had already begun")
        response = error_response(status, (message or "Bad Request").splitlines()[0])
        response.headers["Server"] = "Enisle"
        response.force_close()
        return response


def _content_length(head: bytes) -> int:
    match = _CONTENT_LENGTH.search(head)
    return int(match[1]) if match else 0


def _make_request(message: Any, payload: Any, protocol: RequestHandler, writer: Any, task: Any) -> web.BaseRequest:
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=BODY_LIMIT_BYTES
    )


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return ApiProtocol(self, loop=self._loop, **self._kwargs)


class Serving:
    """A handler on listening sockets. ``close`` stops accepting and ends what is under way."""

    def __init__(self, handler: Handler) -> None:
        self._listeners: list[asyncio.AbstractServer] = []
        self._tls: list[TlsListener] = []
        self._server = _Server(
            handler,
            request_factory=_make_request,
            access_log=None,
            keepalive_timeout=600.0,
            max_line_size=_LINE_LIMIT_BYTES,
            max_field_size=_FIELD_LIMIT_BYTES,
            auto_decompress=False,
            lingering_time=1.0,
        )

    @property
    def connections(self) -> int:
        """How many clients are connected; handed-over connections do not count."""
        return len(self._server.connections)

    async def listen(self, sock: socket.socket) -> None:
        """Accept clients on a bound unix socket."""
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_unix_server(self._server, sock=sock, backlog=1024))

    async def listen_tls(self, sock: socket.socket, files: TlsFiles) -> None:
        """Accept clients with a certificate on a bound TCP socket. Invalid: the files cannot be used."""
        front = TlsListener(files, self._adopt)
        self._tls.append(front)
        self._listeners.append(await front.listen(sock))

    async def _adopt(self, sock: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(self._server, sock)

    async def close(self) -> None:
        """End it: endless streams at once, other requests after SHUTDOWN_TIMEOUT_S."""
        for listener in self._listeners:
            listener.close()
        self._server.pre_shutdown()
        for connection in self._server.connections:
            if isinstance(connection, ApiProtocol) and connection.watched is not None:
                connection.watched.cancel()
        await self._server.shutdown(SHUTDOWN_TIMEOUT_S)
        for front in self._tls:
            front.close()


async def serve(handler: Handler, sockets: Sequence[socket.socket]) -> Serving:
    """Serve on bound sockets until ``Serving.close``."""
    serving = Serving(handler)
    for sock in sockets:
        await serving.listen(sock)
    return serving
