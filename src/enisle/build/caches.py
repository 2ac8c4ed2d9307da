"""Directories of RUN --mount=type=cache: kept between builds, one per id, shared as each mount asks for."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

from enisle.archive.beneath import remove


class Sharing(StrEnum):
    """What happens when two builds want one cache: both use it, the second has another one, or it waits."""

    SHARED = "shared"
    PRIVATE = "private"
    LOCKED = "locked"


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
            async with self._locks.setdefault(name, asyncio.Lock()), self._lease(name, mode, owner) as path:
                yield path
            return
        if sharing is Sharing.PRIVATE:
            name = self._free(name)
        async with self._lease(name, mode, owner) as path:
            yield path

    def _free(self, name: str) -> str:
        number = 0
        while self._used[f"{name}-{number}"]:
            number += 1
        return f"{name}-{number}"

    @asynccontextmanager
    async def _lease(self, name: str, mode: int, owner: tuple[int, int]) -> AsyncIterator[Path]:
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
            yield path
        finally:
            self._used[name] -= 1

    def prune(self) -> int:
        """Remove every cache that no build uses; the bytes freed."""
        freed = 0
        if not self._root.is_dir():
            return 0
        parent = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(parent):
                if not self._used[name]:
                    freed += size(self._root / name)
                    remove(parent, os.fsencode(name))
        finally:
            os.close(parent)
        return freed

    def size(self) -> int:
        """Bytes of all caches."""
        return size(self._root) if self._root.is_dir() else 0


def size(directory: Path) -> int:
    """Bytes on the disk of a tree; links are not followed."""
    total = 0
    for above, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(above, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
