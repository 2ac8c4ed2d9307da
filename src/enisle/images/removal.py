"""Removing images and whatever content no other image needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from enisle.contracts import Removed
from enisle.formats.reference import parse_reference
from enisle.images.disk import DiskStore
from enisle.images.index import ImageRecord, LayerRecord
from enisle.images.ingest import Parts
from enisle.images.lookup import Lookup
from enisle.model.ids import Digest


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
        layers = await self._free(doomed)
        removed += [Removed(deleted=image.id) for image in doomed]
        return removed + [Removed(deleted=layer.chain) for layer in layers]

    async def _free(self, doomed: Iterable[ImageRecord]) -> list[LayerRecord]:
        """Remove what the images had to themselves; the layers among it, topmost first."""
        doomed = list(doomed)
        blobs, chains = self._used()
        layers = {layer.chain: layer for image in doomed for layer in reversed(image.layers)}
        free_layers = [layer for chain, layer in layers.items() if chain not in chains]
        free_blobs = {blob for image in doomed for blob in image.blobs} - blobs
        for image in doomed:
            self._lookup.forget(image.id)
            self._disks.delete(image.id)
        for blob in free_blobs:
            self._parts.content.delete(blob)
        for layer in free_layers:
            await asyncio.to_thread(self._parts.layers.delete, layer.chain)
        return free_layers

    def _used(self) -> tuple[set[str], set[str]]:
        """Blobs and chains that the index or work under way needs."""
        pinned = set(self._parts.pins)
        images = self._parts.index.images.values()
        blobs: set[str] = {blob for image in images for blob in image.blobs}
        chains: set[str] = {layer.chain for image in images for layer in image.layers}
        return blobs | pinned, chains | pinned

    async def prune(self, refused: Callable[[ImageRecord], bool]) -> tuple[list[Removed], int]:
        """Remove the images that are refused, and unfinished downloads; what was removed, bytes freed."""
        removed: list[Removed] = []
        freed = 0
        for record in list(self._parts.index.images.values()):
            if record.id in self._parts.index.images and refused(record):
                before = self.layer_sizes()
                removed += await self.remove(record, prune_parents=False)
                freed += sum(before.values()) - sum(self.layer_sizes().values())
        return removed, freed + await self.sweep(age_s=0.0 if not self._parts.pins else 3600.0)

    async def sweep(self, *, age_s: float) -> int:
        """Remove content without an image that is older; the bytes freed."""
        blobs, _ = self._used()
        return await asyncio.to_thread(self._parts.content.sweep, [Digest(blob) for blob in blobs], age_s=age_s)

    def layer_sizes(self) -> dict[Digest, int]:
        """Bytes of each layer, unpacked."""
        images = self._parts.index.images.values()
        return {layer.chain: layer.unpacked for image in images for layer in image.layers}
