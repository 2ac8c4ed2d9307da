"""Images made here: from a root file system, or from a parent and one more layer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from enisle.archive.copy import format_time
from enisle.errors import Invalid
from enisle.formats.json_document import SIZE_LIMIT_BYTES
from enisle.formats.oci_config import ImageDocument, encode_config
from enisle.images.index import ImageRecord, LayerRecord, now_ns
from enisle.images.ingest import Parts, Taken, Wanted
from enisle.images.intake import Intake
from enisle.images.pull import merge_records
from enisle.model.ids import ImageId
from enisle.model.image import HistoryEntry


async def take_stream(parts: Parts, source: AsyncIterator[bytes], below: tuple[LayerRecord, ...]) -> Taken:
    """Take in a layer from a stream, compressed or not, on top of others (bottom first); unpacked while it arrives."""
    intake = await Intake.open(parts, on_read=lambda _: None)
    try:
        await intake.take(source)
        return await intake.settle(Wanted(below=tuple(layer.chain for layer in reversed(below))))
    finally:
        await intake.close()


async def add_image(
    parts: Parts,
    document: ImageDocument,
    layers: tuple[LayerRecord, ...],
    *,
    name: str,
    parent: str = "",
    keep: bool = True,
) -> ImageId:
    """Put an image of layers that are in the store into the index. ``name``: normalised reference, "" for none.

    Without ``keep`` nothing is put on the disk for good yet. Invalid: nobody could read a config of that size.
    """
    config = encode_config(document)
    if len(config) > SIZE_LIMIT_BYTES:
        raise Invalid(f"the image's config has {len(config)} bytes; at most {SIZE_LIMIT_BYTES} can be read again")
    image_id = ImageId(parts.content.put(config))
    record = ImageRecord(id=image_id, layers=layers, parent=parent, tagged_at=now_ns() if name else 0)
    old = parts.index.images.get(image_id)
    if keep:
        await asyncio.to_thread(parts.content.sync)
    await parts.index.change(
        add=[merge_records(old, record) if old else record], name={name: image_id} if name else {}, keep=keep
    )
    return image_id


def extended(
    document: ImageDocument, taken: Taken | None, *, created_by: str, author: str, comment: str, created: str = ""
) -> tuple[ImageDocument, bool]:
    """The config with one more history entry and, unless the layer is empty, one more layer; and whether it has one."""
    created = created or format_time(time.time_ns())
    is_empty = taken is None or taken.entries == 0
    entry = HistoryEntry(created=created, created_by=created_by, author=author, comment=comment, empty_layer=is_empty)
    return (
        replace(
            document,
            created=created,
            author=author or document.author,
            comment=comment,
            history=(*document.history, entry),
            diff_ids=(*document.diff_ids, taken.record.diff_id) if taken and not is_empty else document.diff_ids,
        ),
        not is_empty,
    )


def same_step(below: ImageDocument | None, source: ImageDocument, created_by: str) -> tuple[HistoryEntry, int] | None:
    """What a source has for a step above exactly these others: its history entry, and how many layers it has with it.

    None when it was made in another way. Times, and who made it, do not count.
    """
    history, diff_ids = (below.history, below.diff_ids) if below else ((), ())
    depth = len(history)
    if len(source.history) <= depth or source.diff_ids[: len(diff_ids)] != diff_ids:
        return None
    for one, other in zip(history, source.history, strict=False):
        if (one.created_by, one.empty_layer) != (other.created_by, other.empty_layer):
            return None
    entry = source.history[depth]
    if entry.created_by != created_by:
        return None
    layers = len(diff_ids) + (not entry.empty_layer)
    return (entry, layers) if len(source.diff_ids) >= layers else None


def squashed_document(document: ImageDocument, taken: Taken, below: tuple[LayerRecord, ...]) -> ImageDocument:
    """The config with one layer above those below; the history keeps every step, all but the last without a layer."""
    kept = len(below)
    history: list[HistoryEntry] = []
    for entry in document.history:
        kept -= 0 if entry.empty_layer else 1
        history.append(replace(entry, empty_layer=entry.empty_layer or kept < 0))
    merged = HistoryEntry(created=document.created, comment=f"merge of {len(document.diff_ids) - len(below)} layers")
    return replace(
        document,
        history=(*history, merged),
        diff_ids=(*(layer.diff_id for layer in below), taken.record.diff_id),
    )
