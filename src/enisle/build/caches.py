"""Directories of RUN --mount=type=cache: kept between builds, one per id, shared as each mount asks for."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from enisle.archive.beneath import remove
from enisle.linux.disk_usage import allocated_bytes

_NOTE = ".json"
_UNFINISHED = ".new"
Fill = Callable[[Path], Awaitable[None]]
"""Makes the directory of a new cache, with what it is to begin with."""


class Sharing(StrEnum):
    """What happens when two builds want one cache: both use it, the second has another one, or it waits."""

    SHARED = "shared"
    PRIVATE = "private"
    LOCKED = "locked"


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheMount:
    """One cache. ``identity``: the id that mounts call it by. ``size_bytes``: on the disk."""

    name: str
    identity: str
    size_bytes: int
    in_use: bool
    created_ns: int
    used_ns: int
    count: int


class CacheMounts:
    """The caches in one directory of the data root. Names are digests of ids: no id leads to another directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: dict[str, asyncio.Lock] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self._used: Counter[str] = Counter()

    @asynccontextmanager
    async def leased(
        self, identity: str, sharing: Sharing, *, mode: int, owner: tuple[int, int], fill: Fill | None = None
    ) -> AsyncIterator[Path]:
        """The directory of a cache, made with these attributes, or by ``fill``, if it is new."""
        make = fill or partial(_make, mode=mode, owner=owner)
        name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        if sharing is Sharing.LOCKED:
            async with (
                self._locks.setdefault(name, asyncio.Lock()),
                self._lease(name, identity, make) as path,
            ):
                yield path
            return
        if sharing is Sharing.PRIVATE:
            name = self._free(name)
        async with self._lease(name, identity, make) as path:
            yield path

    def _free(self, name: str) -> str:
        number = 0
        while self._used[f"{name}-{number}"]:
            number += 1
        return f"{name}-{number}"

    @asynccontextmanager
    async def _lease(self, name: str, identity: str, make: Fill) -> AsyncIterator[Path]:
        path = self._root / name
        self._used[name] += 1
        try:
            async with self._making.setdefault(name, asyncio.Lock()):
                if not path.exists():
                    self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                    await self._make(name, make)
            self._note(name, identity)
            yield path
        finally:
            self._used[name] -= 1

    async def _make(self, name: str, make: Fill) -> None:
        """Whole or not at all, whatever ends it."""
        unfinished = f"{name}{_UNFINISHED}"
        try:
            await make(self._root / unfinished)
            os.rename(self._root / unfinished, self._root / name)
        except BaseException:
            self._remove(unfinished)
            raise

    def sweep(self) -> None:
        """Remove what was being made when enisled was killed."""
        for name in os.listdir(self._root) if self._root.is_dir() else []:
            if name.endswith(_UNFINISHED):
                self._remove(name)

    def _remove(self, *names: str) -> None:
        parent = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names:
                remove(parent, os.fsencode(name))
        finally:
            os.close(parent)

    def _note(self, name: str, identity: str) -> None:
        """Write down that a cache is used. Losing it costs an order of removal, nothing else."""
        known = self._noted(name)
        now = time.time_ns()
        note = {"id": identity, "created": known.get("created", now), "used": now, "count": known.get("count", -1) + 1}
        with suppress(OSError):
            (self._root / f"{name}{_NOTE}").write_text(json.dumps(note))

    def _noted(self, name: str) -> dict[str, int]:
        try:
            note = json.loads((self._root / f"{name}{_NOTE}").read_text())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def all(self) -> list[CacheMount]:
        """Every cache. Reads all of them to tell their sizes."""
        names = os.listdir(self._root) if self._root.is_dir() else []
        return [self._look(name) for name in sorted(names) if not name.endswith((_NOTE, _UNFINISHED))]

    def _look(self, name: str) -> CacheMount:
        note = self._noted(name)
        made = int(note.get("created", 0)) or (self._root / name).stat().st_mtime_ns
        return CacheMount(
            name=name,
            identity=str(note.get("id", "")),
            size_bytes=allocated_bytes(self._root / name),
            in_use=self._used[name] > 0,
            created_ns=made,
            used_ns=int(note.get("used", made)),
            count=int(note.get("count", 0)),
        )

    def remove(self, name: str) -> bool:
        """Remove a cache unless a build uses it; whether it was. At once out of sight, then file by file."""
        if self._used[name]:
            return False
        self._remove(name, f"{name}{_NOTE}")
        return True


async def _make(path: Path, *, mode: int, owner: tuple[int, int]) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, *owner)
    path.chmod(mode)
