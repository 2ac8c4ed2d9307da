"""Directories of RUN --mount=type=cache: kept between builds, one per id, shared as each mount asks for."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from enisle.archive.beneath import remove
from enisle.linux.disk_usage import allocated_bytes

_NOTE = ".json"


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
        self._used: Counter[str] = Counter()

    @asynccontextmanager
    async def leased(
        self, identity: str, sharing: Sharing, *, mode: int, owner: tuple[int, int]
    ) -> AsyncIterator[Path]:
        """The directory of a cache, made with these attributes if it is new."""
        name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        if sharing is Sharing.LOCKED:
            async with (
                self._locks.setdefault(name, asyncio.Lock()),
                self._lease(name, identity, mode, owner) as path,
            ):
                yield path
            return
        if sharing is Sharing.PRIVATE:
            name = self._free(name)
        async with self._lease(name, identity, mode, owner) as path:
            yield path

    def _free(self, name: str) -> str:
        number = 0
        while self._used[f"{name}-{number}"]:
            number += 1
        return f"{name}-{number}"

    @asynccontextmanager
    async def _lease(self, name: str, identity: str, mode: int, owner: tuple[int, int]) -> AsyncIterator[Path]:
        path = self._root / name
        self._used[name] += 1
        try:
            try:
                path.mkdir(mode=0o700, parents=True)
            except FileExistsError:
                pass
            else:
                os.chown(path, *owner)
                path.chmod(mode)
            self._note(name, identity)
            yield path
        finally:
            self._used[name] -= 1

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
        return [self._look(name) for name in sorted(names) if not name.endswith(_NOTE)]

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
        parent = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for one in (name, f"{name}{_NOTE}"):
                remove(parent, os.fsencode(one))
        finally:
            os.close(parent)
        return True
