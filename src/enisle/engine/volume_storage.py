"""Where the files of volumes are: directories and disks below the data root, and what is mounted while it is used.

The directory of a volume holds ``_data`` (its files, or an empty place), ``disk.img`` (Backing.IMAGE) and
``snapshots/NAME/_data``. What is being made lies in ``.new-…`` beside them until it is whole.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from enisle.cleanup import to_the_end
from enisle.contracts import FileSystem, VolumeFiles
from enisle.engine.volume_options import filesystem_of, words_of
from enisle.errors import EnisleError, Internal, StartFailed
from enisle.linux.disk_usage import allocated_bytes
from enisle.model.volume import Backing, Volume

DATA, DISK, SNAPSHOTS, NEW = "_data", "disk.img", "snapshots", ".new-"
_LET_GO_S = 5.0

log = logging.getLogger("enisle.engine")


class Storage:
    """Makes, opens and removes what volumes are kept in; knows which running instances use them."""

    def __init__(self, root: Path, files: VolumeFiles) -> None:
        self.root = root
        self.files = files
        self.locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: dict[str, set[str]] = {}
        self._free: dict[str, asyncio.Event] = {}  # by name, while somebody waits for it
        self._has_quotas: bool | None = None

    # --- use -------------------------------------------------------------------------------------------------------

    async def take(self, volume: Volume, user: str) -> str:
        """The path to mount for a user, until :meth:`let_go`. StartFailed in dockerd's words."""
        async with self.locks[volume.name]:
            self.note_use(volume.name, user)
            try:
                return await self._path(volume)
            except EnisleError as error:
                await self._let_go(volume.name, user)
                text = f"error while mounting volume '{volume.mountpoint}': {error}"
                raise StartFailed(text, exit_code=128) from error

    async def _path(self, volume: Volume) -> str:
        if volume.is_mounted:
            return await self.files.mount(volume.name, self._filesystem(volume))
        if volume.backing is Backing.BIND:
            if not os.path.exists(volume.mountpoint):
                raise Internal(
                    f"failed to mount local volume: mount {volume.mountpoint}:{self.root / volume.name / DATA}, "
                    f"flags: 0x1000: no such file or directory"
                )
        else:
            (self.root / volume.name / DATA).mkdir(parents=True, exist_ok=True)
        return volume.mountpoint

    def _filesystem(self, volume: Volume) -> FileSystem:
        if volume.backing is Backing.IMAGE:
            return FileSystem(kind="image", source=str(self.root / volume.name / DISK), size_bytes=volume.size_bytes)
        return filesystem_of(volume.options)

    def note_use(self, name: str, user: str) -> None:
        """A use that was begun before, by an earlier enisled."""
        self._users.setdefault(name, set()).add(user)

    def used_by(self, name: str) -> set[str]:
        """Who uses it at this moment; those that do not run use nothing."""
        return self._users.get(name, set())

    async def wait_free(self, name: str) -> bool:
        """Whether nobody uses it, now or within a moment: a copy has told its client of its end before it lets go."""
        if not self.used_by(name):
            return True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._free.setdefault(name, asyncio.Event()).wait(), _LET_GO_S)
        return not self.used_by(name)

    async def let_go(self, user: str, names: Iterable[str]) -> None:
        """The user has ended; what nobody uses any more is unmounted."""
        for name in names:
            async with self.locks[name]:
                await self._let_go(name, user)

    async def _let_go(self, name: str, user: str) -> None:
        users = self._users.get(name)
        if users is None:
            return
        users.discard(user)
        if users:
            return
        del self._users[name]
        try:
            await self.files.unmount(name)
        except EnisleError as error:
            log.warning("volume %s could not be unmounted: %s", name, error)
        freed = self._free.pop(name, None)
        if freed is not None:
            freed.set()

    @asynccontextmanager
    async def opened(self, volume: Volume) -> AsyncIterator[str]:
        """The path of its files, for a while."""
        user = f"work-{secrets.token_hex(4)}"
        path = await self.take(volume, user)
        try:
            yield path
        finally:
            await self.let_go(user, [volume.name])

    @asynccontextmanager
    async def opened_locked(self, volume: Volume) -> AsyncIterator[str]:
        """As ``opened``, by who holds the volume's lock and has seen that nobody uses it."""
        try:
            yield await self._path(volume)
        finally:
            await self.files.unmount(volume.name)

    @asynccontextmanager
    async def grown(self, volume: Volume) -> AsyncIterator[None]:
        """Have the disk of a volume the size of the record, mounted for a while. Denied: this host cannot do that."""
        user = f"work-{secrets.token_hex(4)}"
        async with self.locks[volume.name]:
            self.note_use(volume.name, user)
            try:
                await self._path(volume)
                yield
            finally:
                await self._let_go(volume.name, user)

    async def resume(self) -> None:
        """Unmount what an earlier enisled left and nobody uses."""
        await self.files.open(set(self._users))

    # --- storage ---------------------------------------------------------------------------------------------------

    async def has_quotas(self) -> bool:
        """Whether directories of ours can have a limit."""
        if self._has_quotas is None:
            self._has_quotas = await self.files.has_quotas(self.root)
        return self._has_quotas

    async def make(self, directory: Path, volume: Volume) -> None:
        """Make what a volume of ours is kept in, empty. The caller removes what is half done."""
        data = directory / DATA
        data.mkdir(exist_ok=True)
        if volume.backing is Backing.IMAGE:
            await self.files.make_image(directory / DISK, volume.size_bytes)
        elif volume.backing is Backing.PROJECT:
            await self.files.limit(str(data), volume.size_bytes)

    @asynccontextmanager
    async def made(self, directory: Path, volume: Volume) -> AsyncIterator[str]:
        """New storage for the volume in a directory that nobody knows yet: the path to write its files to."""
        directory.mkdir(parents=True)
        try:
            await self.make(directory, volume)
            if volume.backing is not Backing.IMAGE:
                yield str(directory / DATA)
                return
            key = str(directory)
            disk = FileSystem(kind="image", source=str(directory / DISK), size_bytes=volume.size_bytes)
            path = await self.files.mount(key, disk)
            try:
                yield path
            finally:
                await self.files.unmount(key)
        except BaseException:
            await to_the_end(self.discard(directory))
            raise

    def new_place(self, name: str) -> Path:
        """A directory for something that is to take the place of a volume's content."""
        return self.root / name / f"{NEW}{secrets.token_hex(4)}"

    async def discard(self, directory: Path) -> None:
        """Remove storage; Internal when it cannot be."""
        await self._unlimit(directory / DATA)
        try:
            await asyncio.to_thread(shutil.rmtree, directory)
        except FileNotFoundError:
            return
        except RecursionError:
            await self.files.remove(str(directory))
        except OSError as error:
            raise Internal(f"remove {directory.name}: {error.strerror}: {error.filename}") from error

    async def _unlimit(self, data: Path) -> None:
        if not await self.has_quotas():
            return
        try:
            await self.files.unlimit(str(data))
        except EnisleError as error:
            log.warning("the quota of %s stays: %s", data, error)

    async def size(self, volume: Volume) -> int:
        """Bytes on our disk, snapshots among them; what its options mount lies elsewhere."""
        return await asyncio.to_thread(allocated_bytes, self.root / volume.name)


def read_only(volume: Volume) -> bool:
    """Whether a bound volume's own options forbid writing."""
    return volume.backing is Backing.BIND and "ro" in words_of(volume.options)
