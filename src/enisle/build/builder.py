"""The use case "build": open the context, carry out the stages that are needed, name the result."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path as FilePath

from enisle.archive.beneath import remove, remove_tree
from enisle.build import git, remote, run_step
from enisle.build.cache import BuildCache
from enisle.build.caches import CacheMounts
from enisle.build.context import Context, opened
from enisle.build.job import Build
from enisle.build.options import BuildOptions
from enisle.build.report import Report
from enisle.build.transcript import Emit, Transcript
from enisle.build.usage import CacheUsage
from enisle.cleanup import to_the_end
from enisle.engine.engine import Engine
from enisle.errors import EnisleError, Invalid
from enisle.formats.reference import parse_reference
from enisle.model.ids import ImageId
from enisle.model.image import Platform

_LEAST_LIMIT_BYTES = 2 << 30
_SHARE_OF_DISK = 10
Source = Callable[[FilePath], AbstractAsyncContextManager[Context]]
"""Opens a context; what it takes on the disk lies in the directory."""

log = logging.getLogger("enisle.build")


class Builder:
    """Builds images on one engine. ``host``: the platform whose programs run here.

    ``limit_bytes`` of what is kept for later builds; 0: a tenth of the disk, and 2 GiB at least.
    """

    def __init__(
        self, engine: Engine, *, data_root: FilePath, run_root: FilePath, host: Platform, limit_bytes: int = 0
    ) -> None:
        self.engine = engine
        self.host = host
        self._root = data_root / "build"
        self.secrets = run_root / "build"
        self._temporary = self._root / "tmp"
        for path in (self._root, self._temporary):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.cache = BuildCache(self._root / "cache")
        self.caches = CacheMounts(self._root / "mounts")
        self.usage = CacheUsage(engine.images, self.cache, self.caches)
        self.limit_bytes = limit_bytes
        self._collecting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Remove what builds have left that were cut short by a crash."""
        await run_step.sweep(self.engine.instances)
        await asyncio.to_thread(_empty, self._temporary)
        await asyncio.to_thread(git.sweep)
        await asyncio.to_thread(self.caches.sweep)
        if self.secrets.is_dir():
            await asyncio.to_thread(_empty, self.secrets)

    @contextlib.asynccontextmanager
    async def fetched(self, url: str) -> AsyncIterator[FilePath]:
        """A file from an HTTP server, there as long as the block lasts. Invalid or Unavailable with the URL in it."""
        path = self._temporary / secrets.token_hex(8)
        try:
            await remote.download(url, path, allow_local=True)
            yield path
        finally:
            path.unlink(missing_ok=True)

    async def build(self, options: BuildOptions, body: AsyncIterator[bytes], emit: Emit) -> ImageId:
        """As :meth:`run`, of a context that is sent as a tar. ``emit`` takes Docker's messages."""
        report = Transcript(emit, quiet=options.quiet)
        return await self.run(options, lambda directory: opened(options, body, directory), report)

    async def run(self, options: BuildOptions, source: Source, report: Report) -> ImageId:
        """The image's id. ``source`` opens the context. Whatever happens, nothing half done is left.

        Raises StepFailed for an instruction, Invalid for the Dockerfile or the options, before anything was told.
        """
        names = [image_name(name) for name in options.names]
        directory = self._temporary / secrets.token_hex(8)
        directory.mkdir(mode=0o700)
        try:
            async with source(directory) as context:
                build = Build(self, options, context, directory, report)
                return await build.run(names)
        finally:
            await to_the_end(asyncio.to_thread(remove_tree, directory))  # clients go as soon as they have read the end
            self.cache.flush()
            self.collect()

    def collect(self) -> None:
        """Bring what builds keep within its limit, in the background; never twice at the same time."""
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.create_task(self._collect(), name="build cache")

    async def _collect(self) -> None:
        limit = self.limit_bytes or max(_LEAST_LIMIT_BYTES, shutil.disk_usage(self._root).total // _SHARE_OF_DISK)
        try:
            gone, freed = await self.usage.prune(lambda _: True, keep_bytes=limit)
        except EnisleError as error:
            log.warning("the build cache cannot be brought within its limit: %s", error)
            return
        if gone:
            log.info("the build cache was over its limit of %d bytes: %d entries, %d bytes", limit, len(gone), freed)


def image_name(text: str) -> str:
    """A name for a result, with its tag. Raises Invalid for a malformed one."""
    reference = parse_reference(text)
    if reference.digest:
        raise Invalid("refusing to create a tag with a digest reference")
    return str(reference.or_latest())


def _empty(directory: FilePath) -> None:
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in os.listdir(parent):
            remove(parent, os.fsencode(name))
    finally:
        os.close(parent)
