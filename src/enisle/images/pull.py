"""Pulling an image: manifest, config, and all layers at once, each unpacked while it still arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from enisle.contracts import Progress, RegistryAuth
from enisle.errors import EnisleError, Internal, Invalid, Unavailable
from enisle.formats.oci import Index as ImageIndex
from enisle.formats.oci import Manifest, check_layer, parse_manifest
from enisle.formats.oci_config import ImageDocument, chain_ids, parse_config
from enisle.formats.reference import Reference
from enisle.images.attestations import fetch_attestations
from enisle.images.content import storage_error
from enisle.images.index import ImageRecord, LayerRecord, now_ns
from enisle.images.ingest import Parts, Wanted, below, ingest_file, layer_progress, short
from enisle.images.platforms import choose, fits, shown
from enisle.images.registry.client import Document, Repository
from enisle.images.registry.endpoints import RegistrySettings, host_of
from enisle.images.registry.transport import Transport
from enisle.images.workers import is_damage
from enisle.model.ids import Digest, ImageId
from enisle.model.image import Descriptor, Platform

_DOWNLOADS = 4  # at the same time, per pull
_BELOW_FAILED = "the layer below it failed"

LayerKey = tuple[str, Digest]  # of a layer's flight: blob and chain


class Puller:
    """Pulls from registries into the store."""

    def __init__(self, parts: Parts, settings: RegistrySettings, *, backoff_s: float = 0.5) -> None:
        self._parts = parts
        self.settings = settings
        self._backoff_s = backoff_s

    async def pull(
        self,
        reference: Reference,
        *,
        platform: Platform,
        explicit_platform: bool,
        auth: RegistryAuth | None,
        progress: Progress,
    ) -> ImageId:
        """Pull; the image is in the index, under this name, when this returns.

        Mirrors are asked first, without credentials; what they cannot give comes from the registry itself.
        """
        progress({"status": f"Pulling from {reference.path}", "id": reference.digest or reference.tag})
        for mirror in self.settings.mirrors.get(reference.domain, ()):
            try:
                return await self._pull_from(mirror, reference, platform, explicit_platform, None, progress)
            except EnisleError:
                continue
        host = host_of(reference.domain)
        return await self._pull_from(host, reference, platform, explicit_platform, auth, progress)

    async def _pull_from(
        self,
        host: str,
        reference: Reference,
        platform: Platform,
        explicit: bool,
        auth: RegistryAuth | None,
        progress: Progress,
    ) -> ImageId:
        host = host.removeprefix("https://").removeprefix("http://").rstrip("/")
        async with Transport(host, self.settings, auth, backoff_s=self._backoff_s) as transport:
            repository = Repository(transport, reference)
            top = await repository.manifest(reference.digest or reference.tag)
            document, manifest = await self._choose(repository, reference, top, platform)
            config = await self._config(repository, manifest)
            image = parse_config(config)
            _check(reference, manifest, image, platform if explicit else None)
            image_id = ImageId(manifest.config.digest)
            before = self._parts.index.names.get(str(reference))
            chains = chain_ids(image.diff_ids)
            with self._parts.pinned([image_id, top.digest, document.digest, *chains, *_blobs(manifest)]):
                attaching = asyncio.create_task(
                    fetch_attestations(self._parts.content, repository, top.data, document.digest)
                )
                async with _owned(attaching):
                    layers = await self._layers(repository, manifest, image, chains, progress)
                    record = ImageRecord(
                        id=image_id,
                        manifest=document.digest,
                        documents=tuple(dict.fromkeys((document.digest, top.digest))),
                        attached=await attaching,
                        layers=tuple(layers),
                        tagged_at=now_ns(),
                    )
                await self._record(reference, record, top, (document.data, top.data, config))
        progress({"status": f"Digest: {top.digest}"})
        news = "Image is up to date for" if before == image_id else "Downloaded newer image for"
        progress({"status": f"Status: {news} {reference.familiar}"})
        return image_id

    async def _choose(
        self, repository: Repository, reference: Reference, top: Document, platform: Platform
    ) -> tuple[Document, Manifest]:
        parsed = parse_manifest(top.data, top.media_type)
        if isinstance(parsed, Manifest):
            return top, parsed
        assert isinstance(parsed, ImageIndex)
        child = choose(parsed.manifests, platform, reference.familiar)
        document = await repository.manifest(child.digest, size=child.size)
        chosen = parse_manifest(document.data, document.media_type)
        if not isinstance(chosen, Manifest):
            raise Invalid(f"manifest {child.digest}: an index within an index")
        return document, chosen

    async def _config(self, repository: Repository, manifest: Manifest) -> bytes:
        if self._parts.content.has(manifest.config.digest, manifest.config.size):
            with suppress(Internal):  # damaged: fetched anew
                return self._parts.content.read(manifest.config.digest)
        return await repository.small_blob(manifest.config)

    async def _layers(
        self,
        repository: Repository,
        manifest: Manifest,
        image: ImageDocument,
        chains: list[Digest],
        progress: Progress,
    ) -> list[LayerRecord]:
        """Every layer, in order. The first failure ends the others."""
        downloads = asyncio.Semaphore(_DOWNLOADS)
        for layer in manifest.layers:
            progress({"status": "Pulling fs layer", "progressDetail": {}, "id": short(layer.digest)})
        tasks: list[asyncio.Task[LayerRecord]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for position, layer in enumerate(manifest.layers):
                    wanted = Wanted(
                        below=below(chains, position),
                        diff_id=image.diff_ids[position],
                        digest=layer.digest,
                        media_type=layer.media_type,
                    )
                    under = (manifest.layers[position - 1].digest, chains[position - 1]) if position else None
                    work = self._layer(repository, layer, wanted, chains[position], under, downloads, progress)
                    tasks.append(group.create_task(work))
        except ExceptionGroup as group_error:
            raise first_failure(group_error) from None
        return [task.result() for task in tasks]

    async def _layer(
        self,
        repository: Repository,
        layer: Descriptor,
        wanted: Wanted,
        chain: Digest,
        under: LayerKey | None,
        downloads: asyncio.Semaphore,
        progress: Progress,
    ) -> LayerRecord:
        name = short(layer.digest)
        known = self._parts.known_layer(chain)
        if known is not None and known.blob == layer.digest:
            progress({"status": "Already exists", "progressDetail": {}, "id": name})
            return known

        async def work(report: Progress) -> LayerRecord:
            async with repository.held():  # the pull that started this may end before those that joined
                return await self._fetch(repository, layer, wanted, under, downloads, report)

        if downloads.locked():
            progress({"status": "Waiting", "progressDetail": {}, "id": name})
        record = await self._parts.flights.join((layer.digest, chain), work, progress)
        progress({"status": "Pull complete", "progressDetail": {}, "id": name})
        return record

    async def _fetch(
        self,
        repository: Repository,
        layer: Descriptor,
        wanted: Wanted,
        under: LayerKey | None,
        downloads: asyncio.Semaphore,
        report: Progress,
    ) -> LayerRecord:
        """Download and unpack. What an earlier try left is used; if that proves damaged, it is fetched anew once."""
        content = self._parts.content
        partial = content.partial(layer.digest)
        if content.has(layer.digest, layer.size):
            partial.unlink(missing_ok=True)
            partial.hardlink_to(content.path(layer.digest))  # nothing is downloaded; unpacking verifies it once more
        resumed = partial.exists()
        while True:
            try:
                return await self._stream(repository, layer, wanted, under, downloads, report)
            except EnisleError as error:
                if is_damage(error):
                    partial.unlink(missing_ok=True)
                if not (resumed and is_damage(error)):
                    raise
                resumed = False
            except OSError as error:
                raise storage_error(error) from error

    async def _stream(
        self,
        repository: Repository,
        layer: Descriptor,
        wanted: Wanted,
        under: LayerKey | None,
        downloads: asyncio.Semaphore,
        report: Progress,
    ) -> LayerRecord:
        name = short(layer.digest)
        partial = self._parts.content.partial(layer.digest)
        end = asyncio.Event()
        extracting = layer_progress(report, name, "Extracting", layer.size)

        partial.touch(mode=0o600)
        downloading = asyncio.create_task(self._download(repository, layer, end, downloads, report))
        taking = asyncio.create_task(
            ingest_file(
                self._parts,
                wanted,
                partial,
                end=end,
                on_read=lambda size: extracting(size) if end.is_set() else None,
                below_ready=lambda: below_landed(self._parts, under),
            )
        )
        async with _owned(downloading), _owned(taking):
            await asyncio.wait([downloading, taking], return_when=asyncio.FIRST_EXCEPTION)
            if downloading.done():
                await downloading
            return (await taking).record

    async def _download(
        self,
        repository: Repository,
        layer: Descriptor,
        end: asyncio.Event,
        downloads: asyncio.Semaphore,
        report: Progress,
    ) -> None:
        name = short(layer.digest)
        async with downloads:
            on_size = layer_progress(report, name, "Downloading", layer.size)
            await repository.download(layer, self._parts.content.partial(layer.digest), on_size)
        report({"status": "Verifying Checksum", "progressDetail": {}, "id": name})
        report({"status": "Download complete", "progressDetail": {}, "id": name})
        end.set()

    async def _record(
        self,
        reference: Reference,
        record: ImageRecord,
        top: Document,
        documents: Iterable[bytes],
    ) -> None:
        """Everything onto the disk, then into the index: the index never knows what the disk may have lost."""
        content = self._parts.content
        for data in documents:
            content.put(data)
        await asyncio.to_thread(content.sync)
        names = {str(reference.with_digest(top.digest)): record.id}
        if reference.tag and not reference.digest:
            names[str(reference)] = record.id
        tops = dict.fromkeys(names, top.digest)
        await self._parts.index.change(add=[self._merged(record)], name=names, tops=tops)

    def _merged(self, record: ImageRecord) -> ImageRecord:
        """One image may come under several manifests; none of their documents is forgotten."""
        old = self._parts.index.images.get(record.id)
        if old is None:
            return record
        return merge_records(old, record)


async def below_landed(parts: Parts, under: LayerKey | None) -> None:
    """Wait for the layer below one. Unavailable when it did not come."""
    landed = under is None or await parts.flights.landed(under)
    if under is not None and not landed and not parts.layers.has(under[1]):
        raise Unavailable(f"layer {under[0] or under[1]}: {_BELOW_FAILED}")


def merge_records(old: ImageRecord, new: ImageRecord) -> ImageRecord:
    """The newer record, with the documents and the parent of the older."""
    return ImageRecord(
        id=new.id,
        manifest=new.manifest or old.manifest,
        documents=tuple(dict.fromkeys((*new.documents, *old.documents))),
        attached=tuple(dict.fromkeys((*new.attached, *old.attached))),
        layers=new.layers,
        parent=new.parent or old.parent,
        tagged_at=new.tagged_at or old.tagged_at,
    )


def _blobs(manifest: Manifest) -> list[str]:
    return [layer.digest for layer in manifest.layers]


def _check(reference: Reference, manifest: Manifest, image: ImageDocument, wanted: Platform | None) -> None:
    """Refuse before anything large is fetched."""
    if len(image.diff_ids) != len(manifest.layers):
        raise Invalid(f"{reference.familiar}: the config has {len(image.diff_ids)} layers, the manifest another number")
    for layer in manifest.layers:
        check_layer(layer)
    if wanted is not None and not fits(image.platform, wanted):
        raise Invalid(
            f"image with reference {reference.familiar} was found but does not match the specified platform: "
            f"wanted {shown(wanted)}, actual: {shown(image.platform)}"
        )


def first_failure(group: BaseExceptionGroup[Exception]) -> Exception:
    """The failure that explains the others: not the one about the layer below."""
    leaves: list[Exception] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        elif isinstance(error, Exception):
            leaves.append(error)
    return next((error for error in leaves if _BELOW_FAILED not in str(error)), leaves[0])


@asynccontextmanager
async def _owned(task: asyncio.Task[Any]) -> AsyncIterator[None]:
    """End the task with the block, and wait until it has cleaned up."""
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: of several failures one is told, and asyncio would log the others
