"""BuildKit's protocol as a whole: what the API hands connections to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from enisle.build.builder import Builder
from enisle.buildkit.bridge import Bridge
from enisle.buildkit.control import Control
from enisle.buildkit.grpc import Server
from enisle.buildkit.http2 import adopt
from enisle.buildkit.jobs import Jobs
from enisle.buildkit.sessions import Sessions
from enisle.buildkit.workers import Workers

_log = logging.getLogger("enisle.buildkit")


class BuildKit:
    """Serves BuildKit's clients with one builder."""

    def __init__(self, builder: Builder, version: str) -> None:
        self.sessions = Sessions()
        self.jobs = Jobs(builder, self.sessions)
        workers = Workers(builder, version)
        self._server = Server(Control(builder, self.jobs, workers).methods | Bridge(self.jobs, workers).methods)
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, fd: int, initial: bytes) -> None:
        """Answer calls on a connection, which is ours from now on, for as long as it is there."""
        self._start(self._serve(fd, initial))

    async def _serve(self, fd: int, initial: bytes) -> None:
        connection = await adopt(fd, initial, self._server.accept)
        try:
            await connection.closed()
        finally:
            connection.close()
            await connection.called_off()

    def serve_session(self, fd: int, initial: bytes, *, identity: str, methods: Iterable[str], shared_key: str) -> None:
        """Keep a client's session for as long as its connection, which is ours from now on."""
        self._start(self.sessions.serve(fd, initial, identity, methods, shared_key))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="buildkit")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, OSError):
            _log.error("a connection of BuildKit's failed", exc_info=error)

    async def close(self) -> None:
        """Call off all builds and end all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
