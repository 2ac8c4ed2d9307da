"""The sockets that adapters plug into. The engine knows these; only ``daemon/`` names what is plugged in.

Everything asynchronous runs on one event loop; implementations move blocking work to threads or processes themselves.
Failures are :mod:`enisle.errors` only: foreign errors stop at the adapter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from enisle.model.ids import Digest, ImageId
from enisle.model.image import Descriptor, HistoryEntry, Image, ImageConfig, ImageVariant, Platform
from enisle.model.instance import BoundPort, Endpoint, EndpointRequest, Instance, InstanceSpec, PublishedPort
from enisle.model.network import Network
from enisle.model.process import ExecSpec

# --- state ---------------------------------------------------------------------------------------------------------


class StateStore(Protocol):
    """Keys (``instances/<id>``) and JSON values, with transactions; shaped like etcd's.

    Every key has a revision that each write raises; revision 0 means that the key is not there.
    """

    async def get(self, key: str) -> tuple[bytes, int] | None: ...

    async def scan(self, prefix: str) -> list[tuple[str, bytes, int]]:
        """All keys that begin with ``prefix``, sorted."""

    async def commit(
        self, puts: dict[str, bytes], deletes: Sequence[str] = (), expect: dict[str, int] | None = None
    ) -> bool:
        """All of it or nothing; False when a key of ``expect`` no longer has that revision."""

    async def close(self) -> None: ...


# --- images --------------------------------------------------------------------------------------------------------

Progress = Callable[[dict[str, Any]], None]
"""Takes Docker-shaped progress: status, id, progressDetail with current and total; or stream; or aux."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryAuth:
    """Credentials for one registry, as Docker's X-Registry-Auth has them."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Removed:
    """One step of an image removal; exactly one field is set."""

    untagged: str = ""
    deleted: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreUse:
    """What the image store keeps: the bytes of each piece (a layer, a blob, a disk), and which pieces an image needs.

    Pieces of no image are what a broken pull has left.
    """

    pieces: dict[str, int] = field(default_factory=dict)
    images: dict[ImageId, frozenset[str]] = field(default_factory=dict)

    def bytes_of(self, image: ImageId) -> int:
        """All that the image needs."""
        return self._sum(self.images.get(image, ()))

    def bytes_beyond(self, image: ImageId, parent: str) -> int:
        """What the image needs and its parent ("": none) does not."""
        return self._sum(self.images.get(image, frozenset()) - self.images.get(ImageId(parent), frozenset()))

    def bytes_without(self, images: Collection[ImageId]) -> int:
        """All there is, but for what only these images need."""
        others = [pieces for image, pieces in self.images.items() if image not in images]
        gone = frozenset().union(*(self.images.get(image, frozenset()) for image in images)).difference(*others)
        return sum(self.pieces.values()) - self._sum(gone)

    def shared_bytes(self, among: Collection[ImageId]) -> dict[ImageId, int]:
        """What each of these images needs, and another of them, too."""
        users = Counter(piece for image in among for piece in self.images.get(image, ()))
        return {image: self._sum(p for p in self.images.get(image, ()) if users[p] > 1) for image in among}

    def _sum(self, pieces: Iterable[str]) -> int:
        return sum(self.pieces.get(piece, 0) for piece in pieces)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageStep:
    """One step of a build: the config after it, and what the history says of it.

    ``created``: RFC 3339, "" for now. ``platform``: of an image made from nothing; None: this host's.
    """

    config: ImageConfig
    created_by: str
    created: str = ""
    author: str = ""
    comment: str = ""
    platform: Platform | None = None


class ImageStore(Protocol):
    """Images by digest, their names and unpacked layers."""

    async def get(self, reference: str, platform: Platform | None = None) -> Image:
        """By name, name@digest, id or id prefix. NotFound: "No such image: …" in Docker's wording."""

    async def all(self) -> list[Image]: ...
    async def pull(
        self, reference: str, *, platform: Platform | None, auth: RegistryAuth | None, progress: Progress
    ) -> Image: ...
    async def push(
        self, reference: str, *, platform: Platform | None = None, auth: RegistryAuth | None, progress: Progress
    ) -> None:
        """Push under one name, or all tags of a repository: the index if all it lists is here, else one platform."""

    async def variants(self, image: ImageId) -> list[ImageVariant]:
        """What the index it came with lists; its own manifest for an image without."""

    async def login(self, auth: RegistryAuth) -> None:
        """Unauthenticated unless the registry at ``auth.server`` takes these credentials."""

    async def distribution(self, reference: str, *, auth: RegistryAuth | None) -> tuple[Descriptor, list[Platform]]:
        """What the registry has under a name, and for which platforms; nothing is pulled."""

    async def tags(self, repository: str, *, auth: RegistryAuth | None) -> list[str]:
        """The tags that a repository has in its registry."""

    async def tag(self, image: ImageId, reference: str) -> None: ...
    async def untag(self, reference: str) -> list[Removed]:
        """Drop one name; the image stays."""

    async def remove(self, image: ImageId, *, prune_parents: bool) -> list[Removed]:
        """Drop all names and the content that no other image needs. The engine has checked that nobody uses it."""

    async def discard(self, image: ImageId) -> int:
        """As ``remove``, without parents; the bytes freed on the disk."""

    async def history(self, image: ImageId) -> list[tuple[HistoryEntry, str, int, tuple[str, ...]]]:
        """Newest first: entry, image id or "<missing>", size in bytes, tags."""

    async def layers(self, image: ImageId) -> list[Path]:
        """Unpacked layer directories for overlayfs, topmost first."""

    async def disk(self, image: ImageId) -> Path:
        """The image as one read-only EROFS file, made on first use."""

    async def load(self, source: AsyncIterator[bytes], *, progress: Progress) -> list[str]:
        """Take in a docker-archive or oci-archive stream; the references or ids that came with it."""

    async def save(self, references: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...
    async def save_as(self, image: ImageId, names: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """An archive of one image under names that it does not have here."""

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
        """An image of one layer from a root file system tar (compressed or not)."""

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
        """An image of the parent's layers and one more, given as an uncompressed OCI layer tar."""

    async def extend(self, parent: ImageId | None, layer: AsyncIterator[bytes] | None, step: ImageStep) -> ImageId:
        """An image without a name: the parent's layers (None: nothing) and one more, an uncompressed OCI layer tar.

        It is there at once, but survives a crash only after ``persist`` or after something else was changed.
        """

    async def borrow(self, parent: ImageId | None, source: ImageId, step: ImageStep) -> ImageId | None:
        """As ``extend``, with the layer that ``source`` has for this step; None when it was not made by the same steps.

        "The same" is what histories say, so the caller has to trust the source.
        """

    async def squash(self, image: ImageId, base: ImageId | None, layer: AsyncIterator[bytes]) -> ImageId:
        """The image with one layer, given as a tar, in the place of all that it has above ``base``; without a name."""

    async def persist(self) -> None:
        """Put what ``extend`` has made on the disk."""

    async def bootstrap(self, name: str, *, progress: Progress) -> Image:
        """Make debian:12, debian:13 or busybox from the distribution's packages."""

    async def prune(self, *, keep: Callable[[Image], bool]) -> tuple[list[Removed], int]:
        """Remove each image that ``keep`` refuses, and unreferenced content; what was removed, bytes freed."""

    async def usage(self) -> StoreUse:
        """What the store takes on the disk; layers are measured once each."""

    def layer_sizes(self) -> StoreUse:
        """The layers only, by the sizes of their files, as ``Image.size_bytes`` counts them."""

    async def close(self) -> None: ...


# --- walls ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class HostMount:
    """A mount with everything looked up: ``source`` exists on the host. Fields as of wire.plans.MountPlan."""

    kind: str
    target: str
    source: str = ""
    options: tuple[str, ...] = ()
    copy_up: bool = False
    subpath: str = ""
    name: str = ""
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """A client's connection that becomes a keeper's: the keeper gets a duplicate of ``fd``.

    ``initial``: bytes that were already read from it. ``framed``: Docker's stdout/stderr headers in the output.
    ``detach_keys``: the bytes a terminal sends, as latin-1 text; "" is the default.
    """

    fd: int
    stdin: bool
    stdout: bool
    stderr: bool
    framed: bool
    detach_keys: str = ""
    initial: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """All that a driver needs to make a plan for one start of one instance."""

    instance: Instance
    layers: tuple[Path, ...] = ()  # container: overlay lower directories, topmost first
    disk: Path | None = None  # VM: the image's EROFS file
    directory: Path  # data_root/instances/<id>: upper, work, disk.raw, hosts, resolv.conf, hostname, logs, exit.json
    mounts: tuple[HostMount, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    joins: dict[str, int] = field(default_factory=dict)  # namespace (net, pid, ipc) -> pid of the instance joined
    port_sockets: tuple[int, ...] = ()  # bound, not listening; the keeper holds them until the instance ends
    log_path: Path | None = None  # None: no log is kept
    connections: tuple[Connection, ...] = ()  # clients that attached before the start: attached before the first byte


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitReport:
    """How an instance ended. Times in ns since the epoch."""

    exit_code: int
    oom_killed: bool = False
    error: str = ""
    started_at: int = 0
    finished_at: int = 0


class Running(Protocol):
    """A running instance, whichever the wall: its keeper. Raises Unavailable when the keeper has ended."""

    pid: int
    started_at: int

    async def wait(self) -> ExitReport: ...
    async def status(self) -> dict[str, Any]: ...
    async def attach(self, connection: Connection, *, logs: bool = False) -> None:
        """``logs`` replays what was logged so far first."""

    async def exec(self, exec_id: str, spec: ExecSpec, instance: Instance, connection: Connection | None) -> int:
        """Start a session; its pid. StartFailed with 126 or 127 when the command cannot be run."""

    async def wait_exec(self, exec_id: str) -> int: ...
    async def resize(self, rows: int, columns: int, exec_id: str = "") -> None: ...
    async def signal(self, number: int, exec_id: str = "") -> None: ...
    async def pause(self) -> None: ...
    async def unpause(self) -> None: ...
    async def stats(self) -> dict[str, Any]: ...
    async def top(self, ps_args: str) -> tuple[list[str], list[list[str]]]: ...
    async def update(self, spec: InstanceSpec) -> None: ...
    async def add_nic(self, endpoint: Endpoint) -> None: ...
    async def remove_nic(self, name: str) -> None: ...
    async def relay(self, bound: Sequence[BoundPort], endpoint: Endpoint) -> None:
        """From now on pass connections to published ports, as far as the kernel does not, on to that endpoint."""

    def abandon(self) -> None:
        """Let go of it without ending it: enisled ends."""


class Files(Protocol):
    """The file system of an instance, running or not, seen from inside (mounts included)."""

    async def stat(self, path: str) -> dict[str, Any]:
        """{"name", "size", "mode" (Go's os.FileMode bits), "mtime", "linkTarget"}; NotFound."""

    async def get(self, path: str) -> AsyncIterator[bytes]:
        """A tar of the file or tree at path; the entries' names begin with its last component."""

    async def put(
        self, path: str, source: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        """Unpack a tar (gzip, bzip2, xz, zstd or not) into the directory at path."""

    async def export(self) -> AsyncIterator[bytes]:
        """A tar of the whole root without mounts."""

    async def changes(self) -> list[tuple[str, int]]:
        """Paths that differ from the image; 0 modified, 1 added, 2 deleted."""

    async def layer(self) -> AsyncIterator[bytes]:
        """The writable layer as an OCI layer tar (whiteouts as .wh. files)."""


class Driver(Protocol):
    """One wall."""

    def check(self, spec: InstanceSpec) -> list[str]:
        """Warnings about what the host cannot do; raises Invalid or NotSupported for what this wall cannot honour."""

    async def prepare(self, launch: Launch) -> None:
        """Make what is per instance on disk (upper and work directories; the writable disk). Called by create."""

    async def start(self, launch: Launch, on_event: Callable[[str, dict[str, Any]], Awaitable[None]]) -> Running:
        """Start it; events as of wire.keeper (``oom``, ``exec_exit``, ``exit`` excepted, which ``wait`` gives)."""

    async def reconnect(
        self, instance: Instance, on_event: Callable[[str, dict[str, Any]], Awaitable[None]]
    ) -> Running | None:
        """The running instance left by an earlier enisled; None when its keeper is gone."""

    def files(self, launch: Launch, running: Running | None) -> AbstractAsyncContextManager[Files]: ...

    async def disk_usage(self, directory: Path) -> int:
        """Bytes the writable layer takes."""

    async def destroy(self, directory: Path) -> None:
        """Remove what prepare and start left for an instance that does not run."""


# --- volumes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSystem:
    """What is to be mounted: ``kind`` as the kernel names it, or "image": an ext4 of ``size_bytes`` in a file."""

    kind: str
    source: str
    options: tuple[str, ...] = ()
    size_bytes: int = 0


class VolumeFiles(Protocol):
    """File systems and files of volumes. Mounts are seen by instances only, never by the host.

    Paths are on the host, or what ``mount`` gives, below which nothing else can be reached.
    """

    async def open(self, keep: Collection[str]) -> None:
        """Find what an earlier enisled has left, and unmount all but these keys."""

    async def mount(self, key: str, filesystem: FileSystem) -> str:
        """A path for a mount's source. Mounted already: the same; an image that is too small grows."""

    async def unmount(self, key: str) -> None:
        """Instances keep what they have of it. Not mounted: nothing happens."""

    async def make_image(self, path: Path, size_bytes: int) -> None: ...
    async def has_quotas(self, directory: Path) -> bool:
        """Whether ``limit`` works there."""

    async def limit(self, path: str, size_bytes: int) -> None:
        """Limit what the tree takes; an empty directory first, later another size."""

    async def unlimit(self, path: str) -> None: ...
    async def pack(self, path: str) -> AsyncIterator[bytes]:
        """A tar of all in the directory; equal trees give equal bytes. Each file as it is while it is read."""

    async def unpack(self, path: str, source: AsyncIterator[bytes]) -> None:
        """Unpack a tar (compressed or not) into the directory; on the disk when it returns."""

    async def copy(self, source: str, target: str) -> None:
        """All in one directory into an empty one; on the disk when it returns."""

    async def remove(self, path: str) -> None:
        """Remove a tree of any depth."""

    async def exchange(self, one: Path, other: Path) -> None:
        """Let two files or directories change places, in one step and on the disk when it returns."""

    async def close(self, *, quit: bool) -> None:
        """``quit``: nothing is mounted, so the keeper can go."""


# --- networks ------------------------------------------------------------------------------------------------------


class NetworkProvider(Protocol):
    """Bridges, addresses, published ports and names. What it was told survives enisled (state store, kernel)."""

    async def open(self) -> None:
        """Make the default bridge, our nftables table and the resolver what they should be; idempotent."""

    async def create(self, network: Network) -> Network:
        """Choose what is open (subnet, gateway, bridge) and make it. Conflict on overlapping subnets."""

    async def remove(self, network: Network) -> None: ...
    async def all(self) -> list[Network]: ...
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
        """Give out addresses and names; no link is made in the kernel (the keeper makes NICs from its plan).

        ``index``: the NIC is called eth<index> unless the network or the request say otherwise. ``dns``: nameservers
        to ask for it instead of the host's. Exhausted when the subnet is full, Conflict when the address is taken.
        """

    async def detach(self, network: Network, endpoint: Endpoint) -> None: ...
    async def publish(
        self, instance_id: str, endpoint: Endpoint, ports: Sequence[PublishedPort]
    ) -> tuple[list[BoundPort], list[int]]:
        """Bind and forward; the bound ports, and reservation sockets that the caller hands to the keeper and closes.

        Conflict: "driver failed programming external connectivity ... port is already allocated" in Docker's wording.
        """

    async def republish(self, instance_id: str, endpoint: Endpoint, ports: Sequence[BoundPort]) -> None:
        """After a restart of enisled: make the forwarding rules of a running instance what they should be."""

    async def unpublish(self, instance_id: str) -> None: ...
    async def resolv_conf(self, network: Network | None, spec: InstanceSpec) -> str:
        """The /etc/resolv.conf for an instance on that network; None: network none or host."""

    async def close(self, *, keep: bool) -> None:
        """``keep``: workloads go on running, so leave the kernel's state and the resolver; else remove all of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostCapability:
    """One line of ``enisle doctor``. ``wall``: what cannot work without it: "container", "vm", "both"; "": none.

    ``tried`` is False, and ``ok`` too, for what only root can find out.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    wall: str = ""
    tried: bool = True


def layer_digest(chain: Digest) -> str:
    """The directory name of a layer: the hexadecimal part of its chain id."""
    return chain.partition(":")[2]
