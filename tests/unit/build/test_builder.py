"""What the builder leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from enisle.build.builder import Builder
from enisle.build.context import Context
from enisle.build.options import BuildOptions
from enisle.build.report import Report
from enisle.engine.engine import Engine
from enisle.errors import Invalid
from enisle.model.image import Platform


@asynccontextmanager
async def broken_context(directory: Path) -> AsyncIterator[Context]:
    (directory / "context").write_bytes(b"x")
    raise Invalid("no Dockerfile")
    yield


async def test_a_client_that_goes_while_its_build_tidies_up_leaves_nothing(tmp_path: Path) -> None:
    engine = cast(Engine, SimpleNamespace(images=None, instances=None))
    builder = Builder(engine, data_root=tmp_path, run_root=tmp_path, host=Platform(os="linux", architecture="amd64"))
    builder.collect = lambda: None  # type: ignore[method-assign]
    free = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        busy = asyncio.ensure_future(asyncio.to_thread(free.wait))
        await asyncio.sleep(0)
        report = cast(Report, SimpleNamespace())
        build: asyncio.Task[Any] = asyncio.create_task(builder.run(BuildOptions(), broken_context, report))
        for _ in range(10):
            await asyncio.sleep(0)
        assert list((tmp_path / "build" / "tmp").iterdir()), "it waits for a thread that removes its files"
        build.cancel()
        await asyncio.sleep(0)
        free.set()
        await busy
        with suppress(Invalid, asyncio.CancelledError):
            await build
    assert not list((tmp_path / "build" / "tmp").iterdir())
