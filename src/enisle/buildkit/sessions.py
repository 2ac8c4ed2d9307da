"""Sessions: connections over which we call a client that offers its files, secrets, agents and credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from enisle.buildkit import grpc
from enisle.buildkit.grpc import CallFailed, Calling, Code
from enisle.buildkit.http2 import Connection, Headers, adopt
from enisle.buildkit.protobuf import Message
from enisle.buildkit.session_messages import Empty
from enisle.errors import Conflict, Invalid, NotFound

_WAIT_S = 10.0
_ID_LIMIT = 256
_SESSIONS_LIMIT = 1000
_HEALTH = "/grpc.health.v1.Health/Check"
_HEALTH_INTERVAL_S = 10.0
_HEALTH_TIMEOUT_S = 60.0  # long: a client that copies much, or is stopped for a moment, is not gone
Some = TypeVar("Some", bound=Message)


class Session:
    """One client. ``methods``: what it offers, in lower case; ``shared_key`` names its files across sessions."""

    def __init__(self, identity: str, methods: Iterable[str], shared_key: str, connection: Connection) -> None:
        self.id = identity
        self.shared_key = shared_key
        self._methods = frozenset(method.lower() for method in methods)
        self._connection = connection

    def offers(self, method: str) -> bool:
        """Whether the client serves it."""
        return method.lower() in self._methods

    def calling(self, method: str, metadata: Headers | None = None) -> Calling:
        """A call in both directions, as a context. Raises CallFailed when the client does not serve it."""
        if not self.offers(method):
            raise CallFailed(Code.UNIMPLEMENTED, f"method {method} not supported by the client")
        return Calling(self._connection, method, metadata or [])

    async def call(self, method: str, request: Message, answer: type[Some]) -> Some:
        """One message there and one back. Raises CallFailed."""
        if not self.offers(method):
            raise CallFailed(Code.UNIMPLEMENTED, f"method {method} not supported by the client")
        return await grpc.call(self._connection, method, request, answer)

    async def watch(self) -> None:
        """Wait until the client has gone, or answers no more."""
        gone = asyncio.ensure_future(self._connection.closed())
        try:
            while True:
                done, _ = await asyncio.wait([gone], timeout=_HEALTH_INTERVAL_S)
                if done:
                    return
                try:
                    async with asyncio.timeout(_HEALTH_TIMEOUT_S):
                        await grpc.call(self._connection, _HEALTH, Empty(), Empty)
                except TimeoutError:
                    return
                except CallFailed:
                    pass  # a client without that service is as alive
        finally:
            gone.cancel()
            self._connection.close()


class Sessions:
    """The sessions that are there."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._changed = asyncio.Condition()

    def check(self, identity: str) -> None:
        """Raises Invalid or Conflict when no session can have this name."""
        if not identity or len(identity) > _ID_LIMIT:
            raise Invalid("a session needs an id: X-Docker-Expose-Session-Uuid")
        if identity in self._sessions:
            raise Conflict(f"session {identity[:64]} already exists")
        if len(self._sessions) >= _SESSIONS_LIMIT:
            raise Conflict("there are too many sessions")

    async def serve(self, fd: int, initial: bytes, identity: str, methods: Iterable[str], shared_key: str) -> None:
        """Keep a session for as long as its connection, which is ours from now on."""
        connection = await adopt(fd, initial, None)
        session = self._sessions[identity] = Session(identity, methods, shared_key, connection)
        try:
            await self._tell()
            await session.watch()
        finally:
            connection.close()
            if self._sessions.get(identity) is session:
                del self._sessions[identity]

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def get(self, identity: str) -> Session:
        """The session of that name, which may come a moment later than who asks for it. Raises NotFound."""
        identity = identity.rpartition(":")[2]
        try:
            async with asyncio.timeout(_WAIT_S), self._changed:
                await self._changed.wait_for(lambda: identity in self._sessions)
        except TimeoutError:
            raise NotFound(f"no active session for {identity[:64]}") from None
        return self._sessions[identity]


@asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Raises CallFailed when the block takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise CallFailed(Code.UNAVAILABLE, f"{what}: the client does not answer") from None
