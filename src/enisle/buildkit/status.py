"""How a build gets on, in BuildKit's terms: vertices (steps), what they print, and how much of something has come."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from enisle.buildkit.control_messages import (
    StatusResponse,
    Timestamp,
    Vertex,
    VertexLog,
    VertexStatus,
    VertexWarning,
)

LOG_LIMIT_BYTES = 2 << 20
"""Of what one step prints: more is not kept for clients, as in BuildKit."""

_BATCH = 256
_PATIENCE_S = 10.0
_ARRIVED = frozenset({"Pull complete", "Already exists", "Download complete"})


def now() -> Timestamp:
    """The time."""
    return Timestamp.of(time.time_ns())


class Progress:
    """All that has happened in one build, for clients that listen now or come later."""

    def __init__(self, ref: str) -> None:
        self._ref = ref
        self._count = 0
        self._events: list[Vertex | VertexStatus | VertexLog | VertexWarning] = []
        self._ended = False
        self._changed = asyncio.Event()
        self._listeners = 0
        self._left = asyncio.Event()

    def vertex(self, name: str) -> Step:
        """A step begins."""
        self._count += 1
        digest = hashlib.sha256(f"{self._ref}/{self._count}".encode()).hexdigest()
        return Step(self, f"sha256:{digest}", name)

    def warn(self, text: str) -> None:
        """Something to be shown at the end."""
        digest = hashlib.sha256(self._ref.encode()).hexdigest()
        self.add(VertexWarning(vertex=f"sha256:{digest}", level=1, short=text.encode("utf-8", "replace")))

    def add(self, event: Vertex | VertexStatus | VertexLog | VertexWarning) -> None:
        """One more event."""
        self._events.append(event)
        self._changed.set()

    def end(self) -> None:
        """The build is over."""
        self._ended = True
        self._changed.set()

    async def responses(self) -> AsyncGenerator[StatusResponse]:
        """Everything from the beginning to the end."""
        seen = 0
        self._listeners += 1
        try:
            while True:
                while seen < len(self._events):
                    batch = self._events[seen : seen + _BATCH]
                    seen += len(batch)
                    yield _response(batch)
                if self._ended:
                    return
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._listeners -= 1
            self._left.set()

    async def heard(self) -> None:
        """Return when everybody who listens has been told everything, or takes too long.

        A client gives up listening 3 s after it has got the build's result.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                while self._listeners:
                    self._left.clear()
                    await self._left.wait()


def _response(events: list[Any]) -> StatusResponse:
    response = StatusResponse()
    lists: dict[type, list[Any]] = {
        Vertex: response.vertexes,
        VertexStatus: response.statuses,
        VertexLog: response.logs,
        VertexWarning: response.warnings,
    }
    for event in events:
        lists[type(event)].append(event)
    return response


class Step:
    """One step. It ends once: :meth:`done` or :meth:`failed`."""

    def __init__(self, progress: Progress, digest: str, name: str) -> None:
        self._progress = progress
        self._digest = digest
        self._name = name
        self._started = now()
        self._logged = 0
        self._cached = False
        self.ended = False
        self._tell()

    def _tell(self, error: str = "") -> None:
        self._progress.add(
            Vertex(
                digest=self._digest,
                name=self._name,
                cached=self._cached,
                started=self._started,
                completed=now() if self.ended else None,
                error=error,
            )
        )

    def cached(self) -> None:
        """There is nothing to do: the result was there."""
        self._cached = True

    def done(self) -> None:
        """It is over."""
        if not self.ended:
            self.ended = True
            self._tell()

    def failed(self, why: str) -> None:
        """It is over, without success."""
        if not self.ended:
            self.ended = True
            self._tell(why)

    def log(self, data: bytes, *, stream: int = 1) -> None:
        """It prints something."""
        if self._logged > LOG_LIMIT_BYTES:
            return
        self._logged += len(data)
        if self._logged > LOG_LIMIT_BYTES:
            data, stream = b"\n[output clipped, log limit 2MiB reached]\n", 2
        self._progress.add(VertexLog(vertex=self._digest, timestamp=now(), stream=stream, data=data))

    def amount(self, name: str, current: int, total: int = 0, *, ended: bool = False) -> None:
        """How much of something has come."""
        self._progress.add(
            VertexStatus(
                id=name,
                vertex=self._digest,
                name=name,
                current=current,
                total=total,
                timestamp=now(),
                started=self._started,
                completed=now() if ended else None,
            )
        )

    def pulled(self, message: dict[str, Any]) -> None:
        """A message of Docker's about a pull."""
        name, detail = message.get("id"), message.get("progressDetail") or {}
        ended = message.get("status") in _ARRIVED
        if name and (detail or ended):
            total = int(detail.get("total") or 0)
            self.amount(str(name), int(detail.get("current") or total), total, ended=ended)
