"""The image store: contracts.ImageStore on a directory. Every operation is in a module of its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from enisle.contracts import ImageStep, Progress, RegistryAuth, Removed, StoreUse
from enisle.errors import Conflict, Invalid, NotFound
from enisle.formats.oci_config import ImageDocument
from enisle.formats.reference import parse_reference
from enisle.images.bootstrap.build import built
from enisle.images.bootstrap.recipes import recipe_for
from enisle.images.content import ContentStore
from enisle.images.disk import DiskStore
from enisle.images.flights import Flights
from enisle.images.index import ImageRecord, Index, now_ns
from enisle.images.ingest import Parts
from enisle.images.layers import LayerStore
from enisle.images.load import load
from enisle.images.lookup import Lookup
from enisle.images.made import add_image, extended, same_step, squashed_document, take_stream
from enisle.images.platforms import fits, host_platform, shown
from enisle.images.pull import Puller
from enisle.images.push import Pusher
from enisle.images.registry.endpoints import RegistrySettings
from enisle.images.registry.questions import check_login, list_tags, look_up
from enisle.images.removal import Remover
from enisle.images.save import Chosen, choose_images, saved
from enisle.images.variants import sibling, variants
from enisle.images.workers import Workers
from enisle.model.ids import ImageId
from enisle.model.image import Descriptor, HistoryEntry, Image, ImageConfig, ImageVariant, Platform


class LocalImageStore:
    """Images in one directory of this host. Make it with :meth:`open`, end it with :meth:`close`.

    Several reads may go on beside each other and beside changes; one process has the directory to itself.
    """

    def __init__(self, root: Path, settings: RegistrySettings, lock_fd: int, *, backoff_s: float = 0.5) -> None:
        self._lock_fd = lock_fd
        content, layers = ContentStore(root), LayerStore(root)
        self._root = root
        self._settings = settings
        self._parts = Parts(
            content=content,
            layers=layers,
            index=Index(root / "index.json"),
            workers=Workers(),
            flights=Flights(),
            pins=Counter(),
        )
        self._lookup = Lookup(self._parts.index, content)
        self._disks = DiskStore(root)
        self._remover = Remover(self._parts, self._disks, self._lookup)
        self._puller = Puller(self._parts, settings, backoff_s=backoff_s)
        self._pusher = Pusher(self._parts, settings, backoff_s=backoff_s)

    @classmethod
    async def open(
        cls, root: Path, settings: RegistrySettings | None = None, *, backoff_s: float = 0.5
    ) -> LocalImageStore:
        """The store in that directory (made if need be). What a crash left unfinished is cleared away.

        Conflict when another process has it open; Internal when its records cannot be read.
        """
        lock_fd = _lock(root)
        try:
            store = cls(root, settings or RegistrySettings(), lock_fd, backoff_s=backoff_s)
        except BaseException:
            os.close(lock_fd)
            raise
        index = store._parts.index
        chains = [layer.chain for image in index.images.values() for layer in image.layers]
        await asyncio.to_thread(store._parts.layers.sweep, chains)
        await asyncio.to_thread(store._disks.sweep, list(index.images))
        await store._remover.sweep(age_s=24 * 3600.0)
        return store

    def reconfigure(self, settings: RegistrySettings) -> None:
        """Have other mirrors and insecure registries; what is under way goes on as it began."""
        self._settings = self._puller.settings = self._pusher.settings = settings

    async def close(self) -> None:
        """End worker processes and let the directory go."""
        await self._parts.workers.close()
        os.close(self._lock_fd)

    # --- looking ---

    async def get(self, reference: str, platform: Platform | None = None) -> Image:
        """By name, name@digest, id or id prefix."""
        record = self._lookup.find(reference)
        image = self._lookup.image(record)
        if platform is not None and not fits(image.platform, platform):
            other = sibling(self._parts.content, self._parts.index, record, platform)
            if other is not None:
                return self._lookup.image(other)
            raise NotFound(
                f"image with reference {reference} was found but does not provide the specified platform "
                f"({shown(platform)})"
            )
        return image

    async def all(self) -> list[Image]:
        """Every image."""
        return [self._lookup.image(record) for record in self._parts.index.images.values()]

    async def history(self, image: ImageId) -> list[tuple[HistoryEntry, str, int, tuple[str, ...]]]:
        """Newest first: entry, image id or "<missing>", size in bytes, tags."""
        record = self._record(image)
        layers = iter(record.layers)
        rows: list[tuple[HistoryEntry, str, int, tuple[str, ...]]] = []
        for entry in self._lookup.document(record).history:
            layer = None if entry.empty_layer else next(layers, None)
            rows.append((entry, "<missing>", layer.unpacked if layer else 0, ()))
        if rows:
            entry, _, size, _ = rows[-1]
            tags = tuple(name.familiar for name in self._lookup.references(image) if name.tag)
            rows[-1] = (entry, image, size, tags)
        return rows[::-1]

    async def layers(self, image: ImageId) -> list[Path]:
        """Unpacked layer directories for overlayfs, topmost first. All of them are siblings with short names."""
        return [self._parts.layers.path(layer.chain) for layer in reversed(self._record(image).layers)]

    async def disk(self, image: ImageId) -> Path:
        """The image as one read-only EROFS file, made on first use."""
        return await self._disks.get(image, await self.layers(image))

    async def usage(self) -> StoreUse:
        """What everything takes on the disk."""
        return await self._remover.usage()

    def layer_sizes(self) -> StoreUse:
        """The layers only, by the sizes of their files."""
        return self._remover.layer_sizes()

    def _record(self, image: str) -> ImageRecord:
        record = self._parts.index.images.get(image)
        if record is None:
            raise NotFound(f"No such image: {image}")
        return record

    # --- registries ---

    async def pull(
        self, reference: str, *, platform: Platform | None, auth: RegistryAuth | None, progress: Progress
    ) -> Image:
        """Pull one image under one name (latest if no tag is given)."""
        name = parse_reference(reference).or_latest()
        if name.digest:
            name = replace(name, tag="")
        image_id = await self._puller.pull(
            name,
            platform=platform or host_platform(),
            explicit_platform=platform is not None,
            auth=auth,
            progress=progress,
        )
        record = self._parts.index.images.get(image_id)  # which somebody may have removed again
        return self._lookup.image(record) if record is not None else Image(id=image_id)

    async def variants(self, image: ImageId) -> list[ImageVariant]:
        """What the index it came with lists; its own manifest for an image without."""
        return variants(self._parts.content, self._parts.index, self._record(image))

    async def push(
        self, reference: str, *, platform: Platform | None = None, auth: RegistryAuth | None, progress: Progress
    ) -> None:
        """Push the image that has this name; without a tag, all tags of the repository, as Docker does."""
        name = parse_reference(reference)
        if name.digest:
            raise Invalid("cannot push a digest reference")
        tags = [name] if name.tag else self._lookup.tags_of(name)
        if not tags:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        for one in tags:
            image = self._parts.index.names.get(str(one))
            if image is None:
                raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
            await self._pusher.push(one, self._record(image), platform=platform, auth=auth, progress=progress)

    async def login(self, auth: RegistryAuth) -> None:
        """Unauthenticated unless the registry at ``auth.server`` takes these credentials."""
        await check_login(self._settings, auth)

    async def distribution(self, reference: str, *, auth: RegistryAuth | None) -> tuple[Descriptor, list[Platform]]:
        """What the registry has under a name, and for which platforms."""
        return await look_up(self._settings, parse_reference(reference).or_latest(), auth)

    async def tags(self, repository: str, *, auth: RegistryAuth | None) -> list[str]:
        """The tags that a repository has in its registry."""
        return await list_tags(self._settings, parse_reference(repository), auth)

    # --- names and removal ---

    async def tag(self, image: ImageId, reference: str) -> None:
        """Give an image one more name; the name leaves the image that had it."""
        name = parse_reference(reference)
        if name.digest:
            raise Invalid("refusing to create a tag with a digest reference")
        record = replace(self._record(image), tagged_at=now_ns())
        await self._parts.index.change(add=[record], name={str(name.or_latest()): image})

    async def untag(self, reference: str) -> list[Removed]:
        """Drop one name; the image stays."""
        name = parse_reference(reference).or_latest()
        if str(name) not in self._parts.index.names:
            raise NotFound(f"No such image: {name.familiar}")
        return await self._remover.untag(str(name))

    async def remove(self, image: ImageId, *, prune_parents: bool) -> list[Removed]:
        """Drop all names and the content that no other image needs."""
        return await self._remover.remove(self._record(image), prune_parents=prune_parents)

    async def discard(self, image: ImageId) -> int:
        """As ``remove``, without parents; the bytes freed on the disk."""
        return (await self._remover.discard(self._record(image)))[1]

    async def prune(self, *, keep: Callable[[Image], bool]) -> tuple[list[Removed], int]:
        """Remove each image that ``keep`` refuses, and content without an image."""
        return await self._remover.prune(lambda record: not keep(self._lookup.image(record)))

    # --- archives ---

    async def load(self, source: AsyncIterator[bytes], *, progress: Progress) -> list[str]:
        """Take in a docker-archive or oci-archive; names or ids."""
        return await load(self._parts, source, progress)

    async def save(self, references: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """An archive of images; a name without a tag means all tags of the repository."""
        return saved(self._parts, choose_images(self._lookup, references))

    async def save_as(self, image: ImageId, names: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """An archive of one image under names that it does not have here."""
        chosen = tuple(parse_reference(name).or_latest() for name in names)
        return saved(self._parts, [Chosen(record=self._record(image), names=chosen)])

    # --- images made here ---

    async def import_tar(
        self,
        source: AsyncIterator[bytes],
        *,
        reference: str,
        config: ImageConfig,
        message: str,
        platform: Platform | None,
        created_by: str = "",
    ) -> ImageId:
        """An image of one layer from a root file system tar; ``reference`` "" leaves it without a name."""
        name = str(parse_reference(reference).or_latest()) if reference else ""
        taken = await take_stream(self._parts, source, ())
        with self._parts.pinned([taken.record.chain, taken.record.blob]):
            document, _ = extended(
                ImageDocument(config=config, platform=platform or host_platform()),
                replace(taken, entries=max(taken.entries, 1)),
                created_by=created_by,
                author="",
                comment=message,
            )
            return await add_image(self._parts, document, (taken.record,), name=name)

    async def commit(
        self,
        parent: ImageId,
        layer: AsyncIterator[bytes],
        *,
        reference: str,
        config: ImageConfig,
        author: str,
        message: str,
        created_by: str,
    ) -> ImageId:
        """An image of the parent's layers and one more; no more for an empty layer."""
        name = str(parse_reference(reference).or_latest()) if reference else ""
        base = self._record(parent)
        with self._parts.pinned([*base.blobs, *(one.chain for one in base.layers)]):
            taken = await take_stream(self._parts, layer, base.layers)
            with self._parts.pinned([taken.record.chain, taken.record.blob]):
                document, has_layer = extended(
                    replace(self._lookup.document(base), config=config),
                    taken,
                    created_by=created_by,
                    author=author,
                    comment=message,
                )
                layers = (*base.layers, taken.record) if has_layer else base.layers
                return await add_image(self._parts, document, layers, name=name, parent=parent)

    async def extend(self, parent: ImageId | None, layer: AsyncIterator[bytes] | None, step: ImageStep) -> ImageId:
        """An image without a name: the parent's layers and perhaps one more. See contracts.ImageStore."""
        base = self._record(parent) if parent else None
        below = base.layers if base else ()
        document = self._lookup.document(base) if base else ImageDocument(config=step.config, platform=host_platform())
        document = replace(document, config=step.config, platform=step.platform or document.platform)
        with self._parts.pinned([*(base.blobs if base else ()), *(one.chain for one in below)]):
            taken = await take_stream(self._parts, layer, below) if layer is not None else None
            with self._parts.pinned([taken.record.chain, taken.record.blob] if taken else []):
                document, has_layer = extended(
                    document,
                    taken,
                    created_by=step.created_by,
                    author=step.author,
                    comment=step.comment,
                    created=step.created,
                )
                layers = (*below, taken.record) if taken and has_layer else below
                return await add_image(self._parts, document, layers, name="", parent=parent or "", keep=False)

    async def borrow(self, parent: ImageId | None, source: ImageId, step: ImageStep) -> ImageId | None:
        """The step's result, taken from an image that was made by the same steps. See contracts.ImageStore."""
        base, other = self._record(parent) if parent else None, self._record(source)
        below = self._lookup.document(base) if base else None
        found = same_step(below, self._lookup.document(other), step.created_by)
        if found is None:
            return None
        entry, count = found
        document = below or ImageDocument(config=step.config, platform=host_platform())
        document = replace(
            document,
            config=step.config,
            platform=step.platform or document.platform,
            created=step.created or entry.created,
            author=step.author or document.author,
            comment=step.comment,
            history=(*document.history, replace(entry, author=step.author, comment=step.comment)),
            diff_ids=tuple(layer.diff_id for layer in other.layers[:count]),
        )
        with self._parts.pinned([*other.blobs, *(layer.chain for layer in other.layers)]):
            return await add_image(
                self._parts, document, other.layers[:count], name="", parent=parent or "", keep=False
            )

    async def squash(self, image: ImageId, base: ImageId | None, layer: AsyncIterator[bytes]) -> ImageId:
        """The image with one layer in the place of all above ``base``. See contracts.ImageStore."""
        record, below = self._record(image), self._record(base).layers if base else ()
        document = self._lookup.document(record)
        with self._parts.pinned([*record.blobs, *(one.chain for one in record.layers)]):
            taken = await take_stream(self._parts, layer, below)
            with self._parts.pinned([taken.record.chain, taken.record.blob]):
                squashed = squashed_document(document, taken, below)
                layers = (*below, taken.record)
                return await add_image(self._parts, squashed, layers, name="", parent=base or "", keep=False)

    async def persist(self) -> None:
        """Put what ``extend`` has made on the disk."""
        await self._parts.index.save()

    async def bootstrap(self, name: str, *, progress: Progress) -> Image:
        """Make debian:12, debian:13 or busybox from the distribution's packages."""
        recipe = recipe_for(name)
        async with built(recipe, self._root / "staging", progress) as image:
            taken = await take_stream(self._parts, image.stream, ())
            with self._parts.pinned([taken.record.chain, taken.record.blob]):
                document, _ = extended(
                    ImageDocument(config=image.config, platform=host_platform()),
                    taken,
                    created_by=image.created_by,
                    author="",
                    comment="",
                    created=image.created,
                )
                made = await add_image(self._parts, document, (taken.record,), name=str(recipe.reference))
        return self._lookup.image(self._record(made))


def _lock(root: Path) -> int:
    """Hold the directory (made if need be) for this process. Conflict when another has it."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Conflict(f"the image store {root} is in use by another daemon.", remedy="Stop it first.") from error
    return fd
