"""Waiting for a client to read the head."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from enisle.api.headread import wait_head_read


async def test_it_waits_for_the_reader() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"head")
        waiting = asyncio.ensure_future(wait_head_read(ours.fileno()))
        await asyncio.sleep(0)
        assert not waiting.done()
        theirs.recv(100)
        await waiting


async def test_it_does_not_wait_for_ever_nor_without_need() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await wait_head_read(ours.fileno())
        ours.send(b"head")
        await asyncio.wait_for(wait_head_read(ours.fileno()), 5)
        assert theirs.recv(100) == b"head"
    reading, writing = os.pipe()
    await wait_head_read(writing)
    os.close(reading)
    os.close(writing)


async def test_cancelled_it_closes_the_descriptor() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.send(b"head")
        fd = ours.detach()
        waiting = asyncio.ensure_future(wait_head_read(fd))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert theirs.recv(100) == b"head"
        assert theirs.recv(100) == b""
