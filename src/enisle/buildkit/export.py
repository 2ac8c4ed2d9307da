"""What becomes of a build's result: an image with names, or files that are sent to the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

from enisle.archive.entry import FileKind
from enisle.build import squash
from enisle.build.builder import image_name
from enisle.build.layer_plan import threaded
from enisle.build.layer_tree import LayerTree
from enisle.build.tree import EmptyTree, Node, Path, Tree
from enisle.buildkit.control_messages import Exporter
from enisle.buildkit.grpc import CallFailed, Calling
from enisle.buildkit.received import go_mode
from enisle.buildkit.session_messages import Bytes, Packet, PacketKind, Stat
from enisle.buildkit.sessions import Session
from enisle.buildkit.status import Progress
from enisle.engine.images import Images
from enisle.errors import EnisleError, Invalid, NotSupported
from enisle.formats.reference import parse_reference
from enisle.model.ids import ImageId

IMAGE_EXPORTERS = frozenset({"moby", "image"})
_ARCHIVES = frozenset({"docker", "oci"})  # one archive is both: an OCI layout, with Docker's manifest beside
_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
_PIECE_BYTES = 1 << 20
_DATA_BYTES = 32 << 10  # as fsutil sends it
_TRUE = frozenset({"1", "t", "true"})


def check(exporters: list[Exporter]) -> None:
    """Raises NotSupported for what we do not export."""
    for exporter in exporters:
        kind, attributes = exporter.kind, exporter.attributes
        if kind not in IMAGE_EXPORTERS and kind not in _ARCHIVES and kind not in ("local", "tar"):
            offered = "image, docker, oci, local and tar"
            raise NotSupported(f"the exporter {kind[:60]} is not offered: there are {offered}.")
        if kind in _ARCHIVES and attributes.get("tar", "true").lower() not in _TRUE:
            raise NotSupported(f"{kind} with tar=false is not offered: unpack the archive.")
        if kind == "image" and attributes.get("push", "").lower() in _TRUE:
            raise NotSupported("a build does not push its image: push it once it is built.")
        for name in attributes:
            if name.startswith("annotation"):
                raise NotSupported("annotations of manifests are not kept: use labels.")
    names(exporters)


def names(exporters: list[Exporter]) -> list[str]:
    """The names that an image shall have. Raises Invalid for malformed ones."""
    found = []
    for exporter in exporters:
        if exporter.kind in IMAGE_EXPORTERS or exporter.kind in _ARCHIVES:
            found += [image_name(name) for name in exporter.attributes.get("name", "").split(",") if name]
    return found


class Export:
    """Exports one image. ``session``: the client's, for files."""

    def __init__(self, images: Images, session: Session | None, progress: Progress) -> None:
        self._images = images
        self._session = session
        self._progress = progress

    async def run(self, image: ImageId, exporters: list[Exporter]) -> dict[str, str]:
        """What the client is told."""
        response: dict[str, str] = {}
        for number, exporter in enumerate(exporters):
            if exporter.kind in IMAGE_EXPORTERS:
                response |= await self._named(image, exporter)
            elif exporter.kind in _ARCHIVES:
                await self._archive(image, number, exporter)
            else:
                await self._files(image, number, exporter.kind)
        return response

    async def _named(self, image: ImageId, exporter: Exporter) -> dict[str, str]:
        step = self._progress.vertex("exporting to image")
        step.amount("exporting layers", 0, ended=True)
        step.amount(f"writing image {image}", 0, ended=True)
        found = names([exporter])
        try:
            for name in found:
                await self._images.tag(image, name)
                step.amount(f"naming to {parse_reference(name)}", 0, ended=True)
        except EnisleError as error:
            step.failed(str(error))
            raise
        step.done()
        digests = {"containerimage.digest": image, "containerimage.config.digest": image}
        return digests | ({"image.name": ",".join(found)} if found else {})

    async def _files(self, image: ImageId, number: int, kind: str) -> None:
        what = "exporting to client directory" if kind == "local" else "exporting to client tarball"
        step = self._progress.vertex(what)
        layers = await self._images.layers(image)
        tree = await asyncio.to_thread(LayerTree, layers)
        try:
            async with self._sending(number, {}) as calling:
                if kind == "local":
                    await _Sender(calling, tree).run()
                else:
                    pieces = threaded(squash.merged(tree, EmptyTree(), len(layers)))
                    await _stream(calling, pieces)
        except EnisleError as error:
            step.failed(str(error))
            raise
        finally:
            tree.close()
        step.done()

    async def _archive(self, image: ImageId, number: int, exporter: Exporter) -> None:
        step = self._progress.vertex(f"exporting to {exporter.kind} image format")
        archive = await self._images.save_as(image, names([exporter]))
        try:
            async with archive as pieces, self._sending(number, exporter.attributes) as calling:
                await _stream(calling, pieces)
        except EnisleError as error:
            step.failed(str(error))
            raise
        step.done()

    @asynccontextmanager
    async def _sending(self, number: int, attributes: Mapping[str, str]) -> AsyncIterator[Calling]:
        if self._session is None:
            raise Invalid("files can be sent to clients with a session only")
        metadata = [("buildkit-attachable-exporter-id", str(number))]
        metadata += [(f"exporter-md-{name}", value) for name, value in attributes.items() if value.isprintable()]
        try:
            async with self._session.calling(_SEND, metadata) as calling:
                yield calling
        except CallFailed as failure:
            raise Invalid(f"the client does not take the result: {failure.message}") from failure


async def _stream(calling: Calling, pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        for start in range(0, len(piece), _PIECE_BYTES):
            await calling.send(Bytes(data=piece[start : start + _PIECE_BYTES]))
    await calling.end()
    async for _ in calling.messages(Bytes):
        pass


class _Sender:
    """The sending side of fsutil's protocol (github.com/tonistiigi/fsutil, send.go)."""

    def __init__(self, calling: Calling, tree: Tree) -> None:
        self._calling = calling
        self._tree = tree
        self._files: list[tuple[Path, Node] | None] = []
        self._first: dict[object, bytes] = {}

    async def run(self) -> None:
        """Send all files."""
        telling = asyncio.create_task(self._tell())
        try:
            await self._serve()
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        await self._calling.send(Packet(kind=PacketKind.FINISHED))
        await self._calling.end()
        async for _ in self._calling.messages(Packet):
            pass

    async def _tell(self) -> None:
        walk = self._tree.walk(())
        while batch := await asyncio.to_thread(self._next, walk):
            await self._calling.send(*batch)
        await self._calling.send(Packet(kind=PacketKind.STAT))

    def _next(self, walk: Iterator[tuple[Path, Node]]) -> list[Packet]:
        found = []
        for path, node in walk:
            self._files.append((path, node) if node.kind is FileKind.REGULAR else None)
            found.append(Packet(kind=PacketKind.STAT, stat=self._stat(path, node)))
            if len(found) >= 256:
                break
        return found

    def _stat(self, path: Path, node: Node) -> Stat:
        name = b"/".join(path)
        link = node.target
        if node.kind is FileKind.REGULAR:
            first = self._first.setdefault(node.key, name)
            link = first if first != name else b""
        return Stat(
            path=_text(name),
            mode=go_mode(node),
            uid=node.uid,
            gid=node.gid,
            size=node.size if node.kind is FileKind.REGULAR else 0,
            modified=node.mtime_ns,
            link=_text(link),
            major=node.device[0],
            minor=node.device[1],
            xattrs={_text(key): value for key, value in self._tree.xattrs(path, node).items()},
        )

    async def _serve(self) -> None:
        while (packet := await self._calling.receive(Packet)) is not None:
            if packet.kind == PacketKind.REQUEST:
                await self._send(packet.id)
            elif packet.kind == PacketKind.FINISHED:
                return
            elif packet.kind == PacketKind.ERROR:
                raise Invalid(packet.data.decode("utf-8", "replace")[:1000])
        raise Invalid("the client has broken off taking files")

    async def _send(self, number: int) -> None:
        place = self._files[number] if 0 <= number < len(self._files) else None
        if place is None:
            raise Invalid(f"the client asks for file {number}, which has no content")
        async for piece in threaded(self._tree.content(*place)):
            for start in range(0, len(piece), _DATA_BYTES):
                await self._calling.send(
                    Packet(kind=PacketKind.DATA, id=number, data=piece[start : start + _DATA_BYTES])
                )
        await self._calling.send(Packet(kind=PacketKind.DATA, id=number))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
