"""Events: told to whoever listens, kept for a week."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

from enisle.errors import Internal
from enisle.formats.records import decode, encode
from enisle.model.event import Event

RING = 2048
QUEUE = 8192
KEEP_S = 7 * 24 * 3600
SEGMENT_BYTES = 4 << 20
SEGMENTS = 8

log = logging.getLogger("enisle.events")


class Events:
    """``path`` None keeps events in memory only.

    The file grows by one line per event and is written without waiting for the disk: events are history, not state.
    Full segments are renamed ``.1`` ... ``.8``; those wholly older than a week are deleted.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._ring: deque[Event] = deque(maxlen=RING)
        self._subscribers: set[asyncio.Queue[Event | None]] = set()
        self._file = -1
        self._size = 0
        self._last = 0
        if path is not None:
            self._open(path)

    @property
    def listeners(self) -> int:
        return len(self._subscribers)

    @property
    def recent(self) -> list[Event]:
        """The events still in memory, oldest first."""
        return list(self._ring)

    def publish(self, event: Event, *, keep: bool = True) -> None:
        """Tell subscribers and keep it. ``event.time`` 0 is filled in. Never blocks; times strictly increase.

        Without ``keep`` it is told to those who listen now, and soon forgotten.
        """
        if not event.time:
            self._last = max(time.time_ns(), self._last + 1)
            event = replace(event, time=self._last)
        if keep:
            self._ring.append(event)
            self._write(event)
        for queue in self._subscribers:
            if queue.qsize() >= QUEUE:
                self._give_up(queue)
            else:
                queue.put_nowait(event)

    async def subscribe(
        self, *, since_ns: int = 0, until_ns: int = 0, match: Callable[[Event], bool] = lambda _event: True
    ) -> AsyncIterator[Event]:
        """Past events from ``since_ns`` (0: none), then those to come until ``until_ns`` (0: for ever).

        An async generator: do not await it; close it (``aclose``) when the listener goes. A listener that falls
        ``QUEUE`` events behind is cut off.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        past = self._past(since_ns) if since_ns else []
        self._subscribers.add(queue)
        try:
            for event in past:
                if since_ns <= event.time and (not until_ns or event.time <= until_ns) and match(event):
                    yield event
            while True:
                live = await self._next(queue, until_ns)
                if live is None or (until_ns and live.time > until_ns):
                    return
                if match(live):
                    yield live
        finally:
            self._subscribers.discard(queue)

    def close(self) -> None:
        """End all subscriptions and the file."""
        for queue in list(self._subscribers):
            self._give_up(queue)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _give_up(self, queue: asyncio.Queue[Event | None]) -> None:
        queue.put_nowait(None)

    async def _next(self, queue: asyncio.Queue[Event | None], until_ns: int) -> Event | None:
        if not until_ns:
            return await queue.get()
        left_s = (until_ns - time.time_ns()) / 1e9
        if left_s <= 0 and queue.empty():
            return None
        try:
            return await asyncio.wait_for(queue.get(), max(left_s, 0.001))
        except TimeoutError:
            return None

    # --- the file --------------------------------------------------------------------------------------------------

    def _open(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size
        self._ring.extend(self._read(path, tail=True))
        if self._ring:
            self._last = self._ring[-1].time

    def _write(self, event: Event) -> None:
        if self._file < 0 or self._path is None:
            return
        line = encode(event) + b"\n"
        try:
            os.write(self._file, line)
        except OSError as error:
            log.warning("%s: an event could not be kept: %s", self._path, error)
            return
        self._size += len(line)
        if self._size >= SEGMENT_BYTES:
            self._rotate(self._path)

    def _rotate(self, path: Path) -> None:
        os.close(self._file)
        for number in range(SEGMENTS - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if not older.exists():
                continue
            if time.time() - older.stat().st_mtime > KEEP_S:
                older.unlink()
            else:
                older.rename(path.with_name(f"{path.name}.{number + 1}"))
        path.rename(path.with_name(f"{path.name}.1"))
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = 0

    def _past(self, since_ns: int) -> list[Event]:
        """Kept events from then on: from memory if it reaches back so far, else from the files."""
        if self._path is None or (self._ring and self._ring[0].time <= since_ns):
            return list(self._ring)
        since_ns = max(since_ns, time.time_ns() - KEEP_S * 10**9)
        found: list[Event] = []
        for number in range(SEGMENTS, -1, -1):
            path = self._path.with_name(f"{self._path.name}.{number}") if number else self._path
            try:
                if path.stat().st_mtime_ns >= since_ns:
                    found.extend(event for event in self._read(path) if event.time >= since_ns)
            except FileNotFoundError:
                continue
        return found

    def _read(self, path: Path, *, tail: bool = False) -> Iterator[Event]:
        """The events of one file (``tail``: those of its last part); lines cut off by a crash are passed over."""
        with path.open("rb") as file:
            if tail:
                file.seek(max(0, self._size - RING * 512))
            for line in file:
                try:
                    yield decode(Event, line)
                except Internal:
                    continue
