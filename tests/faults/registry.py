"""docker-registry on loopback for tests that are not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from tests.contracts.images_support import docker_registry


@contextmanager
def running_registry(directory: Path) -> Iterator[str]:
    """Its host and port."""
    started: Future[str] = Future()
    done = threading.Event()

    async def serve() -> None:
        async with docker_registry(directory / "registry") as host:
            started.set_result(host)
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield started.result(30)
    finally:
        done.set()
        thread.join()
