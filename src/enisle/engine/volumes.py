"""Volumes: their records, who mentions them, and their making and removal."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from enisle.cleanup import to_the_end
from enisle.contracts import StateStore, VolumeFiles
from enisle.engine.events import Events
from enisle.engine.volume_options import backing_of, bound_device, check, parse_size
from enisle.engine.volume_storage import DATA, DISK, NEW, SNAPSHOTS, Storage
from enisle.errors import Conflict, EnisleError, NotFound
from enisle.formats.records import decode, encode
from enisle.model.event import Event
from enisle.model.ids import check_volume_name, new_id
from enisle.model.instance import Instance, MountKind
from enisle.model.volume import Backing, Snapshot, Volume

PREFIX = "volumes/"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"

log = logging.getLogger("enisle.engine")


class Volumes:
    """All volumes, in memory and written through to the store; ``root`` is data_root/volumes."""

    def __init__(self, root: Path, store: StateStore, events: Events, files: VolumeFiles) -> None:
        self._root = root
        self._store = store
        self._events = events
        self._volumes: dict[str, Volume] = {}
        self._users: dict[str, set[str]] = {}
        self._being_made: set[str] = set()
        self._lock = asyncio.Lock()
        self.storage = Storage(root, files)

    async def open(self) -> None:
        """Read the records; a directory without a record is what a creation or removal cut short has left."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
        for _key, value, _revision in await self._store.scan(PREFIX):
            volume = decode(Volume, value)
            self._volumes[volume.name] = volume
            if volume.moving_from:
                await self.finish_renaming(volume)
            if volume.is_ours:
                (self._root / volume.name / DATA).mkdir(parents=True, exist_ok=True)

    async def adopt_directories(self) -> None:
        """After the store was lost: make records for the directories that have none, so that no data is lost."""
        for entry in os.scandir(self._root):
            directory = Path(entry.path)
            if entry.name in self._volumes or not (directory / DATA).is_dir():
                continue
            disk, kept = directory / DISK, directory / SNAPSHOTS
            volume = Volume(
                name=entry.name,
                mountpoint=str(directory / DATA),
                created_at=time.time_ns(),
                backing=Backing.IMAGE if disk.exists() else Backing.DIRECTORY,
                size_bytes=disk.stat().st_size if disk.exists() else 0,
                snapshots=tuple(
                    Snapshot(name=name, created_at=(kept / name).stat().st_mtime_ns)
                    for name in (sorted(os.listdir(kept)) if kept.is_dir() else ())
                ),
            )
            await self.store(volume)

    async def store(self, volume: Volume) -> None:
        """Put a record, new or changed, into the store and then into memory."""
        await self._store.commit({PREFIX + volume.name: encode(volume)})
        self._volumes[volume.name] = volume

    async def rename(self, old: Volume, name: str) -> None:
        """Give it a name that was claimed. A crash in between is mended by :meth:`open`."""
        volume = replace(old, name=name, mountpoint=self.mountpoint_of(name, old.options), moving_from=old.name)
        await self._store.commit({PREFIX + name: encode(volume)}, deletes=[PREFIX + old.name])
        del self._volumes[old.name]
        self._volumes[name] = volume
        await self.finish_renaming(volume)

    async def finish_renaming(self, volume: Volume) -> None:
        """Let the directory have the name that the record has by now."""
        old, new = self._root / volume.moving_from, self._root / volume.name
        if old.exists() and not new.exists():
            os.rename(old, new)
        await self.store(replace(volume, moving_from=""))

    def mountpoint_of(self, name: str, options: dict[str, str]) -> str:
        """Where a volume of that name and those options is on the host."""
        return bound_device(options) or str(self._root / name / DATA)

    @asynccontextmanager
    async def claimed(self, name: str) -> AsyncIterator[Path]:
        """Keep a new name from everybody else while its volume is made; its directory. Conflict when it is taken."""
        check_volume_name(name)
        if name in self._volumes or name in self._being_made:
            raise Conflict(f"a volume named {name} already exists")
        self._being_made.add(name)
        try:
            yield self._root / name
        finally:
            self._being_made.discard(name)

    async def get(self, name: str) -> Volume:
        """NotFound: "get X: no such volume"."""
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def all(self) -> list[Volume]:
        return sorted(self._volumes.values(), key=lambda volume: volume.name)

    async def create(
        self,
        name: str,
        *,
        driver: str = "local",
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        anonymous: bool = False,
    ) -> Volume:
        """Make it, or return the one that exists with the same driver. ``name`` "": an anonymous one."""
        anonymous = anonymous or not name
        name = check_volume_name(name) if name else new_id()
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        check(options or {})
        async with self._lock:
            found = self._volumes.get(name)
            if found is not None:
                return found
            volume = Volume(
                name=name,
                mountpoint=self.mountpoint_of(name, options or {}),
                created_at=time.time_ns(),
                labels={**({ANONYMOUS_LABEL: ""} if anonymous else {}), **(labels or {})},
                options=dict(options or {}),
                anonymous=anonymous,
                backing=backing_of(options or {}, quotas=await self.storage.has_quotas()),
                size_bytes=parse_size((options or {}).get("size") or "0"),
            )
            async with self.claimed(name) as directory:
                await self.make(directory, volume)
        self._tell("create", volume)
        return volume

    async def make(self, directory: Path, volume: Volume) -> None:
        """Make an empty volume and its record; nothing is left of one that fails."""
        directory.mkdir(exist_ok=True)
        try:
            await self.storage.make(directory, volume)
            await self.store(volume)
        except BaseException:
            await to_the_end(self.storage.discard(directory))
            raise

    def created(self, volume: Volume) -> None:
        """Tell that there is a new one."""
        self._tell("create", volume)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Conflict: "remove X: volume is in use - [ids]". ``force``: a missing one is no error."""
        if not self.in_use_by(name):
            await self.storage.wait_free(name)
        async with self._lock:
            volume = self._volumes.get(name)
            if volume is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            users = self.in_use_by(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            # The record goes first: a directory without one is cleaned up, a record without its data is a lie.
            if self.storage.used_by(name):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(sorted(self.storage.used_by(name)))}]")
            await self._store.commit({}, deletes=[PREFIX + name])
            del self._volumes[name]
        self._tell("destroy", volume)
        await self.storage.discard(self._root / name)

    async def sweep(self) -> None:
        """Delete what no record names: removals cut short, and what was being made."""
        for entry in list(os.scandir(self._root)):
            volume = self._volumes.get(entry.name)
            try:
                if volume is None:
                    await self.storage.discard(Path(entry.path))
                else:
                    await self._sweep(volume, Path(entry.path))
            except EnisleError as error:
                log.error("%s was left by something cut short, and cannot be removed: %s", entry.path, error)

    async def _sweep(self, volume: Volume, directory: Path) -> None:
        known = {snapshot.name for snapshot in volume.snapshots}
        for name in os.listdir(directory):
            if name.startswith(NEW):
                await self.storage.discard(directory / name)
        kept = directory / SNAPSHOTS
        for name in os.listdir(kept) if kept.is_dir() else ():
            if name not in known:
                await self.storage.discard(kept / name)

    async def prune(self, match: Callable[[Volume], bool]) -> tuple[list[str], int]:
        """Remove those that no instance uses and that match; names, bytes freed."""
        names, freed = [], 0
        for volume in self.all():
            if self._users.get(volume.name) or not match(volume):
                continue
            size = await self.size(volume.name)
            try:
                await self.remove(volume.name)
            except (Conflict, NotFound):
                continue
            names.append(volume.name)
            freed += size
        self._events.publish(Event(kind="volume", action="prune", actor="", attributes={"reclaimed": str(freed)}))
        return names, freed

    def in_use_by(self, name: str) -> list[str]:
        """Ids of the instances that mount it."""
        return sorted(self._users.get(name, ()))

    async def size(self, name: str) -> int:
        """Bytes its files take on our disk."""
        return await self.storage.size(await self.get(name))

    def hold(self, instance: Instance) -> None:
        """Note which volumes an instance uses."""
        for mount in instance.mounts:
            if mount.kind is MountKind.VOLUME:
                self._users.setdefault(mount.name, set()).add(instance.id)

    def hold_name(self, name: str, instance_id: str) -> None:
        """Note a use before the instance's record exists."""
        self._users.setdefault(name, set()).add(instance_id)

    def release(self, instance_id: str, names: list[str]) -> None:
        """The instance is gone."""
        for name in names:
            users = self._users.get(name)
            if users is not None:
                users.discard(instance_id)
                if not users:
                    del self._users[name]

    def _tell(self, action: str, volume: Volume) -> None:
        self._events.publish(
            Event(kind="volume", action=action, actor=volume.name, attributes={"driver": volume.driver})
        )
