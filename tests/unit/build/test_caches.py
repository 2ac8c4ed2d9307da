"""Caches of RUNs: made whole or not at all, and filled once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from enisle.build.agents import relayed
from enisle.build.caches import CacheMounts, Sharing

OURS = (os.geteuid(), os.getegid())


async def test_a_new_cache_is_filled_once_however_many_want_it(tmp_path: Path) -> None:
    caches = CacheMounts(tmp_path / "mounts")
    filled: list[Path] = []

    async def fill(path: Path) -> None:
        filled.append(path)
        path.mkdir()
        await asyncio.sleep(0.01)
        (path / "f").write_text("begun")

    async def use() -> str:
        async with caches.leased("id", Sharing.SHARED, mode=0o700, owner=OURS, fill=fill) as path:
            return (path / "f").read_text()

    assert await asyncio.gather(use(), use(), use()) == ["begun"] * 3
    assert len(filled) == 1
    assert [one.identity for one in caches.all()] == ["id"]


async def test_a_cache_that_could_not_be_filled_is_not_there(tmp_path: Path) -> None:
    caches = CacheMounts(tmp_path / "mounts")

    async def fill(path: Path) -> None:
        path.mkdir()
        (path / "half").touch()
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        async with caches.leased("id", Sharing.LOCKED, mode=0o700, owner=OURS, fill=fill):
            pytest.fail("nothing to use")
    assert list((tmp_path / "mounts").iterdir()) == []


def test_what_a_killed_engine_was_making_is_removed(tmp_path: Path) -> None:
    caches = CacheMounts(tmp_path)
    (tmp_path / "name.new" / "d").mkdir(parents=True)
    (tmp_path / "whole").mkdir()
    caches.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


async def test_an_agent_answers_after_the_program_has_said_all(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read()
        await asyncio.sleep(0.02)
        writer.write(asked.upper() * 100_000)
        writer.close()

    agent = await asyncio.start_unix_server(answer, tmp_path / "agent")
    async with agent, relayed(str(tmp_path / "agent"), tmp_path / "relay", mode=0o600, owner=OURS):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "relay")
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"HELLO" * 100_000
        writer.close()
