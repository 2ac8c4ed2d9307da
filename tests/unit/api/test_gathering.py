"""Small pieces become larger ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from enisle.api.gathering import as_it_comes, in_blocks


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for each in given:
        yield each


async def test_blocks() -> None:
    assert [block async for block in in_blocks(pieces(b"ab", b"cd", b"e"), 3)] == [b"abcd", b"e"]
    assert [block async for block in in_blocks(pieces(), 3)] == []


async def test_what_is_there_comes_at_once_and_nothing_waits() -> None:
    more = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"
        await more.wait()
        yield b"3"

    gathered = as_it_comes(source())
    assert await anext(gathered) == b"12"
    more.set()
    assert [block async for block in gathered] == [b"3"]
    assert [block async for block in as_it_comes(pieces())] == []


async def test_a_reader_that_is_slow_holds_the_source_up() -> None:
    read = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(10):
            read += 1
            yield b"x" * (1 << 19)

    gathered = as_it_comes(source())
    assert len(await anext(gathered)) == 1 << 20
    for _ in range(5):
        await asyncio.sleep(0)
    assert read <= 5
    assert sum([len(block) async for block in gathered]) == 4 << 20


async def test_failures_come_after_what_was_read_and_an_early_end_ends_the_reading() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"1"
        raise ValueError("no more")

    gathered = as_it_comes(failing())
    assert await anext(gathered) == b"1"
    with pytest.raises(ValueError, match="no more"):
        await anext(gathered)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"1"
            await asyncio.sleep(0)

    gathered = as_it_comes(endless())
    await anext(gathered)
    await gathered.aclose()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "read ahead"]
