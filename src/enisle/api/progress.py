"""Long operations that tell how they get on: a stream of JSON messages, as pull, push and load have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from enisle.api.call import Call, json_line
from enisle.api.reply import as_unicode
from enisle.contracts import Progress
from enisle.errors import EnisleError, exhaustion

_log = logging.getLogger(__name__)
_MAX_PENDING = 512


class _Pending:
    """Messages that the client has not taken yet. A slow client loses intermediate numbers, nothing else."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.some = asyncio.Event()

    def add(self, message: dict[str, Any]) -> None:
        if len(self.messages) >= _MAX_PENDING and message.get("progressDetail"):
            return
        self.messages.append(message)
        self.some.set()

    def take(self) -> bytes:
        data = b"".join(map(json_line, self.messages))
        self.messages.clear()
        self.some.clear()
        return data


async def stream_progress(
    call: Call, work: Callable[[Progress], Awaitable[Any]], *, failure_status: bool = True
) -> web.StreamResponse:
    """Run ``work`` and send what it reports. A failure before the first message has its own HTTP status (not without
    ``failure_status``); later it is a message of its own, as in dockerd. The client's going away cancels the work."""
    pending = _Pending()
    task = asyncio.ensure_future(work(pending.add))
    task.add_done_callback(lambda _task: pending.some.set())
    response: web.StreamResponse | None = None
    try:
        while not task.done():
            await pending.some.wait()
            if pending.messages:
                response = response or await call.stream("application/json")
                await response.write(pending.take())
            else:
                pending.some.clear()
        error = task.exception()
        silent = response is None and not pending.messages
        if error is not None and silent and (failure_status or not isinstance(error, EnisleError)):
            raise error
        response = response or await call.stream("application/json")
        _add_failure(pending, task)
        await response.write(pending.take())
        await response.write_eof()
        return response
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _add_failure(pending: _Pending, task: asyncio.Future[Any]) -> None:
    error = task.exception()
    if error is None:
        return
    told = error if isinstance(error, EnisleError) else exhaustion(error)
    if told is not None:
        text = as_unicode(str(told))
    else:
        _log.error("a long operation failed", exc_info=error)
        text = "internal error: see the daemon's log"
    pending.add({"errorDetail": {"message": text}, "error": text})
