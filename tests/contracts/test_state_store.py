"""One suite for every StateStore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enisle.contracts import StateStore
from enisle.state.memory import MemoryStore
from enisle.state.sqlite import SqliteStore


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    made: StateStore = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "state.db")
    yield made
    await made.close()


async def test_missing_key(store: StateStore) -> None:
    assert await store.get("a") is None


async def test_put_and_get(store: StateStore) -> None:
    assert await store.commit({"a": b"1"})
    entry = await store.get("a")
    assert entry is not None and entry[0] == b"1" and entry[1] > 0


async def test_every_write_raises_the_revision(store: StateStore) -> None:
    seen = []
    for value in (b"1", b"1", b"2"):
        await store.commit({"a": value})
        entry = await store.get("a")
        assert entry is not None
        seen.append(entry[1])
    assert seen == sorted(set(seen))


async def test_scan_is_sorted_and_keeps_to_the_prefix(store: StateStore) -> None:
    await store.commit({"b/2": b"2", "b/1": b"1", "a/1": b"x", "b": b"y", "b0": b"z", "b/ü": b"3"})
    assert [(key, value) for key, value, _ in await store.scan("b/")] == [("b/1", b"1"), ("b/2", b"2"), ("b/ü", b"3")]
    assert len(await store.scan("")) == 6


async def test_deletes_and_puts_are_one(store: StateStore) -> None:
    await store.commit({"a": b"1", "b": b"2"})
    await store.commit({"c": b"3"}, deletes=["a", "missing"])
    assert [key for key, _, _ in await store.scan("")] == ["b", "c"]


async def test_expectations(store: StateStore) -> None:
    assert await store.commit({"a": b"1"}, expect={"a": 0})
    assert not await store.commit({"a": b"2", "b": b"2"}, expect={"a": 0})
    assert await store.get("b") is None
    entry = await store.get("a")
    assert entry is not None and entry[0] == b"1"
    assert await store.commit({}, deletes=["a"], expect={"a": entry[1]})
    assert await store.commit({"a": b"3"}, expect={"a": 0})


async def test_of_rival_claims_one_wins(store: StateStore) -> None:
    won = await asyncio.gather(*(store.commit({"name": str(n).encode()}, expect={"name": 0}) for n in range(50)))
    assert sum(won) == 1
    entry = await store.get("name")
    assert entry is not None and won[int(entry[0])]
