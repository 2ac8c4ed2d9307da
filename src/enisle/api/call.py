"""One API request, as handlers see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from enisle.api.decode import decode
from enisle.api.query import Query
from enisle.api.reply import encode
from enisle.api.server import ApiProtocol, Taken
from enisle.errors import Internal, Invalid

if TYPE_CHECKING:
    from enisle.build.builder import Builder
    from enisle.buildkit.service import BuildKit
    from enisle.engine.engine import Engine

Body = TypeVar("Body")
_STREAM_CHUNK_BYTES = 1 << 18
_HOP_HEADERS = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


@dataclass(slots=True)
class Call:
    """``name`` is what stands for the star of the route's pattern; ``version`` the API version asked for."""

    request: web.BaseRequest
    engine: Engine
    version: tuple[int, int]
    name: str
    headers: dict[str, str]
    builder: Builder | None = None
    buildkit: Callable[[], BuildKit] | None = None
    _query: Query | None = field(default=None)

    @property
    def query(self) -> Query:
        if self._query is None:
            self._query = Query(self.request.rel_url.raw_query_string)
        return self._query

    def at_least(self, major: int, minor: int) -> bool:
        """Whether the client speaks this API version or a later one."""
        return self.version >= (major, minor)

    async def body(self, kind: type[Body]) -> Body:
        """The JSON body as a ``kind``. Raises Invalid in Docker's words for anything else."""
        self._check_content_type()
        data = await self._read()
        if not data:
            raise Invalid("missing request body: EOF")
        return decode(data, kind)

    async def body_or_default(self, kind: type[Body]) -> Body:
        """As ``body``, but no body gives the defaults."""
        data = await self._read()
        if not data:
            return kind()
        self._check_content_type()
        return decode(data, kind)

    async def _read(self) -> bytes:
        try:
            return await self.request.read()
        except ConnectionError as error:  # the client may still read, having closed its end only for writing
            raise Invalid(f"the request body ended early: {error}") from error

    def _check_content_type(self) -> None:
        given = self.request.headers.get("Content-Type", "")
        if given.partition(";")[0].strip().lower() != "application/json":
            raise Invalid(f"unsupported Content-Type header ({given[:100]}): must be 'application/json'")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises Invalid when the client breaks off."""
        content = self.request.content
        try:
            async for chunk in content.iter_any():
                yield chunk
        except (web.RequestPayloadError, ConnectionError, OSError) as error:
            raise Invalid(f"the request body ended early: {error}") from error

    async def stream(self, content_type: str, headers: Mapping[str, str] | None = None) -> web.StreamResponse:
        """Begin an answer of unknown length; the head is sent at once."""
        response = web.StreamResponse(headers={**self.headers, "Content-Type": content_type, **(headers or {})})
        if self.request.version >= (1, 1):
            response.enable_chunked_encoding()
        await response.prepare(self.request)
        return response

    async def send_all(
        self, source: AsyncIterator[bytes], content_type: str, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """An answer from an iterator. A failure before its first bytes is raised as such; later it cuts the answer off,
        so that the client sees a broken transfer and no truncated file."""
        first = await anext(source, None)
        response = await self.stream(content_type, headers)
        try:
            if first is not None:
                await response.write(first)
            async for chunk in source:
                for start in range(0, len(chunk), _STREAM_CHUNK_BYTES):
                    await response.write(chunk[start : start + _STREAM_CHUNK_BYTES])
        except BaseException:
            self.cut_off()
            raise
        await response.write_eof()
        return response

    def cut_off(self) -> None:
        """Close the connection in the middle of an answer."""
        transport = self.request.transport
        if transport is not None:
            transport.abort()

    def hijack(self, *, framed: bool) -> Taken:
        """Switch the connection to a raw stream, with the head that dockerd sends for this version."""
        kind = "multiplexed" if framed and self.at_least(1, 42) else "raw"
        if "Upgrade" in self.request.headers:
            head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.{kind}-stream\r\n{_HOP_HEADERS}"
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.{kind}-stream\r\n"
        return self._take_over(head)

    def upgrade(self, protocol: str) -> Taken:
        """Switch the connection to another protocol."""
        return self._take_over(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n")

    def _take_over(self, head: str) -> Taken:
        protocol = self.request.protocol
        if not isinstance(protocol, ApiProtocol):
            raise Internal("this server cannot hand its connections over")
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return protocol.take_over(head.encode() + b"\r\n")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within, the client's going away cancels this task (asyncio.CancelledError)."""
        protocol = self.request.protocol
        if not isinstance(protocol, ApiProtocol):
            yield
            return
        if protocol.transport is None:
            raise ConnectionResetError("the client went away")
        protocol.watched = asyncio.current_task()
        try:
            yield
        finally:
            protocol.watched = None


def json_line(value: Any) -> bytes:
    """One message of a JSON stream, ended as dockerd ends it."""
    return encode(value) + b"\r\n"
