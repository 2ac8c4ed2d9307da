"""Pushing an image: what the registry lacks of its blobs, then the manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from enisle.contracts import Progress, RegistryAuth
from enisle.errors import NotFound
from enisle.formats.oci import Manifest, descriptor_document, parse_manifest
from enisle.formats.oci_config import parse_config
from enisle.formats.reference import Reference, parse_reference
from enisle.images.content import digest_of
from enisle.images.index import ImageRecord, LayerRecord
from enisle.images.ingest import Parts, layer_progress, short
from enisle.images.manifests import manifest_of
from enisle.images.platforms import fits, shown
from enisle.images.pull import first_failure, merge_records
from enisle.images.registry.client import Repository, with_tries
from enisle.images.registry.endpoints import RegistrySettings, host_of
from enisle.images.registry.transport import Transport
from enisle.images.variants import Family, Member, family_of, sibling
from enisle.model.ids import Digest
from enisle.model.image import Platform

_UPLOADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """What to push: images with their manifests, what is attached to them, and at last ``top`` under the tag.

    ``named`` gets its digest.
    """

    images: list[tuple[ImageRecord, bytes]]
    named: ImageRecord
    top: bytes
    attached: tuple[Member, ...] = ()
    note: dict[str, Any] | None = None


class Pusher:
    """Pushes from the store to registries."""

    def __init__(self, parts: Parts, settings: RegistrySettings, *, backoff_s: float = 0.5) -> None:
        self._parts = parts
        self.settings = settings
        self._backoff_s = backoff_s

    async def push(
        self,
        reference: Reference,
        record: ImageRecord,
        *,
        platform: Platform | None,
        auth: RegistryAuth | None,
        progress: Progress,
    ) -> None:
        """Push one image under one tag. It then has a digest in that repository, which the index remembers.

        An image that came with an index is pushed with all of it if all of it is here, else alone, with a note.
        """
        progress({"status": f"The push refers to repository [{reference.name}]"})
        plan = self._plan(reference, record, platform)
        async with Transport(host_of(reference.domain), self.settings, auth, backoff_s=self._backoff_s) as transport:
            repository = Repository(transport, reference)
            with self._parts.pinned(blob for image, _ in plan.images for blob in image.blobs):
                for image, data in plan.images:
                    manifest = parse_manifest(data)
                    assert isinstance(manifest, Manifest)
                    await self._blobs(transport, repository, reference, image, manifest, progress)
                    if data != plan.top:
                        await repository.put_manifest(digest_of(data), data, manifest.media_type)
                for member in plan.attached:
                    await self._attached(transport, repository, member)
                media_type = parse_manifest(plan.top).media_type
                await repository.put_manifest(reference.tag or digest_of(plan.top), plan.top, media_type)
        digest = await self._remember(reference, plan)
        tag = reference.tag or digest
        progress({"status": f"{tag}: digest: {digest} size: {len(plan.top)}"})
        progress({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": len(plan.top)}})
        if plan.note is not None:
            progress({"progressDetail": {}, "aux": plan.note})

    def _plan(self, reference: Reference, record: ImageRecord, platform: Platform | None) -> _Plan:
        content, records = self._parts.content, self._parts.index
        family = family_of(content, records, record, name=str(reference))
        if platform is not None:
            chosen = sibling(content, records, record, platform) if family else record
            own = parse_config(content.read(Digest(record.id))).platform
            if chosen is None or (not family and not fits(own, platform)):
                raise NotFound(
                    f"image with reference {reference.familiar} was found but does not provide the specified platform "
                    f"({shown(platform)})"
                )
            data = manifest_of(content, chosen)
            return _Plan(images=[(chosen, data)], named=chosen, top=data)
        data = manifest_of(content, record)
        if family is None:
            return _Plan(images=[(record, data)], named=record, top=data)
        if not family.whole:
            note = _instead_of_index(family, data)
            return _Plan(images=[(record, data)], named=record, top=data, note=note)
        images = [(member.record, content.read(member.descriptor.digest)) for member in family.members if member.record]
        attached = tuple(member for member in family.members if member.attached)
        return _Plan(images=images, named=record, top=family.data, attached=attached)

    async def _remember(self, reference: Reference, plan: _Plan) -> Digest:
        """The image's digest in that repository; "" as its manifest until now means that it was made here."""
        content, record = self._parts.content, plan.named
        digest = content.put(plan.top)
        manifest = record.manifest or digest
        pushed = ImageRecord(id=record.id, manifest=manifest, documents=(digest,), layers=record.layers)
        current = self._parts.index.images.get(record.id)
        if current is not None:
            merged = merge_records(current, pushed)
            name = str(reference.with_digest(digest))
            await self._parts.index.change(add=[merged], name={name: record.id}, tops={name: digest})
        return digest

    async def _blobs(
        self,
        transport: Transport,
        repository: Repository,
        reference: Reference,
        record: ImageRecord,
        manifest: Manifest,
        progress: Progress,
    ) -> None:
        uploads = asyncio.Semaphore(_UPLOADS)
        unique = {layer.blob: layer for layer in reversed(record.layers)}
        for layer in unique.values():
            progress({"status": "Preparing", "progressDetail": {}, "id": short(layer.diff_id)})
        try:
            async with asyncio.TaskGroup() as group:
                for layer in unique.values():
                    group.create_task(self._layer(transport, repository, reference, layer, uploads, progress))
        except ExceptionGroup as failures:
            raise first_failure(failures) from None
        if not await repository.has_blob(manifest.config.digest):
            await self._upload(transport, repository, manifest.config.digest, lambda _: None)

    async def _attached(self, transport: Transport, repository: Repository, member: Member) -> None:
        assert member.manifest is not None
        for blob in dict.fromkeys((member.manifest.config.digest, *(layer.digest for layer in member.manifest.layers))):
            if not await repository.has_blob(blob):
                await self._upload(transport, repository, blob, lambda _: None)
        data = self._parts.content.read(member.descriptor.digest)
        await repository.put_manifest(member.descriptor.digest, data, member.manifest.media_type)

    async def _layer(
        self,
        transport: Transport,
        repository: Repository,
        reference: Reference,
        layer: LayerRecord,
        uploads: asyncio.Semaphore,
        progress: Progress,
    ) -> None:
        name = short(layer.diff_id)
        if uploads.locked():
            progress({"status": "Waiting", "progressDetail": {}, "id": name})
        async with uploads:
            if await repository.has_blob(layer.blob):
                progress({"status": "Layer already exists", "progressDetail": {}, "id": name})
                return
            for source in self._elsewhere(reference, layer.blob):
                if await repository.mount(layer.blob, source) is None:
                    progress({"status": f"Mounted from {source}", "progressDetail": {}, "id": name})
                    return
            await self._upload(transport, repository, layer.blob, layer_progress(progress, name, "Pushing", layer.size))
            progress({"status": "Pushed", "progressDetail": {}, "id": name})

    async def _upload(
        self, transport: Transport, repository: Repository, blob: Digest, on_sent: Callable[[int], None]
    ) -> None:
        path = self._parts.content.path(blob)

        async def once() -> None:
            url = await repository.open_upload()
            await repository.upload(url, path, blob, on_sent)

        await with_tries(once, transport)

    def _elsewhere(self, reference: Reference, blob: Digest) -> list[str]:
        """Repositories of the same registry that should have the blob, because we know it from there."""
        found = []
        for name, image in self._parts.index.names.items():
            other = parse_reference(name)
            if other.domain != reference.domain or other.path == reference.path or not other.digest:
                continue
            if any(layer.blob == blob for layer in self._parts.index.images[image].layers):
                found.append(other.path)
        return sorted(set(found))[:2]


def _instead_of_index(family: Family, manifest: bytes) -> dict[str, Any]:
    """What Docker's client turns into its note that only one platform of several was pushed."""
    selected = next(member.descriptor for member in family.members if member.descriptor.digest == digest_of(manifest))
    return {
        "manifestPushedInsteadOfIndex": True,
        "originalIndex": descriptor_document(family.descriptor),
        "selectedManifest": descriptor_document(selected),
    }
