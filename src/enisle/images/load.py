"""Loading image archives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from enisle.contracts import Progress
from enisle.errors import Invalid
from enisle.formats.oci_config import chain_ids
from enisle.images.archive_plan import ArchivedImage, ArchivedLayer, blob_member, plan_archive, plan_tops
from enisle.images.arriving import Arriving, ArrivingLayer, arriving
from enisle.images.attestations import BLOB_LIMIT_BYTES
from enisle.images.content import digest_of
from enisle.images.index import ImageRecord, LayerRecord, now_ns
from enisle.images.ingest import Parts, Wanted, below, ingest_file
from enisle.images.pull import LayerKey, below_landed, first_failure, merge_records
from enisle.model.ids import Digest, ImageId


async def load(parts: Parts, source: AsyncIterator[bytes], progress: Progress) -> list[str]:
    """Take in all images of an archive; their names as Docker shows them, or their ids where they have none.

    Either every image of the archive is in the index when this returns, or none was added.
    """
    async with arriving(parts, progress) as members:
        await members.take(source)
        images = await asyncio.to_thread(plan_archive, members)
        with parts.pinned(item for image in images for item in _content(image)):
            records = [await _load_image(parts, members, image, progress) for image in images]
            return await _name(parts, images, records, plan_tops(members), progress)


def _content(image: ArchivedImage) -> list[str]:
    return [*chain_ids(image.image.diff_ids), *(layer.digest for layer in image.layers if layer.digest)]


async def _load_image(parts: Parts, members: Arriving, archived: ArchivedImage, progress: Progress) -> ImageRecord:
    if len(archived.layers) != len(archived.image.diff_ids):
        raise Invalid("the image archive does not hold as many layers as the config")
    layers = await _load_layers(parts, members, archived, progress)
    content = parts.content
    documents = tuple(content.put(data) for data in archived.documents)
    return ImageRecord(
        id=ImageId(content.put(archived.config)),
        manifest=documents[0] if documents else "",
        documents=documents,
        attached=_take_attached(parts, members, archived),
        layers=tuple(layers),
        tagged_at=now_ns(),
    )


def _take_attached(parts: Parts, members: Arriving, archived: ArchivedImage) -> tuple[Digest, ...]:
    """Store the attestations of an image; their digests. () when they are damaged: the image is whole without them."""
    found: list[Digest] = []
    for name in archived.attached:
        try:
            data = members.read(name, limit=BLOB_LIMIT_BYTES)
        except Invalid:
            return ()
        if blob_member(digest_of(data)) != name:
            return ()
        found.append(parts.content.put(data))
    return tuple(found)


async def _load_layers(
    parts: Parts, members: Arriving, archived: ArchivedImage, progress: Progress
) -> list[LayerRecord]:
    """Every layer, in order, several at once. The first failure ends the others."""
    chains = chain_ids(archived.image.diff_ids)
    tasks: list[asyncio.Task[LayerRecord]] = []
    try:
        async with asyncio.TaskGroup() as group:
            for position, layer in enumerate(archived.layers):
                wanted = Wanted(
                    below=below(chains, position),
                    diff_id=archived.image.diff_ids[position],
                    digest=layer.digest,
                    media_type=layer.media_type,
                )
                under = (archived.layers[position - 1].digest, chains[position - 1]) if position else None
                work = _load_layer(parts, members, layer, wanted, chains[position], under, progress)
                tasks.append(group.create_task(work))
    except ExceptionGroup as failures:
        raise first_failure(failures) from None
    return [task.result() for task in tasks]


async def _load_layer(
    parts: Parts,
    members: Arriving,
    layer: ArchivedLayer,
    wanted: Wanted,
    chain: Digest,
    under: LayerKey | None,
    progress: Progress,
) -> LayerRecord:
    async def work(report: Progress) -> LayerRecord:
        known = parts.known_layer(chain)
        if known is not None and layer.digest in ("", known.blob):
            return known
        member = members.get(layer.member)

        async def below_ready() -> None:
            await below_landed(parts, under)

        if isinstance(member, ArrivingLayer):
            if (taken := await member.settle(parts, wanted, below_ready)) is not None:
                return taken.record
            assert member.record is not None
            again = replace(wanted, digest=member.record.blob, media_type=wanted.media_type or member.record.media_type)
            return await _from_file(parts, again, parts.content.path(member.record.blob), below_ready)
        return await _from_file(parts, wanted, member, below_ready)

    return await parts.flights.join((layer.digest, chain), work, progress)


async def _from_file(
    parts: Parts, wanted: Wanted, member: Path, below_ready: Callable[[], Awaitable[None]]
) -> LayerRecord:
    """A small layer of the archive, or one that is here in another place; either may be wanted more than once."""
    path = parts.content.temporary()
    path.hardlink_to(member)
    end = asyncio.Event()
    end.set()
    try:
        taken = await ingest_file(parts, wanted, path, end=end, on_read=lambda _: None, below_ready=below_ready)
    finally:
        path.unlink(missing_ok=True)
    return taken.record


async def _name(
    parts: Parts,
    images: list[ArchivedImage],
    records: list[ImageRecord],
    archived_tops: dict[str, Digest],
    progress: Progress,
) -> list[str]:
    names: dict[str, str] = {}
    tops: dict[str, Digest] = {}
    shown: list[str] = []
    for image, record in zip(images, records, strict=True):
        for reference in image.names:
            old = parts.index.names.get(str(reference))
            if old is not None and old != record.id:
                progress(
                    {
                        "stream": f"The image {reference.familiar} already exists, "
                        f"renaming the old one with ID {old} to empty string\n"
                    }
                )
            names[str(reference)] = record.id
            top = archived_tops.get(str(reference))
            if top and top in map(digest_of, image.documents):
                tops[str(reference)] = top
            shown.append(reference.familiar)
        if not image.names and not image.sibling:
            shown.append(record.id)
    await asyncio.to_thread(parts.content.sync)
    merged = [
        merge_records(parts.index.images[record.id], record) if record.id in parts.index.images else record
        for record in records
    ]
    await parts.index.change(add=merged, name=names, tops=tops)
    return shown
