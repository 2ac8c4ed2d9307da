"""What one does with the content of volumes: export, import, clone, snapshots, rename, another size.

Every new content is made whole beside the old one and takes its place in one step, so that a crash at any point leaves
one of the two. Consistency: files are read one after the other while instances may write them, each as it is at that
moment; nobody's writes stop meanwhile. Content is put into a volume only while no running instance uses it.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from enisle.cleanup import to_the_end
from enisle.engine.volume_options import backing_of, parse_size
from enisle.engine.volume_storage import DATA, DISK, SNAPSHOTS
from enisle.engine.volumes import Volumes
from enisle.errors import Conflict, Denied, Exhausted, Invalid, NotFound
from enisle.model.ids import check_name
from enisle.model.volume import Backing, Snapshot, Volume

Write = Callable[[str], Awaitable[None]]
"""Writes the content of a volume into the directory at a path."""


class VolumeCopies:
    """One per engine."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._storage = volumes.storage
        self._files = volumes.storage.files

    @asynccontextmanager
    async def export(self, name: str, *, snapshot: str = "") -> AsyncIterator[AsyncIterator[bytes]]:
        """A tar of the volume or of one of its snapshots. Equal content gives equal bytes."""
        async with self._content(await self._volumes.get(name), snapshot) as path:
            yield await self._files.pack(path)

    async def import_tar(
        self, name: str, source: AsyncIterator[bytes], *, replaces: bool = False, size: str = ""
    ) -> Volume:
        """A new volume with what a tar holds; ``replaces``: it takes the place of what a volume has, if there is one.

        Conflict when it exists, or a running instance uses it. Invalid for an archive that is none: nothing changes.
        """

        async def write(path: str) -> None:
            await self._files.unpack(path, source)

        if replaces and self._exists(name):
            volume = await self._volumes.get(name)
            if size:
                raise Invalid(f"volume {name} exists, and has a size already.", remedy="Resize it.")
            await self._replace(volume, volume, write, "import")
            return await self._volumes.get(name)
        return await self._new(await self._like(name, size=size), write)

    async def clone(self, name: str, target: str, *, snapshot: str = "", size: str = "") -> Volume:
        """A new volume with the same content, labels and limit; another limit with ``size``."""
        original = await self._volumes.get(name)
        limit = size or (str(original.size_bytes) if original.size_bytes else "")
        wanted = await self._like(target, size=limit, labels=original.labels)
        async with self._content(original, snapshot) as source:
            return await self._new(wanted, lambda path: self._files.copy(source, path))

    async def rename(self, name: str, target: str) -> Volume:
        """Conflict while an instance mentions it, running or not."""
        volume = await self._volumes.get(name)
        async with self._volumes.claimed(target), self._storage.locks[name]:
            users = self._volumes.in_use_by(name) or sorted(self._storage.used_by(name))
            if users:
                raise Conflict(f"rename {name}: volume is in use - [{', '.join(users)}]")
            await self._volumes.rename(await self._volumes.get(name), target)
        self._volumes.created(volume)
        return await self._volumes.get(target)

    async def resize(self, name: str, size: str) -> Volume:
        """Another limit. More is given at once, less only while no running instance uses it (Backing.IMAGE).

        Conflict when the content does not fit.
        """
        volume, size_bytes = await self._volumes.get(name), parse_size(size)
        if volume.backing not in (Backing.IMAGE, Backing.PROJECT):
            raise Invalid(f"volume {name} has no size limit.", remedy="Clone it with one: enisle volume clone --size.")
        if not size_bytes:
            raise Invalid(f"invalid size: '{size[:80]}'")
        wanted = replace(volume, size_bytes=size_bytes, options={**volume.options, "size": size})
        try:
            if volume.backing is Backing.PROJECT:
                await self._files.limit(volume.mountpoint, size_bytes)
                await self._volumes.store(wanted)
            elif size_bytes < volume.size_bytes:
                await self._replace(volume, wanted, lambda path: self._copy_itself(volume, path), "resize")
            else:
                await self._grow(volume, wanted)
        except Exhausted as error:
            raise Conflict(f"resize {name}: its content does not fit into {size}: {error}") from error
        return wanted

    async def _grow(self, volume: Volume, wanted: Volume) -> None:
        """At once, where the host lets root do that (CAP_SYS_RESOURCE); else by a copy, while nobody uses it."""
        try:
            async with self._storage.grown(wanted):
                await self._volumes.store(wanted)
        except Denied as error:
            if self._storage.used_by(volume.name):
                raise Conflict(f"resize {volume.name}: this host cannot let a volume in use grow: {error}") from error
            await self._replace(volume, wanted, lambda path: self._copy_itself(volume, path), "resize")

    # --- snapshots -------------------------------------------------------------------------------------------------

    async def snapshot(self, name: str, snapshot: str = "") -> Snapshot:
        """Keep the files as they are. Blocks are shared with the volume where the file system can do that."""
        volume = await self._ours(name)
        taken = Snapshot(name=snapshot or time.strftime("%Y%m%d-%H%M%S", time.gmtime()), created_at=time.time_ns())
        check_name(taken.name, "snapshot")
        self._refuse_second(volume, taken)
        place = self._storage.new_place(name)
        async with self._storage.opened(volume) as source:
            plain = replace(volume, backing=Backing.DIRECTORY)
            async with self._storage.made(place, plain) as path:
                await self._files.copy(source, path)
        async with self._storage.locks[name]:
            try:
                volume = await self._volumes.get(name)
                self._refuse_second(volume, taken)
                kept = self._directory(name) / SNAPSHOTS
                kept.mkdir(mode=0o700, exist_ok=True)
                os.rename(place, kept / taken.name)
            except BaseException:
                await to_the_end(self._storage.discard(place))
                raise
            await self._volumes.store(replace(volume, snapshots=(*volume.snapshots, taken)))
        return taken

    async def restore(self, name: str, snapshot: str) -> None:
        """Put the files of a snapshot in the place of the volume's. Conflict while a running instance uses it."""
        volume = await self._ours(name)
        source = str(self._snapshot_place(volume, snapshot))
        await self._replace(volume, volume, lambda path: self._files.copy(source, path), "restore")

    async def remove_snapshot(self, name: str, snapshot: str) -> None:
        async with self._storage.locks[name]:
            volume = await self._ours(name)
            place = self._snapshot_place(volume, snapshot).parent
            left = tuple(each for each in volume.snapshots if each.name != snapshot)
            await self._volumes.store(replace(volume, snapshots=left))
            await to_the_end(self._storage.discard(place))

    async def _copy_itself(self, volume: Volume, path: str) -> None:
        async with self._storage.opened_locked(volume) as source:
            await self._files.copy(source, path)

    # --- how -------------------------------------------------------------------------------------------------------

    def _directory(self, name: str) -> Path:
        return self._storage.root / name

    def _exists(self, name: str) -> bool:
        return any(volume.name == name for volume in self._volumes.all())

    async def _ours(self, name: str) -> Volume:
        volume = await self._volumes.get(name)
        if not volume.is_ours:
            raise Invalid(f"volume {name} is kept elsewhere ({volume.backing.value}): only its owner can do that")
        return volume

    def _refuse_second(self, volume: Volume, taken: Snapshot) -> None:
        if any(each.name == taken.name for each in volume.snapshots):
            raise Conflict(f"volume {volume.name} has a snapshot named {taken.name} already")

    def _snapshot_place(self, volume: Volume, snapshot: str) -> Path:
        if all(each.name != snapshot for each in volume.snapshots):
            raise NotFound(f"volume {volume.name} has no snapshot {snapshot}")
        return self._directory(volume.name) / SNAPSHOTS / snapshot / DATA

    @asynccontextmanager
    async def _content(self, volume: Volume, snapshot: str) -> AsyncIterator[str]:
        if snapshot:
            yield str(self._snapshot_place(volume, snapshot))
            return
        async with self._storage.opened(volume) as path:
            yield path

    async def _like(self, name: str, *, size: str, labels: dict[str, str] | None = None) -> Volume:
        options = {"size": size} if size else {}
        return Volume(
            name=name,
            mountpoint=self._volumes.mountpoint_of(name, options),
            created_at=time.time_ns(),
            labels=dict(labels or {}),
            options=options,
            backing=backing_of(options, quotas=await self._storage.has_quotas()),
            size_bytes=parse_size(size or "0"),
        )

    async def _new(self, volume: Volume, write: Write) -> Volume:
        async with self._volumes.claimed(volume.name) as directory:
            async with self._storage.made(directory, volume) as path:
                await write(path)
            try:
                await self._volumes.store(volume)
            except BaseException:
                await to_the_end(self._storage.discard(directory))
                raise
        self._volumes.created(volume)
        return volume

    async def _replace(self, volume: Volume, wanted: Volume, write: Write, verb: str) -> None:
        """Give a volume new content, and the record ``wanted``."""
        if not volume.is_ours:
            raise Invalid(
                f"volume {volume.name} is kept elsewhere ({volume.backing.value}): only its owner can do that"
            )
        async with self._storage.locks[volume.name]:
            users = self._storage.used_by(volume.name)
            if users:
                raise Conflict(f"{verb} {volume.name}: volume is in use - [{', '.join(sorted(users))}]")
            place = self._storage.new_place(volume.name)
            async with self._storage.made(place, wanted) as path:
                await write(path)
            part = DISK if volume.backing is Backing.IMAGE else DATA
            await self._files.exchange(self._directory(volume.name) / part, place / part)
            if wanted != volume:
                await self._volumes.store(wanted)
            await to_the_end(self._storage.discard(place))
