"""Small pieces of a stream put together, so that what handles them is not called for each."""

from __future__ import annotations

from collections.abc import AsyncIterator


async def batches(source: AsyncIterator[bytes], least_bytes: int) -> AsyncIterator[bytes]:
    """The stream in pieces of that size and more, the last one excepted."""
    held: list[bytes] = []
    size = 0
    async for piece in source:
        held.append(piece)
        size += len(piece)
        if size >= least_bytes:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)
