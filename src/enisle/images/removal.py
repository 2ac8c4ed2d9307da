"""Removing images and whatever content no other image needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from enisle.contracts import Removed, StoreUse
from enisle.formats.reference import parse_reference
from enisle.images.disk import DiskStore
from enisle.images.index import ImageRecord, LayerRecord
from enisle.images.ingest import Parts
from enisle.images.lookup import Lookup
from enisle.linux.disk_usage import allocated_bytes
from enisle.model.ids import Digest, ImageId


class Remover:
    """Takes images out of the index first, then their content off the disk: a crash leaves rubbish, never gaps."""

    def __init__(self, parts: Parts, disks: DiskStore, lookup: Lookup) -> None:
        self._parts = parts
        self._disks = disks
        self._lookup = lookup

    async def untag(self, name: str) -> list[Removed]:
        """Drop one name; with the last tag of a repository its digests go too, as in Docker."""
        index = self._parts.index
        image = index.names[name]
        reference = parse_reference(name)
        gone = [name]
        others = [parse_reference(other) for other in index.names_of(image) if other != name]
        same = [other for other in others if other.name == reference.name]
        if reference.tag and not any(other.tag for other in same):
            gone += [str(other) for other in same]
        await index.change(unname=gone)
        return [Removed(untagged=parse_reference(one).familiar) for one in gone]

    async def remove(self, record: ImageRecord, *, prune_parents: bool) -> list[Removed]:
        """Drop an image with all its names, then unnamed parents that nothing else was made from."""
        index = self._parts.index
        removed = [Removed(untagged=reference.familiar) for reference in self._lookup.references(record.id)]
        doomed = [record]
        while prune_parents and (parent := index.images.get(doomed[-1].parent)) is not None:
            going = {image.id for image in doomed}
            has_child = any(image.parent == parent.id for image in index.images.values() if image.id not in going)
            if index.names_of(parent.id) or has_child:
                break
            doomed.append(parent)
        await index.change(remove=[image.id for image in doomed])
        free_layers, free_blobs = self._free(doomed)
        for image in doomed:
            self._lookup.forget(image.id)
            self._disks.delete(image.id)
        for blob in free_blobs:
            self._parts.content.delete(blob)
        for layer in free_layers:
            await asyncio.to_thread(self._parts.layers.delete, layer.chain)
        removed += [Removed(deleted=image.id) for image in doomed]
        return removed + [Removed(deleted=layer.chain) for layer in free_layers]

    async def discard(self, record: ImageRecord) -> tuple[list[Removed], int]:
        """As ``remove``, without parents; and the bytes freed on the disk."""
        layers, blobs = self._free([record], without={record.id})
        freed = await asyncio.to_thread(self._measure, record, layers, blobs)
        return await self.remove(record, prune_parents=False), freed

    def _free(
        self, doomed: list[ImageRecord], *, without: Collection[str] = ()
    ) -> tuple[list[LayerRecord], set[Digest]]:
        """What the images have to themselves, when those of ``without`` do not count: layers, topmost first; blobs."""
        blobs, chains = self._used(without)
        layers = {layer.chain: layer for image in doomed for layer in reversed(image.layers)}
        free_layers = [layer for chain, layer in layers.items() if chain not in chains]
        return free_layers, {blob for image in doomed for blob in image.blobs} - blobs

    def _measure(self, record: ImageRecord, layers: list[LayerRecord], blobs: set[Digest]) -> int:
        parts = self._parts
        return (
            self._disks.disk_bytes(record.id)
            + sum(parts.layers.disk_bytes(layer.chain) for layer in layers)
            + sum(allocated_bytes(parts.content.path(blob)) for blob in blobs)
        )

    def _used(self, without: Collection[str] = ()) -> tuple[set[str], set[str]]:
        """Blobs and chains that the index (but for some images) or work under way needs."""
        pinned = set(self._parts.pins)
        images = [image for image in self._parts.index.images.values() if image.id not in without]
        blobs: set[str] = {blob for image in images for blob in image.blobs}
        chains: set[str] = {layer.chain for image in images for layer in image.layers}
        return blobs | pinned, chains | pinned

    async def prune(self, refused: Callable[[ImageRecord], bool]) -> tuple[list[Removed], int]:
        """Remove the images that are refused, and unfinished downloads; what was removed, bytes freed on the disk."""
        removed: list[Removed] = []
        freed = 0
        for record in list(self._parts.index.images.values()):
            if record.id in self._parts.index.images and refused(record):
                steps, bytes_ = await self.discard(record)
                removed += steps
                freed += bytes_
        return removed, freed + await self.sweep(age_s=0.0 if not self._parts.pins else 3600.0)

    async def sweep(self, *, age_s: float) -> int:
        """Remove content without an image that is older; the bytes freed."""
        blobs, _ = self._used()
        return await asyncio.to_thread(self._parts.content.sweep, [Digest(blob) for blob in blobs], age_s=age_s)

    async def usage(self) -> StoreUse:
        """What everything takes on the disk; layers are measured once each."""
        return await asyncio.to_thread(self._usage, list(self._parts.index.images.values()))

    def _usage(self, images: list[ImageRecord]) -> StoreUse:
        pieces = self._parts.content.disk_bytes()
        needed: dict[ImageId, frozenset[str]] = {}
        for image in images:
            for layer in image.layers:
                pieces[f"layer {layer.chain}"] = self._parts.layers.disk_bytes(layer.chain)
            pieces[f"disk {image.id}"] = self._disks.disk_bytes(image.id)
            layers = (f"layer {layer.chain}" for layer in image.layers)
            needed[image.id] = frozenset([*layers, *image.blobs, f"disk {image.id}"])
        return StoreUse(pieces=pieces, images=needed)

    def layer_sizes(self) -> StoreUse:
        """The layers only, by the sizes of their files."""
        images = self._parts.index.images
        return StoreUse(
            pieces={layer.chain: layer.unpacked for image in images.values() for layer in image.layers},
            images={image.id: frozenset(layer.chain for layer in image.layers) for image in images.values()},
        )
