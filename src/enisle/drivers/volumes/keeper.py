"""The volume keeper seen from enisled: found or started when first needed, asked for mounts and copies."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from pathlib import Path

import enisle
from enisle.contracts import FileSystem
from enisle.drivers.channel import Channel, Message, connect
from enisle.drivers.decompress import plain
from enisle.drivers.files import receive_stream, send_stream
from enisle.drivers.launcher import reap_later
from enisle.drivers.volumes import image
from enisle.errors import EnisleError, Internal, Unavailable
from enisle.linux import quotas
from enisle.linux.renames import exchange
from enisle.wire.volumes import GENERATION, SOCKET_NAME

_READY_TIMEOUT_S = 60.0  # an emulated machine that is busy starts a Python in 20
_POLL_S = 0.005
_ANSWER_TIMEOUT_S = 10.0
_MOUNT_TIMEOUT_S = 60.0  # a server of files may be far away, or gone
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

log = logging.getLogger(__name__)


class KeptVolumes:
    """Implements ``contracts.VolumeFiles``. The keeper outlives enisled and this object, with what is mounted there."""

    def __init__(self, run_root: Path) -> None:
        self._run_root = run_root
        self._path = str(run_root / SOCKET_NAME)
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()

    async def open(self, keep: Collection[str]) -> None:
        channel = await self._find()
        if channel is None:
            return
        self._channel = channel
        for key in (await channel.request("hello", timeout_s=_ANSWER_TIMEOUT_S)).get("mounted", []):
            if key not in keep:
                await self.unmount(key)

    async def close(self, *, quit: bool) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if quit and channel.is_open:
            with suppress(EnisleError, TimeoutError):
                await channel.request("quit", timeout_s=_ANSWER_TIMEOUT_S)
                await asyncio.wait_for(channel.wait_closed(), _ANSWER_TIMEOUT_S)
        channel.close()

    async def mount(self, key: str, filesystem: FileSystem) -> str:
        fields = {
            "key": key,
            "filesystem": filesystem.kind,
            "source": filesystem.source,
            "options": list(filesystem.options),
            "size": filesystem.size_bytes,
        }
        channel = await self._connected()
        answer = await channel.request("mount", fields, timeout_s=_MOUNT_TIMEOUT_S)
        return f"/proc/{answer['pid']}/root{answer['place']}"

    async def unmount(self, key: str) -> None:
        if self._channel is not None and self._channel.is_open:
            await self._channel.request("unmount", {"key": key}, timeout_s=_MOUNT_TIMEOUT_S)

    async def make_image(self, path: Path, size_bytes: int) -> None:
        await asyncio.to_thread(image.make, path, size_bytes)

    async def has_quotas(self, directory: Path) -> bool:
        return await asyncio.to_thread(quotas.supported, str(directory))

    async def limit(self, path: str, size_bytes: int) -> None:
        await self._request("limit", {"path": path, "size": size_bytes})

    async def unlimit(self, path: str) -> None:
        await self._request("unlimit", {"path": path})

    async def pack(self, path: str) -> AsyncIterator[bytes]:
        return await receive_stream(await self._connected(), "pack", {"path": path})

    async def unpack(self, path: str, source: AsyncIterator[bytes]) -> None:
        await send_stream(await self._connected(), "unpack", {"path": path}, plain(source))

    async def copy(self, source: str, target: str) -> None:
        await self._request("copy", {"source": source, "target": target})

    async def remove(self, path: str) -> None:
        await self._request("remove", {"path": path})

    async def exchange(self, one: Path, other: Path) -> None:
        await asyncio.to_thread(_exchange, one, other)

    # --- the keeper ------------------------------------------------------------------------------------------------

    async def _request(self, verb: str, fields: Message) -> Message:
        return await (await self._connected()).request(verb, fields)

    async def _connected(self) -> Channel:
        async with self._opening:
            if self._channel is not None and self._channel.is_open:
                return self._channel
            self._channel = await self._find() or await self._spawn()
            return self._channel

    async def _find(self) -> Channel | None:
        """The keeper that listens already; None when there is none, or none that we understand."""
        sock = connect(self._path)
        if sock is None:
            return None
        channel = Channel(sock, peer="The volume keeper")
        try:
            answer = await channel.request("hello", timeout_s=_ANSWER_TIMEOUT_S)
            if answer.get("generation") == GENERATION:
                return channel
            log.info("the volume keeper is of generation %s: replacing it", answer.get("generation"))
            await channel.request("quit", timeout_s=_ANSWER_TIMEOUT_S)
        except Unavailable as error:
            log.warning("%s", error)
        channel.close()
        return None

    async def _spawn(self) -> Channel:
        script = Path(enisle.__file__ or "").parent / "launcher" / "volumes" / "main.py"
        with open(self._run_root / "volumes.log", "ab", buffering=0) as errors:
            process = subprocess.Popen(  # noqa: ASYNC220 - it returns after vfork and exec
                [sys.executable, "-I", "-S", str(script), str(self._run_root)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
            )
        deadline = asyncio.get_running_loop().time() + _READY_TIMEOUT_S
        while process.poll() is None and asyncio.get_running_loop().time() < deadline:
            channel = await self._find()
            if channel is not None:
                reap_later(process)
                return channel
            await asyncio.sleep(_POLL_S)
        raise Unavailable(
            "The volume keeper did not come up.", remedy=f"Its last words are in {self._run_root / 'volumes.log'}."
        )


def _exchange(one: Path, other: Path) -> None:
    try:
        exchange(str(one), str(other))
        for parent in (one.parent, other.parent):
            fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(fd)
            os.close(fd)
    except OSError as error:
        raise Internal(f"{one} cannot be replaced: {error.strerror}") from error
