"""Streams from the event loop to a thread, with back-pressure."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

from enisle.images.batches import batches

_PIECES = 8
_BATCH_BYTES = 1 << 18  # smaller pieces go together: each change of threads costs


class Inlet:
    """Bytes from an asynchronous source, read by a thread as from a file."""

    def __init__(self) -> None:
        self._pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(_PIECES)
        self._room = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._current = memoryview(b"")
        self._ended = False
        self._closed = threading.Event()

    async def feed(self, source: AsyncIterator[bytes]) -> None:
        """Pass on all of the source; a failure of the source is raised by the reader."""
        try:
            async for batch in batches(source, _BATCH_BYTES):
                await self._put(batch)
            await self._put(None)
        except Exception as error:
            await self._put(error)

    async def _put(self, piece: bytes | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                self._pieces.put_nowait(piece)
                return
            except queue.Full:
                self._room.clear()
                if not self._pieces.full():  # a reader took one between the two lines
                    continue
                await self._room.wait()

    def read(self, size: int, /) -> bytes:
        """For the thread: at most ``size`` bytes, b"" at the end or after close."""
        if not self._current and not self._ended:
            item = self._pieces.get() if not self._closed.is_set() else None
            self._loop.call_soon_threadsafe(self._room.set)
            if isinstance(item, BaseException):
                self._ended = True
                raise item
            self._ended = item is None
            self._current = memoryview(item or b"")
        piece, self._current = self._current[:size], self._current[size:]
        return bytes(piece)

    def close(self) -> None:
        """Let both sides go: the feeder stops, a waiting reader sees the end."""
        self._closed.set()
        self._room.set()
        while True:
            try:
                self._pieces.put_nowait(None)
                return
            except queue.Full:
                with suppress(queue.Empty):
                    self._pieces.get_nowait()
