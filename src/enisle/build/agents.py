"""SSH agents for RUN --mount=type=ssh: a socket of our own before the agent's, with the owner a RUN asks for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_CHUNK = 64 << 10


@asynccontextmanager
async def relayed(agent: str, path: Path, *, mode: int, owner: tuple[int, int]) -> AsyncIterator[None]:
    """A socket at ``path`` that leads to the agent's, until the context ends; then all connections are closed."""
    running: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_serve(agent, reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_unix_server(serve, path)  # in a directory that only we can enter
    try:
        os.chown(path, *owner)
        path.chmod(mode)
        yield
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        path.unlink(missing_ok=True)


async def _serve(agent: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            from_agent, to_agent = await asyncio.open_unix_connection(agent)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pass_on(reader, to_agent))
                    group.create_task(_pass_on(from_agent, writer))
            finally:
                to_agent.close()
    except* OSError:
        pass
    finally:
        writer.close()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        target.write(data)
        await target.drain()
    target.write_eof()  # what comes the other way may take longer
