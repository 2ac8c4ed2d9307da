"""The use cases of images: the store's, with checks of who uses what, and events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from enisle.contracts import ImageStep, Progress, RegistryAuth, Removed, StoreUse
from enisle.engine.core import Core
from enisle.errors import Conflict, Internal, Invalid
from enisle.formats.changes import apply_changes
from enisle.formats.reference import parse_reference
from enisle.model.event import Event
from enisle.model.ids import ImageId
from enisle.model.image import Descriptor, HistoryEntry, Image, ImageConfig, ImageVariant, Platform


class Images:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.image_store

    async def get(self, reference: str, platform: Platform | None = None) -> Image:
        """NotFound: "No such image: …". Internal for one whose config is lost, of which nothing can be made."""
        return usable(await self._store.get(reference, platform))

    async def all(self) -> list[Image]:
        return await self._store.all()

    async def pull(
        self, reference: str, *, platform: Platform | None = None, auth: RegistryAuth | None = None, progress: Progress
    ) -> Image:
        image = await self._store.pull(reference, platform=platform, auth=auth, progress=progress)
        self._tell("pull", reference, name=reference)
        return image

    async def push(
        self,
        reference: str,
        *,
        platform: Platform | None = None,
        auth: RegistryAuth | None = None,
        progress: Progress,
    ) -> None:
        await self._store.push(reference, platform=platform, auth=auth, progress=progress)
        self._tell("push", reference, name=reference)

    async def login(self, auth: RegistryAuth) -> None:
        """Unauthenticated unless the registry at ``auth.server`` takes these credentials."""
        await self._store.login(auth)

    async def distribution(self, reference: str, *, auth: RegistryAuth | None) -> tuple[Descriptor, list[Platform]]:
        """What the registry has under a name, and for which platforms."""
        return await self._store.distribution(reference, auth=auth)

    async def tags(self, repository: str, *, auth: RegistryAuth | None) -> list[str]:
        """The tags that a repository has in its registry."""
        return await self._store.tags(repository, auth=auth)

    async def tag(self, source: str, reference: str) -> None:
        async with self._core.image_lock:
            image = await self._store.get(source)
            await self._store.tag(image.id, reference)
        self._tell("tag", image.id, name=reference)

    async def remove(self, reference: str, *, force: bool = False, prune_parents: bool = True) -> list[Removed]:
        """Docker's rules: a name among several is only untagged; Conflict when an instance uses the image.

        With ``force`` an image that ended instances use loses its names; its content stays until they are removed.
        """
        async with self._core.image_lock:
            image = await self._store.get(reference)
            name = name_of(image, reference)
            if name and len(image.repo_tags) + len(image.repo_digests) > _names_that_go_with(image, name):
                removed = await self._store.untag(name)
            else:
                removed = await self._remove_whole(image, reference, name, force=force, prune_parents=prune_parents)
        for step in removed:
            self._tell("untag" if step.untagged else "delete", image.id, name=step.untagged or step.deleted)
        return removed

    async def _remove_whole(
        self, image: Image, reference: str, name: str, *, force: bool, prune_parents: bool
    ) -> list[Removed]:
        short = image.id.partition(":")[2][:12]
        if not name and len({tag.rpartition(":")[0] for tag in image.repo_tags}) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )
        users = self._core.slots.of_image(image.id)
        for slot in users:
            if slot.alive and not name:
                raise Conflict(_in_use(reference, short, slot.id, name="", running=True))
        if users and not force:
            raise Conflict(_in_use(reference, short, users[0].id, name=name, running=False))
        if self._core.image_claims[image.id] > 0:
            raise Conflict(
                f"conflict: unable to delete {short} (cannot be forced) - a container is being created of it"
            )
        if users:
            return [step for tag in image.repo_tags for step in await self._store.untag(tag)]
        return await self._store.remove(image.id, prune_parents=prune_parents)

    async def variants(self, image: ImageId) -> list[ImageVariant]:
        """What the index that the image came with lists, here or not."""
        return await self._store.variants(image)

    async def history(
        self, reference: str, platform: Platform | None = None
    ) -> list[tuple[HistoryEntry, str, int, tuple[str, ...]]]:
        return await self._store.history((await self._store.get(reference, platform)).id)

    async def load(self, source: AsyncIterator[bytes], *, progress: Progress) -> list[str]:
        loaded = await self._store.load(source, progress=progress)
        for reference in loaded:
            self._tell("load", reference, name=reference)
        return loaded

    async def save(self, references: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return await self._store.save(references)

    async def save_as(self, image: ImageId, names: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return await self._store.save_as(image, names)

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
        merged = apply_changes(config or ImageConfig(), changes)
        image = await self._store.import_tar(
            source, reference=reference, config=merged, message=message, platform=platform
        )
        self._tell("import", image, name=reference)
        return image

    async def bootstrap(self, name: str, *, progress: Progress) -> Image:
        return await self._store.bootstrap(name, progress=progress)

    async def prune(self, match: Callable[[Image], bool], *, dangling_only: bool = True) -> tuple[list[Removed], int]:
        """Remove each unused image that matches (and has no name, if ``dangling_only``); bytes freed.

        What another image was made from, step by step, stays as long as that one.
        """

        def keep(image: Image) -> bool:
            used = bool(self._core.slots.of_image(image.id)) or self._core.image_claims[image.id] > 0
            return used or (dangling_only and bool(image.repo_tags)) or not match(image)

        async with self._core.image_lock:
            images = {image.id: image for image in await self._store.all()}
            kept = {image.id for image in images.values() if keep(image)}
            for image_id in list(kept):
                while (parent := images[image_id].parent) in images and parent not in kept:
                    image_id = images[ImageId(parent)].id
                    kept.add(image_id)
            removed, freed = await self._store.prune(keep=lambda image: image.id in kept)
        self._tell("prune", "", reclaimed=str(freed))
        return removed, freed

    # --- builds ---

    async def extend(self, parent: ImageId | None, layer: AsyncIterator[bytes] | None, step: ImageStep) -> ImageId:
        """The result of one build step, without a name. See contracts.ImageStore."""
        return await self._store.extend(parent, layer, step)

    async def borrow(self, parent: ImageId | None, source: ImageId, step: ImageStep) -> ImageId | None:
        """A build step's result from an image that is trusted to be made by the same steps. See contracts."""
        return await self._store.borrow(parent, source, step)

    async def squash(self, image: ImageId, base: ImageId | None, layer: AsyncIterator[bytes]) -> ImageId:
        """One layer in the place of all above ``base``. See contracts.ImageStore."""
        return await self._store.squash(image, base, layer)

    async def persist(self) -> None:
        """Put the results of build steps on the disk."""
        await self._store.persist()

    async def layers(self, image: ImageId) -> list[Path]:
        """Unpacked layer directories, topmost first; to be read only."""
        return await self._store.layers(image)

    async def claim(self, reference: str, platform: Platform | None = None) -> Image:
        """As ``get``, and held: no removal that has begun takes it away. NotFound."""
        async with self._core.image_lock:
            image = usable(await self._store.get(reference, platform))
            self.hold(image.id)
            return image

    def hold(self, image: str) -> None:
        """Keep an image from being removed until ``release``."""
        self._core.image_claims[image] += 1

    def release(self, image: str) -> None:
        """Undo one ``hold``."""
        self._core.image_claims[image] -= 1

    def is_held(self, image: str) -> bool:
        """Whether something under way needs it."""
        return self._core.image_claims[image] > 0

    async def discard(self, image: ImageId) -> int | None:
        """Remove an image that has no name, no user and no child; the bytes freed on the disk, None if it stays."""
        async with self._core.image_lock:
            found = next((one for one in await self._store.all() if one.id == image), None)
            used = self._core.image_claims[image] > 0 or bool(self._core.slots.of_image(image))
            if found is None or used or found.repo_tags or found.repo_digests:
                return None
            if any(one.parent == image for one in await self._store.all()):
                return None
            freed = await self._store.discard(image)
        self._tell("delete", image, name=image)
        return freed

    async def usage(self) -> StoreUse:
        """What images take on the disk."""
        return await self._store.usage()

    def layer_sizes(self) -> StoreUse:
        """What images are made of, by the sizes of their files."""
        return self._store.layer_sizes()

    def used_by(self, image_id: str) -> list[str]:
        """Ids of the instances made from it."""
        return [slot.id for slot in self._core.slots.of_image(image_id)]

    def _tell(self, action: str, actor: str, **attributes: str) -> None:
        self._core.events.publish(Event(kind="image", action=action, actor=actor, attributes=attributes))


def usable(image: Image) -> Image:
    """The image, if something can be made of it. Internal, with what to do about it."""
    if image.damage:
        raise Internal(image.damage)
    return image


def name_of(image: Image, reference: str) -> str:
    """The name of the image that the reference spells out; "" when it is an id or the beginning of one. Pure."""
    try:
        wanted = parse_reference(reference).or_latest()
    except Invalid:
        return ""
    return next((name for name in (*image.repo_tags, *image.repo_digests) if parse_reference(name) == wanted), "")


def _names_that_go_with(image: Image, name: str) -> int:
    """How many names fall away with this one: digests are no names of their own once the last tag of it goes."""
    tags = [tag for tag in image.repo_tags if tag != name]
    return 1 if tags else 1 + len(image.repo_digests)


def _in_use(reference: str, short: str, instance_id: str, *, name: str, running: bool) -> str:
    if name:
        return (
            f'conflict: unable to remove repository reference "{reference}" (must force) '
            f"- container {instance_id[:12]} is using its referenced image {short}"
        )
    how, kind = ("cannot be forced", "running") if running else ("must be forced", "stopped")
    return f"conflict: unable to delete {short} ({how}) - image is being used by {kind} container {instance_id[:12]}"
