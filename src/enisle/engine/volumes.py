"""Volumes: named directories of ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from enisle.contracts import StateStore
from enisle.engine.events import Events
from enisle.engine.usage import tree_bytes
from enisle.errors import Conflict, EnisleError, Internal, Invalid, NotFound, NotSupported
from enisle.formats.records import decode, encode
from enisle.model.event import Event
from enisle.model.ids import check_name, new_id
from enisle.model.instance import Instance, MountKind
from enisle.model.volume import Volume

PREFIX = "volumes/"
_KNOWN_OPTIONS = frozenset({"type", "o", "device"})


class Volumes:
    """All volumes, in memory and written through to the store; ``root`` is data_root/volumes."""

    def __init__(self, root: Path, store: StateStore, events: Events) -> None:
        self._root = root
        self._store = store
        self._events = events
        self._volumes: dict[str, Volume] = {}
        self._users: dict[str, set[str]] = {}
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Read the records; a directory without a record is what a creation or removal cut short has left."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o711)
        for _key, value, _revision in await self._store.scan(PREFIX):
            volume = decode(Volume, value)
            self._volumes[volume.name] = volume
            if not _bound_device(volume.options):
                Path(volume.mountpoint).mkdir(parents=True, exist_ok=True)

    async def adopt_directories(self) -> None:
        """After the store was lost: make records for the directories that have none, so that no data is lost."""
        for entry in os.scandir(self._root):
            if entry.name not in self._volumes and (Path(entry.path) / "_data").is_dir():
                volume = Volume(name=entry.name, mountpoint=str(Path(entry.path) / "_data"), created_at=time.time_ns())
                await self._store.commit({PREFIX + volume.name: encode(volume)})
                self._volumes[volume.name] = volume

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
        name = check_name(name, "volume") if name else new_id()
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        _check_options(options or {})
        async with self._lock:
            found = self._volumes.get(name)
            if found is not None:
                return found
            device = _bound_device(options or {})
            mountpoint = Path(device) if device else self._root / name / "_data"
            volume = Volume(
                name=name,
                mountpoint=str(mountpoint),
                created_at=time.time_ns(),
                labels=dict(labels or {}),
                options=dict(options or {}),
                anonymous=anonymous,
            )
            (self._root / name / "_data").mkdir(parents=True, exist_ok=True)
            try:
                await self._store.commit({PREFIX + name: encode(volume)})
            except EnisleError:
                shutil.rmtree(self._root / name, ignore_errors=True)
                raise
            self._volumes[name] = volume
        self._tell("create", volume)
        return volume

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Conflict: "remove X: volume is in use - [ids]". ``force``: a missing one is no error."""
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
            await self._store.commit({}, deletes=[PREFIX + name])
            del self._volumes[name]
        self._tell("destroy", volume)
        await self._delete_directory(name)

    async def _delete_directory(self, name: str) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, self._root / name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Internal(f"remove {name}: {error.strerror}: {error.filename}") from error

    async def sweep(self) -> None:
        """Delete directories that no record names (removals cut short)."""
        for entry in list(os.scandir(self._root)):
            if entry.name not in self._volumes:
                await self._delete_directory(entry.name)

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
        """Bytes its files take."""
        volume = await self.get(name)
        return await tree_bytes(Path(volume.mountpoint))

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


def _bound_device(options: dict[str, str]) -> str:
    """The host directory a volume stands for (``--opt type=none --opt o=bind --opt device=/path``), or ""."""
    words = options.get("o", "").split(",")
    return options.get("device", "") if "bind" in words or "rbind" in words else ""


def _check_options(options: dict[str, str]) -> None:
    """Invalid or NotSupported for what the local driver cannot do."""
    for key in options:
        if key not in _KNOWN_OPTIONS:
            raise Invalid(f'invalid option: "{key}"')
    if not options:
        return
    device = _bound_device(options)
    if not device:
        raise NotSupported(
            f"volumes of type {options.get('type') or '?'} are not supported",
            remedy="Use a plain volume, or --opt type=none --opt o=bind --opt device=/path.",
        )
    if not device.startswith("/"):
        raise Invalid(f"invalid device {device!r} of a bound volume: it must be an absolute path")
