"""Adapters that engine tests plug in."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from enisle.contracts import FileSystem, Progress, RegistryAuth, Removed, StoreUse
from enisle.errors import Conflict, EnisleError, NotFound
from enisle.model.ids import Digest, ImageId, NetworkId
from enisle.model.image import HistoryEntry, Image, ImageConfig, ImageVariant, Platform
from enisle.model.instance import BoundPort, Endpoint, EndpointRequest, InstanceSpec, PublishedPort
from enisle.model.network import Network

BUSYBOX = ImageId("sha256:" + "b" * 64)


class FakeImages:
    """An image store with what is put into ``images``."""

    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.put(BUSYBOX, "busybox:latest", ImageConfig(command=("sh",), env=("PATH=/bin",)))
        self.committed: list[ImageConfig] = []

    def put(self, image_id: str, tag: str, config: ImageConfig) -> None:
        self.images[image_id] = Image(id=ImageId(image_id), config=config, repo_tags=(tag,), size_bytes=1000)

    async def get(self, reference: str, platform: Platform | None = None) -> Image:
        for image in self.images.values():
            tags = {*image.repo_tags, *(tag.removesuffix(":latest") for tag in image.repo_tags)}
            if reference == image.id or reference in tags or image.id.startswith(f"sha256:{reference}"):
                return image
        raise NotFound(f"No such image: {reference}")

    async def all(self) -> list[Image]:
        return list(self.images.values())

    async def pull(
        self, reference: str, *, platform: Platform | None, auth: RegistryAuth | None, progress: Progress
    ) -> Image:
        return await self.get(reference)

    async def variants(self, image: ImageId) -> list[ImageVariant]:
        return []

    async def push(
        self, reference: str, *, platform: Platform | None = None, auth: RegistryAuth | None, progress: Progress
    ) -> None:
        await self.get(reference)

    async def tags(self, repository: str, *, auth: RegistryAuth | None) -> list[str]:
        return ["latest"]

    async def tag(self, image: ImageId, reference: str) -> None:
        found = self.images[image]
        self.images[image] = replace(found, repo_tags=(*found.repo_tags, reference))

    async def untag(self, reference: str) -> list[Removed]:
        for key, image in self.images.items():
            if reference in image.repo_tags:
                left = tuple(tag for tag in image.repo_tags if tag != reference)
                self.images[key] = replace(image, repo_tags=left)
        return [Removed(untagged=reference)]

    async def remove(self, image: ImageId, *, prune_parents: bool) -> list[Removed]:
        found = self.images.pop(image)
        return [*(Removed(untagged=tag) for tag in found.repo_tags), Removed(deleted=image)]

    async def history(self, image: ImageId) -> list[tuple[HistoryEntry, str, int, tuple[str, ...]]]:
        return []

    async def layers(self, image: ImageId) -> list[Path]:
        return [Path("/layers") / image]

    async def disk(self, image: ImageId) -> Path:
        return Path("/disks") / image

    async def load(self, source: AsyncIterator[bytes], *, progress: Progress) -> list[str]:
        return []

    async def save(self, references: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise NotFound("nothing to save")

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
        self.put("sha256:" + "c" * 64, reference, config)
        return ImageId("sha256:" + "c" * 64)

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
        assert b"".join([piece async for piece in layer]) == b"layer"
        self.committed.append(config)
        return ImageId("sha256:" + "d" * 64)

    async def bootstrap(self, name: str, *, progress: Progress) -> Image:
        return await self.get(name)

    async def prune(self, *, keep: Callable[[Image], bool]) -> tuple[list[Removed], int]:
        gone = [image for image in self.images.values() if not keep(image)]
        for image in gone:
            del self.images[image.id]
        return [Removed(deleted=image.id) for image in gone], 1000 * len(gone)

    async def discard(self, image: ImageId) -> int:
        del self.images[image]
        return 1000

    async def usage(self) -> StoreUse:
        return StoreUse()

    def layer_sizes(self) -> StoreUse:
        return StoreUse()

    async def close(self) -> None:
        """Nothing is open."""


class FakeNetworks:
    """Networks that only count: addresses are given out in order, ports are a set."""

    def __init__(self) -> None:
        self.networks = {
            name: Network(id=NetworkId(name[0] * 64), name=name, driver=driver, builtin=True)
            for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null"))
        }
        self.attached: dict[str, str] = {}
        self.published: dict[str, list[BoundPort]] = {}
        self.republished: list[str] = []
        self.names: dict[str, list[str]] = {}

    async def open(self) -> None:
        """Nothing to make."""

    async def create(self, network: Network) -> Network:
        self.networks[network.name] = network
        return network

    async def remove(self, network: Network) -> None:
        del self.networks[network.name]

    async def all(self) -> list[Network]:
        return list(self.networks.values())

    async def attach(
        self,
        network: Network,
        instance_id: str,
        names: Sequence[str],
        request: EndpointRequest,
        index: int,
        *,
        dns: Sequence[str] = (),
    ) -> Endpoint:
        address = request.ipv4_address or f"10.0.0.{len(self.attached) + 2}"
        if address in self.attached:
            raise Conflict("Address already in use")
        self.attached[address] = instance_id
        self.names[instance_id] = list(names)
        return Endpoint(
            network=network.name,
            network_id=network.id,
            endpoint_id=f"{instance_id[:8]}{index}",
            name=f"eth{index}",
            bridge="br0",
            ipv4=f"{address}/24",
            gateway4="10.0.0.1",
            request=request,
        )

    async def detach(self, network: Network, endpoint: Endpoint) -> None:
        del self.attached[endpoint.ipv4.partition("/")[0]]

    async def publish(
        self, instance_id: str, endpoint: Endpoint, ports: Sequence[PublishedPort]
    ) -> tuple[list[BoundPort], list[int]]:
        taken = {port.host_port for bound in self.published.values() for port in bound}
        bound = []
        for port in ports:
            number = port.host_port or 32768 + len(taken) + len(bound)
            if number in taken:
                raise Conflict(f"Bind for 0.0.0.0:{number} failed: port is already allocated")
            bound.append(
                BoundPort(
                    container_port=port.container_port, protocol=port.protocol, host_ip="0.0.0.0", host_port=number
                )
            )
        self.published[instance_id] = bound
        return bound, []

    async def republish(self, instance_id: str, endpoint: Endpoint, ports: Sequence[BoundPort]) -> None:
        self.republished.append(instance_id)

    async def unpublish(self, instance_id: str) -> None:
        self.published.pop(instance_id, None)

    async def resolv_conf(self, network: Network | None, spec: InstanceSpec) -> str:
        return "nameserver 10.0.0.1\n"

    async def close(self, *, keep: bool) -> None:
        """Nothing is open."""


@contextlib.contextmanager
def watch_by_polling(_directory: Path) -> Iterator[asyncio.Event]:
    """A watcher that reports a change every few milliseconds."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tick() -> None:
        nonlocal handle
        event.set()
        handle = loop.call_later(0.005, tick)

    handle = loop.call_later(0.005, tick)
    try:
        yield event
    finally:
        handle.cancel()


def digest(letter: str) -> Digest:
    return Digest(f"sha256:{letter * 64}")


class FakeVolumeFiles:
    """Volumes' files without mounts: what is mounted is a directory, and an archive is its one file's content."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.mounted: dict[str, FileSystem] = {}
        self.quotas = False
        self.failure: EnisleError | None = None

    async def open(self, keep: Collection[str]) -> None:
        self.mounted = {key: value for key, value in self.mounted.items() if key in keep}

    async def close(self, *, quit: bool) -> None:
        pass

    def place(self, key: str) -> Path:
        return self._root / key.replace("/", "-")

    async def mount(self, key: str, filesystem: FileSystem) -> str:
        if self.failure is not None:
            raise self.failure
        self.mounted[key] = filesystem
        place = Path(f"{filesystem.source}.files") if filesystem.kind == "image" else self.place(key)
        place.mkdir(parents=True, exist_ok=True)
        return str(place)

    async def unmount(self, key: str) -> None:
        self.mounted.pop(key, None)

    async def make_image(self, path: Path, size_bytes: int) -> None:
        path.touch()

    async def has_quotas(self, directory: Path) -> bool:
        return self.quotas

    async def limit(self, path: str, size_bytes: int) -> None:
        pass

    async def unlimit(self, path: str) -> None:
        pass

    async def pack(self, path: str) -> AsyncIterator[bytes]:
        async def pieces() -> AsyncIterator[bytes]:
            yield (Path(path) / "file").read_bytes()

        return pieces()

    async def unpack(self, path: str, source: AsyncIterator[bytes]) -> None:
        data = b"".join([piece async for piece in source])
        if self.failure is not None:
            raise self.failure
        (Path(path) / "file").write_bytes(data)

    async def copy(self, source: str, target: str) -> None:
        shutil.copytree(source, target, dirs_exist_ok=True)

    async def remove(self, path: str) -> None:
        shutil.rmtree(path)

    async def exchange(self, one: Path, other: Path) -> None:
        aside = one.with_name("aside")
        one.rename(aside)
        other.rename(one)
        aside.rename(other)
