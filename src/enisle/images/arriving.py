"""An image archive on its way in: layers go to workers as they come, all else into files; both are found by name.

What an archive holds is told by its last members only. So whatever begins as a layer is taken for one.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from enisle.archive.entry import BLOCK, ArchiveError, Entry, FileKind, components
from enisle.archive.reader import ByteSource, TarReader, parse_header
from enisle.cleanup import to_the_end
from enisle.contracts import Progress
from enisle.errors import EnisleError, Invalid
from enisle.formats.json_document import SIZE_LIMIT_BYTES
from enisle.images.bridge import Inlet
from enisle.images.compression import BROKEN, decompressed, detect, peek
from enisle.images.content import storage_errors
from enisle.images.index import LayerRecord
from enisle.images.ingest import Parts, Taken, Wanted, layer_progress, short
from enisle.images.intake import Intake
from enisle.images.workers import is_damage
from enisle.model.ids import is_digest

Result = TypeVar("Result")

_MEMBERS_LIMIT = 20_000
_LINKS_LIMIT = 8
_SMALL_BYTES = 64 << 10  # no worker's while
_BLOBS = "blobs/sha256/"


class ArrivingLayer:
    """A member that is a layer: being taken in, or known from before. ``record``: what it is, once it has a place."""

    def __init__(self, intake: Intake | None, record: LayerRecord | None) -> None:
        self.lock = asyncio.Lock()
        self.intake = intake
        self.record = record

    async def settle(self, parts: Parts, wanted: Wanted, below_ready: Callable[[], Awaitable[None]]) -> Taken | None:
        """Make it the layer that is wanted; None when it has become one already, or was known."""
        async with self.lock:
            if self.record is not None or self.intake is None:
                return None
            taken = await self.intake.settle(wanted, below_ready)
            self.record = taken.record
            return taken


class Arriving:
    """The members of one archive. Make it with :func:`arriving`."""

    def __init__(self, parts: Parts, progress: Progress) -> None:
        self._parts = parts
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._files: dict[str, Path] = {}
        self._layers: dict[str, ArrivingLayer] = {}
        self._links: dict[str, str] = {}
        self._pins = ExitStack()
        self._intakes: list[Intake] = []
        self._asked: Future[Any] | None = None  # what the thread waits for
        self._ended = False

    # --- the thread that reads the archive ---

    def fill(self, source: ByteSource) -> None:
        """Read the whole archive, compressed or not. For a thread. Invalid for what is no archive."""
        try:
            kind, whole = peek(source)
            reader = TarReader(decompressed(kind, whole))
            for entry in reader:
                self._take(entry, reader)
            reader.drain()
        except ArchiveError as error:
            raise Invalid(f"the image archive cannot be read: {error}") from error
        except OSError as error:
            if error.errno is not None:  # the sender's, not the archive's
                raise
            raise Invalid(f"the image archive is damaged: {error}") from error
        except BROKEN as error:
            raise Invalid(f"the image archive is damaged: {error}") from error

    def _take(self, entry: Entry, reader: TarReader) -> None:
        name = "/".join(part.decode("utf-8", "surrogateescape") for part in components(entry.name))
        if len(self._files) + len(self._layers) + len(self._links) >= _MEMBERS_LIMIT:
            raise Invalid(f"the image archive holds more than {_MEMBERS_LIMIT} files")
        target = entry.target.decode("utf-8", "surrogateescape")
        if entry.kind is FileKind.SYMBOLIC_LINK:
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        elif entry.kind is FileKind.HARD_LINK:
            self._links[name] = posixpath.normpath(target)
        elif entry.kind is FileKind.REGULAR and entry.sparse is None:
            pieces = (piece for _, piece in reader.data())
            head = b""
            while len(head) < BLOCK and (piece := next(pieces, None)) is not None:
                head += piece
            if entry.size > _SMALL_BYTES and _begins_a_layer(head[:BLOCK]):
                self._to_worker(name, entry.size, head, pieces)
            else:
                self._to_file(name, head, pieces)

    def _to_file(self, name: str, head: bytes, pieces: Iterator[memoryview]) -> None:
        self._layers.pop(name, None)
        path = self._files.setdefault(name, self._parts.content.temporary())
        with path.open("wb") as file:
            file.write(head)
            for piece in pieces:
                with storage_errors():
                    file.write(piece)

    def _to_worker(self, name: str, size: int, head: bytes, pieces: Iterator[memoryview]) -> None:
        """A layer that is damaged is no failure yet: perhaps no image of the archive wants it."""
        layer = self._layers[name] = self._on_loop(self._open(name, size))
        if layer.intake is None:
            return
        try:
            layer.intake.feed.write(head)
            for piece in pieces:
                layer.intake.feed.write(piece)
            layer.intake.feed.finish()
        except BrokenPipeError:
            try:
                self._on_loop(layer.intake.result())
            except EnisleError as error:
                if not is_damage(error):
                    raise

    def _on_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        """For the thread: have the loop do something, unless all has been called off."""
        future: Future[Result] = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._asked = future
        if self._ended:
            future.cancel()
        try:
            return future.result()
        except CancelledError:
            raise Invalid("the image archive did not arrive") from None

    async def _open(self, name: str, size: int) -> ArrivingLayer:
        """Begin with a layer, unless we have it. On the loop, so that no removal comes between."""
        stem = posixpath.basename(name).removesuffix(".tar")
        digest = f"sha256:{stem}"
        is_blob = name == _BLOBS + stem and is_digest(digest)
        known = _known(self._parts, digest, is_blob=is_blob)
        if known is not None:
            self._pins.enter_context(self._parts.pinned([known.blob, known.chain]))
            return ArrivingLayer(None, known)
        on_read = layer_progress(
            self._progress, short(digest) if is_digest(digest) else name[:12], "Loading layer", size
        )
        intake = await Intake.open(self._parts, digest=digest if is_blob else "", on_read=on_read)
        self._intakes.append(intake)
        return ArrivingLayer(intake, None)

    # --- the loop ---

    async def take(self, source: AsyncIterator[bytes]) -> None:
        """Take in the archive. Whatever happens, its thread has ended when this returns."""
        inlet = Inlet()
        feeding = asyncio.create_task(inlet.feed(source))
        filling = asyncio.ensure_future(asyncio.to_thread(self.fill, inlet))
        try:
            await asyncio.shield(filling)
            await feeding
        except BaseException:
            self._ended = True
            inlet.close()
            if self._asked is not None:
                self._asked.cancel()
            for intake in self._intakes:
                intake.stop()
            with suppress(EnisleError, OSError):
                await to_the_end(filling)
            raise
        finally:
            inlet.close()
            feeding.cancel()

    async def close(self) -> None:
        """Remove what was not taken."""
        self._pins.close()
        for intake in self._intakes:
            await intake.close()
        for path in self._files.values():
            path.unlink(missing_ok=True)

    # --- finding ---

    def find(self, name: str) -> Path | ArrivingLayer | None:
        """What is under a name of the archive, links followed; None if there is nothing (or it was taken)."""
        name = posixpath.normpath(name)
        for _ in range(_LINKS_LIMIT):
            if name not in self._links:
                break
            name = self._links[name]
        if name in self._layers:
            return self._layers[name]
        path = self._files.get(name)
        return path if path is not None and path.exists() else None

    def get(self, name: str) -> Path | ArrivingLayer:
        """As :func:`find`; Invalid when there is none."""
        found = self.find(name)
        if found is None:
            raise Invalid(f"the image archive is not whole: {name[:200]} is missing")
        return found

    def read(self, name: str, *, limit: int = SIZE_LIMIT_BYTES) -> bytes:
        """A document of the archive. Invalid for one that is larger."""
        path = self.get(name)
        if isinstance(path, ArrivingLayer):
            raise Invalid(f"the image archive's {name[:200]} is a layer, and should be a document")
        if path.stat().st_size > limit:
            raise Invalid(f"the image archive's {name[:200]} is over the limit of {limit} bytes")
        return path.read_bytes()


@asynccontextmanager
async def arriving(parts: Parts, progress: Progress) -> AsyncIterator[Arriving]:
    """The members of an archive, to be taken in; what was not made part of an image is removed at the end."""
    members = Arriving(parts, progress)
    try:
        yield members
    finally:
        await members.close()


def _begins_a_layer(head: bytes) -> bool:
    """Whether these first 512 bytes are a compressed file's or a tar's."""
    if detect(head):
        return True
    try:
        parse_header(head)
    except ArchiveError:
        return False
    return True


def _known(parts: Parts, digest: str, *, is_blob: bool) -> LayerRecord | None:
    """A layer that we have: as that blob, or with that content where archives call layers by it."""
    for image in parts.index.images.values():
        for layer in image.layers:
            if digest == layer.blob or (digest == layer.diff_id and not is_blob):
                return parts.known_layer(layer.chain)
    return None
