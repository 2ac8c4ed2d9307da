"""The files of an instance, through its keeper: tar streams over pipes, with the pipe's own back-pressure."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, cast

from enisle.drivers.channel import Channel, Message
from enisle.drivers.decompress import plain
from enisle.errors import Unavailable

_CHUNK_BYTES = 256 << 10
_PIPE_BYTES = 1 << 20
_STAT_TIMEOUT_S = 60.0


def _pipe() -> tuple[int, int]:
    """A pipe with a large buffer; both ends close-on-exec."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):  # the user's pipe quota may be used up; a small pipe works as well
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return reading, writing


class PipeReader:
    """What a keeper writes into a pipe. Owns the reading end; ends with the keeper's answer, or its failure."""

    def __init__(self, fd: int, answer: asyncio.Future[Message]) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._answer = answer
        self._first = b""

    async def open(self) -> PipeReader:
        """Wait for the first bytes, so that a failure is raised before anything was delivered."""
        try:
            self._first = await self._read()
            if not self._first:
                await self._answer
        except BaseException:
            await self.aclose()
            raise
        return self

    def __aiter__(self) -> PipeReader:
        return self

    async def __anext__(self) -> bytes:
        data, self._first = self._first, b""
        if not data and self._fd >= 0:
            data = await self._read()
        if data:
            return data
        await self.aclose()
        await self._answer
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the pipe; the keeper's writer then ends as well. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._fd, _CHUNK_BYTES)
            except BlockingIOError:
                await _ready(self._fd, write=False)


async def _ready(fd: int, *, write: bool) -> None:
    """Wait until the descriptor can be read from, or written to."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, wake)
    try:
        await ready
    finally:
        remove(fd)


async def _write_all(fd: int, source: AsyncIterator[bytes]) -> None:
    """Write the source into the pipe; return early when nobody reads it any more."""
    async for chunk in source:
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                await _ready(fd, write=True)
            except BrokenPipeError:
                return


class KeeperFiles:
    """Implements ``contracts.Files`` over a keeper's channel. Used within one session; :meth:`close` ends it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._streams: list[PipeReader] = []

    async def stat(self, path: str) -> dict[str, Any]:
        answer = await self._channel.request("files", {"verb": "stat", "path": path}, timeout_s=_STAT_TIMEOUT_S)
        return dict(answer.get("stat", answer))

    async def get(self, path: str) -> AsyncIterator[bytes]:
        return await self._stream({"verb": "get", "path": path})

    async def export(self) -> AsyncIterator[bytes]:
        return await self._stream({"verb": "export", "path": "/"})

    async def layer(self) -> AsyncIterator[bytes]:
        return await self._stream({"verb": "upper", "path": "/"})

    async def changes(self) -> list[tuple[str, int]]:
        answer = await self._channel.request("files", {"verb": "changes", "path": "/"}, timeout_s=600)
        return [(str(path), int(kind)) for path, kind in answer.get("changes", [])]

    async def put(
        self, path: str, source: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        fields = {
            "verb": "put",
            "path": path,
            "no_overwrite_dir_non_dir": no_overwrite_dir_non_dir,
            "copy_uid_gid": copy_uid_gid,
        }
        await send_stream(self._channel, "files", fields, plain(source))

    async def close(self) -> None:
        """End the session; open streams end as well."""
        for stream in self._streams:
            await stream.aclose()
        self._streams.clear()

    async def _stream(self, fields: Message) -> AsyncIterator[bytes]:
        stream = await receive_stream(self._channel, "files", fields)
        self._streams.append(stream)
        return stream


async def receive_stream(channel: Channel, op: str, fields: Message) -> PipeReader:
    """What the peer writes into a pipe that it gets with a request."""
    if not channel.is_open:
        raise Unavailable("The instance's keeper has ended.")
    reading, writing = _pipe()
    try:
        answer = channel.post(op, fields, [writing])
    finally:
        os.close(writing)
    answer.add_done_callback(retrieve)
    return await PipeReader(reading, answer).open()


async def send_stream(channel: Channel, op: str, fields: Message, source: AsyncIterator[bytes]) -> Message:
    """Let the peer read the source from a pipe that it gets with a request; its answer."""
    reading, writing = _pipe()
    try:
        try:
            os.set_blocking(writing, False)
            answer = channel.post(op, fields, [reading])
            answer.add_done_callback(retrieve)
        finally:
            os.close(reading)
        writer = asyncio.ensure_future(_write_all(writing, source))
        try:
            # The answer comes early only when it is a refusal: then the rest of the source is not wanted.
            await asyncio.wait(cast(list[asyncio.Future[Any]], [writer, answer]), return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()
        finally:
            writer.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await writer
    finally:
        os.close(writing)
    return await answer


def retrieve(answer: asyncio.Future[Any]) -> None:
    """Mark a failure as seen: a stream that nobody reads to its end has no use for it."""
    if not answer.cancelled():
        answer.exception()
