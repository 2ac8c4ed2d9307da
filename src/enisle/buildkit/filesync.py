"""Fetching a client's files: the receiving side of fsutil's protocol (github.com/tonistiigi/fsutil, receive.go)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote_plus

from enisle.build.archive_tree import write_context
from enisle.buildkit.grpc import CallFailed, Calling
from enisle.buildkit.http2 import Headers
from enisle.buildkit.received import ReceivedTree
from enisle.buildkit.session_messages import Packet, PacketKind
from enisle.buildkit.sessions import Session
from enisle.errors import EnisleError, Invalid

_METHOD = "/moby.filesync.v1.FileSync/DiffCopy"
_BATCH_BYTES = 1 << 20
_REQUESTS = 256  # in one write


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """``name``: of the client's directory. ``paths``: only these, links followed; () all. ``excluded``: patterns."""

    name: str
    paths: Sequence[str] = ()
    excluded: Sequence[str] = ()


class Progress:
    """How much has come."""

    size = 0


@asynccontextmanager
async def received(
    session: Session, wanted: Wanted, directory: Path, progress: Progress | None = None
) -> AsyncIterator[ReceivedTree]:
    """A client's files, as a tree over a file in ``directory``. Raises Invalid with what the client says."""
    path = directory / f"files-{token_hex(8)}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    tree = ReceivedTree(path)
    try:
        path.unlink()
        try:
            async with session.calling(_METHOD, _metadata(wanted)) as calling:
                await _Transfer(calling, tree, fd, progress or Progress()).run()
        except CallFailed as failure:
            raise Invalid(f"the client's {wanted.name} cannot be read: {failure.message}") from failure
        finally:
            os.close(fd)
        yield tree
    finally:
        tree.close()


def _metadata(wanted: Wanted) -> Headers:
    found: Headers = []
    for name, values in (
        ("dir-name", [wanted.name]),
        ("followpaths", wanted.paths),
        ("exclude-patterns", wanted.excluded),
    ):
        encoded = any(not value.isascii() or not value.isprintable() for value in values)
        found += [(name, quote_plus(value, errors="surrogateescape") if encoded else value) for value in values]
        if encoded:
            found.append((f"{name}-encoded", "1"))
    return found


class _Transfer:
    """One transfer: what the files are comes first, their contents as we ask for them."""

    def __init__(self, calling: Calling, tree: ReceivedTree, fd: int, progress: Progress) -> None:
        self._calling = calling
        self._tree = tree
        self._fd = fd
        self._progress = progress
        self._position = 0
        self._batch: list[bytes] = []
        self._pending = 0
        self._asked: asyncio.Queue[int | None] = asyncio.Queue()
        self._listed = False

    async def run(self) -> None:
        asking = asyncio.create_task(self._ask())
        try:
            await self._receive()
            await self._write()
        except EnisleError as error:
            await self._calling.send(Packet(kind=PacketKind.ERROR, data=str(error).encode()))
            raise
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await self._calling.send(Packet(kind=PacketKind.FINISHED))
        await self._calling.end()
        async for packet in self._calling.messages(Packet):
            if packet.kind == PacketKind.ERROR:
                raise Invalid(packet.data.decode("utf-8", "replace")[:1000])

    async def _ask(self) -> None:
        """Ask for contents while they come: the client takes no more questions than it can answer."""
        while True:
            numbers = [await self._asked.get()]
            while len(numbers) < _REQUESTS and not self._asked.empty():
                numbers.append(self._asked.get_nowait())
            wanted = [Packet(kind=PacketKind.REQUEST, id=number) for number in numbers if number is not None]
            if wanted:
                await self._calling.send(*wanted)
            if None in numbers:
                return

    async def _receive(self) -> None:
        while not (self._listed and not self._tree.missing):
            packet = await self._calling.receive(Packet)
            if packet is None:
                raise Invalid("the client has broken off sending files")
            match packet.kind:
                case PacketKind.STAT:
                    self._told(packet)
                case PacketKind.DATA if packet.data:
                    await self._store(packet)
                case PacketKind.DATA:
                    self._tree.finish(packet.id)
                case PacketKind.ERROR:
                    raise Invalid(packet.data.decode("utf-8", "replace")[:1000])
                case PacketKind.FINISHED:
                    raise Invalid("the client has ended sending files too early")

    def _told(self, packet: Packet) -> None:
        if self._listed:
            raise Invalid("the client tells of more files after the last")
        if packet.stat is None:
            self._listed = True
            self._asked.put_nowait(None)
            return
        number = self._tree.add(packet.stat)
        if number is not None:
            self._asked.put_nowait(number)

    async def _store(self, packet: Packet) -> None:
        self._tree.append(packet.id, self._position, len(packet.data))
        self._position += len(packet.data)
        self._progress.size = self._position
        self._batch.append(packet.data)
        self._pending += len(packet.data)
        if self._pending >= _BATCH_BYTES:
            await self._write()

    async def _write(self) -> None:
        data, self._batch, self._pending = b"".join(self._batch), [], 0
        await asyncio.to_thread(write_context, self._fd, data)
