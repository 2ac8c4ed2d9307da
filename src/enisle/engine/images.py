"""The use cases of images: the store's, with checks of who uses what, and events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from enisle.contracts import LayerUse, Progress, RegistryAuth, Removed
from enisle.model.ids import ImageId
from enisle.model.image import HistoryEntry, Image, ImageConfig, Platform


class Images:
    async def get(self, reference: str, platform: Platform | None = None) -> Image:
        """NotFound: "No such image: …"."""
        raise NotImplementedError

    async def all(self) -> list[Image]:
        raise NotImplementedError

    async def pull(
        self, reference: str, *, platform: Platform | None = None, auth: RegistryAuth | None = None, progress: Progress
    ) -> Image:
        raise NotImplementedError

    async def push(self, reference: str, *, auth: RegistryAuth | None = None, progress: Progress) -> None:
        raise NotImplementedError

    async def tag(self, source: str, reference: str) -> None:
        raise NotImplementedError

    async def remove(self, reference: str, *, force: bool = False, prune_parents: bool = True) -> list[Removed]:
        """Docker's rules: a name among several is only untagged; Conflict when an instance uses the image."""
        raise NotImplementedError

    async def history(self, reference: str) -> list[tuple[HistoryEntry, str, int, tuple[str, ...]]]:
        raise NotImplementedError

    async def load(self, source: AsyncIterator[bytes], *, progress: Progress) -> list[str]:
        raise NotImplementedError

    async def save(self, references: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise NotImplementedError

    async def import_tar(
        self,
        source: AsyncIterator[bytes],
        *,
        reference: str,
        changes: Sequence[str] = (),
        message: str = "",
        platform: Platform | None = None,
        config: ImageConfig | None = None,
    ) -> ImageId:
        raise NotImplementedError

    async def bootstrap(self, name: str, *, progress: Progress) -> Image:
        raise NotImplementedError

    async def prune(self, match: Callable[[Image], bool], *, dangling_only: bool = True) -> tuple[list[Removed], int]:
        """Remove each unused image that matches (and has no name, if ``dangling_only``); bytes freed."""
        raise NotImplementedError

    async def usage(self) -> LayerUse:
        raise NotImplementedError

    def used_by(self, image_id: str) -> list[str]:
        """Ids of the instances made from it."""
        raise NotImplementedError
