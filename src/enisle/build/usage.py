"""What builds keep on the disk, what of it could go, and keeping it within a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from enisle.build.cache import BuildCache, CacheRecord
from enisle.build.caches import CacheMounts
from enisle.contracts import StoreUse
from enisle.engine.images import Images
from enisle.model.ids import ImageId
from enisle.model.image import Image

_ID_DIGITS = 25  # as many characters as BuildKit's ids have


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheEntry:
    """One thing that builds keep. ``kind``: "regular" (the result of a step) or "exec.cachemount".

    ``size_bytes``: on the disk, without what it was made from. ``shared``: an image that is no step needs it anyway.
    """

    id: str
    parent: str = ""
    kind: str
    text: str
    in_use: bool
    shared: bool
    size_bytes: int
    created_ns: int
    used_ns: int
    count: int
    key: str
    image: ImageId | None = None


class CacheUsage:
    """Looks at, and prunes, the results of steps and the caches of RUNs."""

    def __init__(self, images: Images, cache: BuildCache, mounts: CacheMounts) -> None:
        self._images = images
        self._cache = cache
        self._mounts = mounts

    async def entries(self) -> list[CacheEntry]:
        """Everything, the longest unused first. Reads the whole of the RUNs' caches."""
        images = {image.id: image for image in await self._images.all()}
        self._cache.keep_results(images)
        records = self._cache.records()
        ids = {record.image: _id(record.key) for record in records}
        kept = self._kept(images, set(ids))
        use = await self._images.usage()
        found = [
            self._of_step(record, images[record.image], ids, use, shared=record.image in kept)
            for record in records
            if record.image in images
        ]
        return sorted([*found, *await asyncio.to_thread(self._of_mounts)], key=lambda entry: entry.used_ns)

    def _kept(self, images: dict[ImageId, Image], steps: set[ImageId]) -> set[str]:
        """The images that are no mere steps, and all they were made from."""
        kept: set[str] = set()
        for image in images.values():
            own = image.id not in steps or self._cache.is_result(image.id)
            if own or image.repo_tags or image.repo_digests or self._images.used_by(image.id):
                one: Image | None = image
                while one is not None and one.id not in kept:
                    kept.add(one.id)
                    one = images.get(ImageId(one.parent))
        return kept

    def _of_step(
        self, record: CacheRecord, image: Image, ids: dict[ImageId, str], use: StoreUse, *, shared: bool
    ) -> CacheEntry:
        return CacheEntry(
            id=_id(record.key),
            parent=ids.get(ImageId(image.parent), ""),
            kind="regular",
            text=record.text,
            in_use=self._images.is_held(image.id),
            shared=shared,
            size_bytes=use.bytes_beyond(image.id, image.parent),
            created_ns=record.created_ns,
            used_ns=record.used_ns,
            count=record.count,
            key=record.key,
            image=image.id,
        )

    def _of_mounts(self) -> Iterable[CacheEntry]:
        for mount in self._mounts.all():
            yield CacheEntry(
                id=mount.name[:_ID_DIGITS],
                kind="exec.cachemount",
                text=f"cached mount {mount.identity}",
                in_use=mount.in_use,
                shared=False,
                size_bytes=mount.size_bytes,
                created_ns=mount.created_ns,
                used_ns=mount.used_ns,
                count=mount.count,
                key=mount.name,
            )

    async def prune(
        self, match: Callable[[CacheEntry], bool], *, everything: bool = False, keep_bytes: int = 0
    ) -> tuple[list[str], int]:
        """Remove what matches and no build uses, the longest unused first, until at most ``keep_bytes`` are left.

        What an image shares is only forgotten, and only if ``everything`` is wanted. Ids removed, bytes freed.
        """
        entries = await self.entries()
        left = sum(entry.size_bytes for entry in entries if not entry.shared)
        doomed = [e for e in entries if not e.in_use and match(e) and (everything or not e.shared)]
        gone: list[CacheEntry] = []
        freed = 0
        progress = True
        while progress and doomed:  # a parent can go once its children have gone
            progress = False
            for entry in list(doomed):
                if keep_bytes and left - freed <= keep_bytes:
                    doomed.clear()
                    break
                size = 0 if entry.shared else await self._remove(entry)
                if size is not None:
                    doomed.remove(entry)
                    gone.append(entry)
                    freed += size
                    progress = True
        self._cache.drop(entry.key for entry in gone)
        return [entry.id for entry in gone], freed

    async def _remove(self, entry: CacheEntry) -> int | None:
        """Bytes freed; None when it has to stay."""
        if entry.image is None:
            return entry.size_bytes if await asyncio.to_thread(self._mounts.remove, entry.key) else None
        return await self._images.discard(entry.image)


def _id(key: str) -> str:
    return key[:_ID_DIGITS]
