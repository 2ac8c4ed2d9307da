"""Cleaning up that no cancellation can cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def to_the_end(work: asyncio.Task[Any] | Coroutine[Any, Any, Any]) -> None:
    """Wait until that has ended, whatever is cancelled meanwhile; for the handler of a failure, which raises it again.

    A task that is cancelled a second time (by its group, then by its owner) would leave its handler in the middle.
    """
    task = work if isinstance(work, asyncio.Task) else asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            continue
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
