"""Fewer and larger writes of what comes in many small pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

_MOST_BYTES = 1 << 20


async def in_blocks(source: AsyncIterator[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """Blocks of at least that size, but for the last; for a source that does not pause."""
    buffer = bytearray()
    async for data in source:
        buffer += data
        if len(buffer) >= size:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


async def as_it_comes(source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """All that has come since the last time, at once; nothing waits for more. The source is read ahead by 1 MiB."""
    buffer = bytearray()
    arrived, taken = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        async for data in source:
            buffer.extend(data)
            arrived.set()
            if len(buffer) >= _MOST_BYTES:
                taken.clear()
                await taken.wait()

    reading = asyncio.create_task(read(), name="read ahead")
    reading.add_done_callback(lambda _: arrived.set())
    try:
        while buffer or not reading.done():
            await arrived.wait()
            arrived.clear()
            if buffer:
                data = bytes(buffer)
                buffer.clear()
                taken.set()
                yield data
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
