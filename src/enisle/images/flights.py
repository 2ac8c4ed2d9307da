"""Work that several want at once is done once; it goes on while anybody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from enisle.contracts import Progress

Result = TypeVar("Result")


class _Flight(Generic[Result]):
    def __init__(self) -> None:
        self.task: asyncio.Task[Result]
        self.listeners: list[Progress] = []
        self.last: dict[str, dict[str, Any]] = {}  # latest message per id, for those who join later

    def report(self, message: dict[str, Any]) -> None:
        self.last[str(message.get("id", ""))] = message
        for listener in list(self.listeners):
            listener(message)


class Flights(Generic[Result]):
    """Running work by key."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Flight[Result]] = {}

    async def join(
        self, key: Hashable, work: Callable[[Progress], Coroutine[Any, Any, Result]], progress: Progress
    ) -> Result:
        """The result of ``work``, which is started unless it runs already. Its progress reaches all who wait.

        Cancelled when the last of those who wait is; then this returns only once it has cleaned up.
        """
        flight = self._running.get(key)
        if flight is None:
            flight = _Flight()
            flight.task = asyncio.create_task(work(flight.report))
            self._running[key] = flight
            flight.task.add_done_callback(lambda _: self._drop(key, flight))
        else:
            for message in flight.last.values():
                progress(message)
        flight.listeners.append(progress)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.listeners.remove(progress)
            if not flight.listeners and not flight.task.done():
                self._drop(key, flight)
                flight.task.cancel()
                await asyncio.wait([flight.task])

    def _drop(self, key: Hashable, flight: _Flight[Result]) -> None:
        if self._running.get(key) is flight:
            del self._running[key]

    async def landed(self, key: Hashable) -> bool:
        """Wait for work that may be under way; whether it was, and succeeded."""
        flight = self._running.get(key)
        if flight is None:
            return False
        await asyncio.wait([flight.task])
        return not flight.task.cancelled() and flight.task.exception() is None
