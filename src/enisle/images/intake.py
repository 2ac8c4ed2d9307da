"""A layer that is unpacked and stored while its bytes arrive, before it is known whose it is, or what it should be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from enisle.cleanup import to_the_end
from enisle.images.batches import batches
from enisle.images.content import storage_errors
from enisle.images.ingest import Parts, Taken, Wanted, at_once, place
from enisle.images.layer_job import LayerJob, LayerResult, verify
from enisle.images.workers import Feed

_BATCH_BYTES = 1 << 20


class Intake:
    """One such layer. Make it with :meth:`open`; feed it; then :meth:`settle` it. End it with :meth:`close`."""

    def __init__(self, parts: Parts, job: LayerJob, on_read: Callable[[int], None]) -> None:
        self._parts = parts
        self._staged = Path(job.unpack)
        self._stored = Path(job.store)
        self._opened: asyncio.Future[Feed] = asyncio.get_running_loop().create_future()
        self._working = asyncio.create_task(parts.workers.run_fed(job, self._opened, on_read=on_read))

    @classmethod
    async def open(cls, parts: Parts, *, digest: str = "", on_read: Callable[[int], None]) -> Intake:
        """Begin one. ``digest``: what its blob is said to be, which is then kept as it comes; "": compressed."""
        with storage_errors():
            staged = parts.layers.stage()
        job = LayerJob(
            store=str(parts.content.temporary()),
            compress=not digest,
            unpack=str(staged),
            digest=digest,
            total_bytes=parts.layers.free_bytes(),
        )
        intake = cls(parts, job, on_read)
        try:
            begun: list[asyncio.Future[Any]] = [intake._opened, intake._working]
            await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            if not intake._opened.done():
                await intake._working
        except BaseException:
            await intake.close()
            raise
        return intake

    @property
    def feed(self) -> Feed:
        """Where its bytes go. BrokenPipeError there means that :meth:`result` has the reason."""
        return self._opened.result()

    async def take(self, source: AsyncIterator[bytes]) -> None:
        """Feed it all of a stream. Failures of the stream are its own; those of the layer are raised as such."""
        try:
            async for batch in batches(source, _BATCH_BYTES):
                await self._write(batch)
            self.feed.finish()
        except BrokenPipeError:
            await self._working
            raise

    async def _write(self, data: bytes) -> None:
        writing = asyncio.ensure_future(asyncio.to_thread(self.feed.write, data))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            self.stop()  # so that the thread ends
            with suppress(BrokenPipeError):
                await to_the_end(writing)
            raise

    async def result(self) -> LayerResult:
        """What the layer turned out to be. Raises as :func:`enisle.images.layer_job.run`, as errors of ours."""
        return await asyncio.shield(self._working)

    async def settle(self, wanted: Wanted, below_ready: Callable[[], Awaitable[None]] = at_once) -> Taken:
        """Make it the layer that was wanted. Invalid if it is another. Only once."""
        result = await self.result()
        verify(result, digest=wanted.digest, diff_id=wanted.diff_id)
        return await place(self._parts, wanted, result, self._staged, self._stored, below_ready)

    def stop(self) -> None:
        """Have its worker end, which a thread that feeds it notices."""
        self._working.cancel()

    async def close(self) -> None:
        """Remove what was not settled. No thread may be feeding it any more."""
        self.stop()
        await to_the_end(asyncio.wait([self._working]))
        if not self._working.cancelled():
            self._working.exception()  # asked for, or asyncio would speak of it
        if self._opened.done() and not self._opened.cancelled():
            self.feed.close()
        self._opened.cancel()
        self._stored.unlink(missing_ok=True)
        if self._staged.exists():
            await to_the_end(asyncio.to_thread(self._parts.layers.discard, self._staged))
