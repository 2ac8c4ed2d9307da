"""Taking a layer in, wherever it comes from: verified, unpacked, stored, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enisle.cleanup import to_the_end
from enisle.contracts import Progress
from enisle.formats.oci import OCI_LAYER
from enisle.formats.oci_config import next_chain
from enisle.images.content import ContentStore, storage_errors
from enisle.images.flights import Flights
from enisle.images.index import Index, LayerRecord
from enisle.images.layer_job import LayerJob, LayerResult
from enisle.images.layers import LayerStore
from enisle.images.workers import Workers
from enisle.model.ids import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What all operations of the image store share."""

    content: ContentStore
    layers: LayerStore
    index: Index
    workers: Workers
    flights: Flights[LayerRecord]
    pins: Counter[str]  # digests and chains of operations under way: not to be swept

    @contextmanager
    def pinned(self, items: Iterable[str]) -> Iterator[None]:
        """Keep content while it is not yet in the index."""
        held = list(items)
        self.pins.update(held)
        try:
            yield
        finally:
            self.pins.subtract(held)
            for item in held:
                if self.pins[item] <= 0:
                    del self.pins[item]

    def known_blob(self, blob: Digest) -> LayerRecord | None:
        """What an image we have says of a layer's blob."""
        for image in self.index.images.values():
            for layer in image.layers:
                if layer.blob == blob and self.content.has(blob, layer.size):
                    return layer
        return None

    def known_layer(self, chain: Digest) -> LayerRecord | None:
        """A layer we have, unpacked and as a blob."""
        for image in self.index.images.values():
            for layer in image.layers:
                if layer.chain == chain and self.layers.has(chain) and self.content.has(layer.blob, layer.size):
                    return layer
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A layer to take in. ``below``: chains under it, topmost first. ``digest``, ``diff_id``: "" for not known yet."""

    below: tuple[Digest, ...] = ()
    diff_id: str = ""
    digest: str = ""
    media_type: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """A layer that was taken in. ``entries``: how many files its archive held."""

    record: LayerRecord
    entries: int


async def at_once() -> None:
    """Wait for nothing."""


async def ingest_file(
    parts: Parts,
    wanted: Wanted,
    source: Path,
    *,
    end: asyncio.Event,
    on_read: Callable[[int], None],
    below_ready: Callable[[], Awaitable[None]] = at_once,
) -> Taken:
    """Take in a layer from a file of the ingest directory, which is gone afterwards unless something failed.

    ``end``: set once the file is complete. ``below_ready``: awaited before the layer becomes visible.
    """
    known_chain = next_chain(wanted.below, Digest(wanted.diff_id)) if wanted.diff_id else None
    unpack = known_chain is None or not parts.layers.has(known_chain)
    result, staged, stored = await _run(parts, wanted, source, end, on_read, unpack=unpack)
    try:
        taken = await place(parts, wanted, result, staged, stored, below_ready)
    except BaseException:
        if stored != source:
            stored.unlink(missing_ok=True)
        if staged is not None:
            await to_the_end(asyncio.to_thread(parts.layers.discard, staged))
        raise
    source.unlink(missing_ok=True)
    return taken


async def place(
    parts: Parts,
    wanted: Wanted,
    result: LayerResult,
    staged: Path | None,
    stored: Path,
    below_ready: Callable[[], Awaitable[None]],
) -> Taken:
    """Give an unpacked layer and its blob their places, once the layer below has its own. None: unpacked before.

    After a failure the caller has to remove both.
    """
    chain = next_chain(wanted.below, Digest(result.diff_id))
    await below_ready()
    if staged is not None:
        with storage_errors():
            await asyncio.to_thread(parts.layers.commit, staged, chain, result.made, wanted.below)
    parts.content.adopt(stored, Digest(result.digest))
    known = parts.known_layer(chain) if staged is None else None
    record = LayerRecord(
        chain=chain,
        diff_id=Digest(result.diff_id),
        blob=Digest(result.digest),
        media_type=wanted.media_type or OCI_LAYER + (f"+{result.compression}" if result.compression else ""),
        size=result.size,
        unpacked=known.unpacked if known else result.unpacked,
    )
    return Taken(record=record, entries=result.entries)


async def _run(
    parts: Parts,
    wanted: Wanted,
    source: Path,
    end: asyncio.Event,
    on_read: Callable[[int], None],
    *,
    unpack: bool,
) -> tuple[LayerResult, Path | None, Path]:
    with storage_errors():
        staged = parts.layers.stage() if unpack else None
    compressed = parts.content.temporary()
    job = LayerJob(
        store="" if wanted.digest else str(compressed),
        unpack=str(staged) if staged else "",
        digest=wanted.digest,
        diff_id=wanted.diff_id,
        total_bytes=parts.layers.free_bytes(),
    )
    try:
        result = await parts.workers.run(job, source, end=end, on_read=on_read)
    except BaseException:
        compressed.unlink(missing_ok=True)
        if staged is not None:
            await to_the_end(asyncio.to_thread(parts.layers.discard, staged))
        raise
    return result, staged, source if wanted.digest else compressed


def layer_progress(progress: Progress, layer_id: str, status: str, total: int) -> Callable[[int], None]:
    """A callback for bytes done that tells the user at most ten times a second."""
    last = 0.0

    def report(current: int) -> None:
        nonlocal last
        now = asyncio.get_running_loop().time()
        if now - last >= 0.1 or (total and current >= total):
            last = now
            detail = {"current": current, "total": total} if total else {"current": current}
            progress({"status": status, "progressDetail": detail, "id": layer_id})

    return report


def short(digest: str) -> str:
    """A digest as progress shows it."""
    return digest.partition(":")[2][:12]


def below(chains: Sequence[Digest], position: int) -> tuple[Digest, ...]:
    """The chains under a layer, topmost first."""
    return tuple(reversed(chains[:position]))
