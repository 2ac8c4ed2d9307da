"""Streams across the border between the event loop and threads, with back-pressure in both directions."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator

_PIECES = 8


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
            async for piece in source:
                if piece:
                    await self._put(piece)
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
            item = self._pieces.get()
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
        try:
            self._pieces.put_nowait(None)
        except queue.Full:
            pass


class Outlet:
    """A sink that a thread writes to, and an asynchronous iterator of what it wrote."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._slots = threading.Semaphore(_PIECES)
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._closed = False

    def write(self, data: bytes | memoryview, /) -> int:
        """For the thread. BrokenPipeError once the reader is gone."""
        self._buffer.append(bytes(data))
        self._buffered += len(data)
        if self._buffered >= 1 << 18:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """For the thread: pass on what is buffered."""
        if self._closed:
            raise BrokenPipeError("the reader is gone")
        if self._buffer:
            self._slots.acquire()
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, b"".join(self._buffer))
            self._buffer, self._buffered = [], 0

    def end(self) -> None:
        """For the thread: nothing more comes."""
        if not self._closed:
            self.flush()
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, None)

    async def pieces(self) -> AsyncIterator[bytes]:
        """What was written, until the end."""
        while (piece := await self._pieces.get()) is not None:
            self._slots.release()
            yield piece

    def close(self) -> None:
        """For the reader: stop the writer at its next write."""
        self._closed = True
        for _ in range(_PIECES):
            self._slots.release()
