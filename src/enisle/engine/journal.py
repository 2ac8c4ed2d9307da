"""Write-behind for records: changes are noted at once and committed in order, several in one transaction."""

from __future__ import annotations

import asyncio
import logging

from enisle.contracts import StateStore
from enisle.errors import EnisleError

log = logging.getLogger("enisle.engine")


class Journal:
    """One writer for all records, so that no older value can overtake a newer one.

    A change that could not be stored (a full disk) is tried again with the next one.
    """

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._pending: dict[str, bytes | None] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    def note(self, key: str, value: bytes | None) -> asyncio.Future[None]:
        """Store the value (None: delete the key). The future is for whoever must know; it need not be awaited."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._pending[key] = value
        self._waiting.append(done)
        if self._task is None:
            self._task = loop.create_task(self._write())
        return done

    async def flush(self) -> None:
        """Wait until all that was noted is stored (or has failed and was logged)."""
        while self._task is not None:
            await self._task

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._write_once()
        finally:
            self._task = None

    async def _write_once(self) -> None:
        pending, waiting = self._pending, self._waiting
        self._pending, self._waiting = {}, []
        puts = {key: value for key, value in pending.items() if value is not None}
        try:
            await self._store.commit(puts, [key for key, value in pending.items() if value is None])
        except EnisleError as error:
            log.error("records could not be stored: %s", error)
            self._pending = {**pending, **self._pending}
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # seen: not everybody awaits it
        else:
            for future in waiting:
                if not future.done():
                    future.set_result(None)
