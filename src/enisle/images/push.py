"""Pushing an image: what the registry lacks of its blobs, then the manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from enisle.contracts import Progress, RegistryAuth
from enisle.formats.oci import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Manifest,
    encode_manifest,
    parse_manifest,
)
from enisle.formats.reference import Reference, parse_reference
from enisle.images.content import ContentStore, digest_of
from enisle.images.index import ImageRecord, LayerRecord
from enisle.images.ingest import Parts, layer_progress, short
from enisle.images.pull import first_failure, merge_records
from enisle.images.registry.client import Repository, with_tries
from enisle.images.registry.endpoints import RegistrySettings, host_of
from enisle.images.registry.transport import Transport
from enisle.model.ids import Digest
from enisle.model.image import Descriptor

_UPLOADS = 4


class Pusher:
    """Pushes from the store to registries."""

    def __init__(self, parts: Parts, settings: RegistrySettings, *, backoff_s: float = 0.5) -> None:
        self._parts = parts
        self._settings = settings
        self._backoff_s = backoff_s

    async def push(
        self, reference: Reference, record: ImageRecord, *, auth: RegistryAuth | None, progress: Progress
    ) -> None:
        """Push one image under one tag. It then has a digest in that repository, which the index remembers."""
        progress({"status": f"The push refers to repository [{reference.name}]"})
        content = self._parts.content
        manifest_bytes = manifest_of(content, record)
        manifest = parse_manifest(manifest_bytes)
        assert isinstance(manifest, Manifest)
        async with Transport(host_of(reference.domain), self._settings, auth, backoff_s=self._backoff_s) as transport:
            repository = Repository(transport, reference)
            with self._parts.pinned(record.blobs):
                await self._blobs(transport, repository, reference, record, manifest, progress)
                await repository.put_manifest(
                    reference.tag or digest_of(manifest_bytes), manifest_bytes, manifest.media_type
                )
        digest = await self._remember(reference, record, manifest_bytes)
        tag = reference.tag or digest
        progress({"status": f"{tag}: digest: {digest} size: {len(manifest_bytes)}"})
        progress({"progressDetail": {}, "aux": {"Tag": tag, "Digest": digest, "Size": len(manifest_bytes)}})

    async def _remember(self, reference: Reference, record: ImageRecord, manifest: bytes) -> Digest:
        digest = self._parts.content.put(manifest)
        pushed = ImageRecord(id=record.id, manifest=digest, documents=(digest,), layers=record.layers)
        current = self._parts.index.images.get(record.id)
        if current is not None:
            merged = merge_records(current, pushed)
            await self._parts.index.change(add=[merged], name={str(reference.with_digest(digest)): record.id})
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


def manifest_of(content: ContentStore, record: ImageRecord) -> bytes:
    """The manifest an image came with, or one made for it: schema 2 where that can say it, which everybody reads."""
    if record.manifest:
        return content.read(Digest(record.manifest))
    gzipped = all(layer.media_type.endswith("gzip") for layer in record.layers)
    config = Digest(record.id)
    return encode_manifest(
        Manifest(
            media_type=DOCKER_MANIFEST if gzipped else OCI_MANIFEST,
            config=Descriptor(
                media_type=DOCKER_CONFIG if gzipped else OCI_CONFIG, digest=config, size=content.size(config)
            ),
            layers=tuple(
                Descriptor(
                    media_type=DOCKER_LAYER + ".gzip" if gzipped else layer_type(layer.media_type),
                    digest=layer.blob,
                    size=layer.size,
                )
                for layer in record.layers
            ),
        )
    )


def layer_type(media_type: str) -> str:
    """A layer's media type in OCI's words."""
    if media_type.startswith(DOCKER_LAYER):
        return OCI_LAYER + media_type[len(DOCKER_LAYER) :].replace(".", "+")
    return media_type
