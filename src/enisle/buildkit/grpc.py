"""gRPC over HTTP/2 (github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): calls that we serve, and calls we make."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn, TypeVar
from urllib.parse import quote, unquote

from enisle.buildkit.http2 import Connection, Headers, Stream, StreamClosed
from enisle.buildkit.protobuf import DecodeError, Message
from enisle.errors import EnisleError, Kind

MESSAGE_LIMIT_BYTES = 16 << 20
_PREFIX_BYTES = 5
_TEXT_LIMIT = 8 << 10  # of an error's text in a header
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_log = logging.getLogger("enisle.buildkit")

Some = TypeVar("Some", bound=Message)


class Code(IntEnum):
    """Results of a call (grpc.github.io/grpc/core/md_doc_statuscodes.html)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_CODES = {  # of the rest BuildKit's clients would only repeat the code before the sentence: Unknown they leave out
    Kind.NOT_FOUND: Code.NOT_FOUND,
    Kind.DENIED: Code.PERMISSION_DENIED,
    Kind.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    Kind.UNAVAILABLE: Code.UNAVAILABLE,
    Kind.EXHAUSTED: Code.RESOURCE_EXHAUSTED,
}


class CallFailed(Exception):
    """A call that ended with another code than OK. ``details``: a google.rpc.Status, encoded; b"" for none."""

    def __init__(self, code: int, message: str, details: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def code_of(error: EnisleError) -> Code:
    """The code that stands for one of our errors."""
    return _CODES.get(error.kind, Code.UNKNOWN)


class _Frames:
    """Messages from a stream's bytes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._pending = bytearray()

    async def next(self) -> bytes | None:
        """The next message; None at the end. Raises CallFailed for what is no message."""
        header = await self._take(_PREFIX_BYTES)
        if header is None:
            return None
        if header[0]:
            raise CallFailed(Code.UNIMPLEMENTED, "compressed messages are not understood")
        length = int.from_bytes(header[1:], "big")
        if length > MESSAGE_LIMIT_BYTES:
            raise CallFailed(
                Code.RESOURCE_EXHAUSTED, f"received message larger than max ({length} vs. {MESSAGE_LIMIT_BYTES})"
            )
        body = await self._take(length)
        if body is None:
            raise CallFailed(Code.INTERNAL, "the stream ends within a message")
        return body

    async def _take(self, count: int) -> bytes | None:
        while len(self._pending) < count:
            data = await self._stream.read()
            if not data:
                if self._pending:
                    raise CallFailed(Code.INTERNAL, "the stream ends within a message")
                return b"" if not count else None
            self._pending += data
        taken = bytes(self._pending[:count])
        del self._pending[:count]
        return taken


def framed(message: Message) -> bytes:
    """A message with its prefix."""
    body = message.encode()
    return b"\0" + len(body).to_bytes(4, "big") + body


# --- calls that we serve ---


class Call:
    """A call of a client's."""

    def __init__(self, stream: Stream) -> None:
        self.metadata: dict[str, str] = dict(stream.headers)
        self._stream = stream
        self._frames = _Frames(stream)
        self._began = False

    @property
    def method(self) -> str:
        """ "/service/method" """
        return self.metadata.get(":path", "")

    async def receive(self, cls: type[Some]) -> Some | None:
        """The next message of the client; None when it has sent its last. Raises CallFailed."""
        body = await self._frames.next()
        if body is None:
            return None
        try:
            return cls.decode(body)
        except DecodeError as error:
            raise CallFailed(Code.INTERNAL, f"the {cls.__name__} cannot be read: {error}") from error

    async def request(self, cls: type[Some]) -> Some:
        """The one message of a client that sends one."""
        return await self.receive(cls) or cls()

    async def send(self, message: Message) -> None:
        """Answer with a message, the first or one more."""
        await self._begin()
        await self._stream.write(framed(message))

    async def _begin(self) -> None:
        if not self._began:
            self._began = True
            await self._stream.send_headers([(":status", "200"), ("content-type", "application/grpc")])

    async def end(self, failure: CallFailed | None = None) -> None:
        """The call is over."""
        await self._begin()
        trailers = [("grpc-status", str(int(failure.code) if failure else 0))]
        if failure is not None:
            trailers.append(("grpc-message", quote(failure.message[:_TEXT_LIMIT], safe=_PLAIN, errors="replace")))
            if failure.details:
                trailers.append(("grpc-status-details-bin", base64.b64encode(failure.details).decode().rstrip("=")))
        await self._stream.send_headers(trailers, end=True)


Method = Callable[[Call], Awaitable[Message | None]]
"""Serves a call; what it returns is the last message of the answer."""


class Server:
    """Answers calls by their method. Whatever comes, an answer is a gRPC status."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    async def accept(self, stream: Stream) -> None:
        """Serve one stream."""
        call = Call(stream)
        try:
            last = await self._answer(call)
            if last is not None:
                await call.send(last)
            await call.end()
        except CallFailed as failure:
            await call.end(failure)
        except EnisleError as error:
            await call.end(CallFailed(code_of(error), str(error)))
        except StreamClosed:
            raise
        except Exception:
            _log.exception("%s failed", call.method)
            await call.end(CallFailed(Code.INTERNAL, "internal error: see the daemon's log"))

    async def _answer(self, call: Call) -> Message | None:
        method = self._methods.get(call.method)
        if method is None:
            service, _, name = call.method.lstrip("/").rpartition("/")
            known = any(one.startswith(f"/{service}/") for one in self._methods)
            what = f"unknown method {name} for service {service}" if known else f"unknown service {service}"
            raise CallFailed(Code.UNIMPLEMENTED, what[:200])
        return await method(call)


# --- calls that we make ---


@dataclass(slots=True)
class _Outgoing:
    stream: Stream
    frames: _Frames


class Calling:
    """One call to the peer, in both directions. A context: what is still open at its end is called off."""

    def __init__(self, connection: Connection, method: str, metadata: Headers) -> None:
        self._connection = connection
        self._method = method
        self._metadata = metadata
        self._open: _Outgoing | None = None

    async def __aenter__(self) -> Calling:
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", self._method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *self._metadata,
        ]
        try:
            stream = await self._connection.open(headers)
        except StreamClosed as error:
            raise CallFailed(Code.UNAVAILABLE, f"the client has gone: {error}") from error
        self._open = _Outgoing(stream, _Frames(stream))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.stream.forget()

    @property
    def _there(self) -> _Outgoing:
        assert self._open is not None
        return self._open

    async def send(self, *messages: Message) -> None:
        """Send messages. Raises CallFailed."""
        try:
            await self._there.stream.write(b"".join(map(framed, messages)))
        except StreamClosed as error:
            self._explain(error)

    async def end(self) -> None:
        """We have sent our last."""
        try:
            await self._there.stream.write(b"", end=True)
        except StreamClosed as error:
            self._explain(error)

    async def receive(self, cls: type[Some]) -> Some | None:
        """The next message; None when the peer has ended the call well. Raises CallFailed."""
        try:
            body = await self._there.frames.next()
        except StreamClosed as error:
            self._explain(error)
        if body is None:
            self._check()
            return None
        try:
            return cls.decode(body)
        except DecodeError as error:
            raise CallFailed(Code.INTERNAL, f"the client's {cls.__name__} cannot be read: {error}") from error

    async def messages(self, cls: type[Some]) -> AsyncIterator[Some]:
        """What the peer sends, to its end."""
        while (message := await self.receive(cls)) is not None:
            yield message

    def _check(self) -> None:
        stream = self._there.stream
        found = dict(stream.trailers if stream.trailers is not None else stream.headers)
        code = found.get("grpc-status", "2")
        if code != "0":
            message = unquote(found.get("grpc-message", "")) or "the client has broken off the call"
            raise CallFailed(int(code) if code.isdecimal() and len(code) < 4 else Code.UNKNOWN, message)

    def _explain(self, error: StreamClosed) -> NoReturn:
        """The stream is closed: by a failure that came before, or with the connection."""
        if self._there.stream.trailers is not None or "grpc-status" in dict(self._there.stream.headers):
            self._check()
        raise CallFailed(Code.UNAVAILABLE, f"the client has gone: {error}") from error


async def call(connection: Connection, method: str, request: Message, answer: type[Some]) -> Some:
    """One message there and one back. Raises CallFailed."""
    async with Calling(connection, method, []) as calling:
        await calling.send(request)
        await calling.end()
        found = await calling.receive(answer)
        if found is None:
            raise CallFailed(Code.INTERNAL, f"{method}: the client has sent no answer")
        await calling.receive(answer)
        return found
