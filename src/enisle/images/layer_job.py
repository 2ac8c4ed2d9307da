"""One layer through one process: read, verify, decompress, verify, unpack, and compress what came plain.

Reading, hashing and inflating run in a thread beside the unpacking; none of these holds Python's lock for long.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from enisle.archive.apply import Applied, Limits, apply
from enisle.archive.entry import ArchiveError, TooLargeError
from enisle.archive.reader import ByteSource
from enisle.errors import Exhausted, Invalid
from enisle.images.compression import BROKEN, CHUNK, Compressor, Peeked, decompressed, gzip_compressor, peek

_PIECES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerJob:
    """What to do with one layer. Paths are absolute.

    ``store``: also write the blob there (``compress``: compressed if it came plain); "" for none. ``unpack``: an empty
    directory; "": only verify. ``digest``, ``diff_id``: what it must be, "" for whatever it is. ``total_bytes``: limit
    unpacked.
    """

    store: str = ""
    compress: bool = True
    unpack: str = ""
    digest: str = ""
    diff_id: str = ""
    total_bytes: int = 1 << 40
    entries: int = 5_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerResult:
    """What the layer turned out to be. ``size`` of the (stored) blob, ``unpacked`` of its files, bytes.

    ``compression`` is the stored blob's. ``made``: directories the archive did not describe, as latin-1 text.
    """

    digest: str
    size: int
    diff_id: str
    unpacked: int = 0
    entries: int = 0
    compression: str = ""
    made: list[str] = field(default_factory=list)


class _Counted:
    """A source that is hashed, counted and copied on the way."""

    def __init__(self, source: ByteSource, on_read: Callable[[int], None], copy_fd: int = -1) -> None:
        self._source = source
        self._on_read = on_read
        self._copy_fd = copy_fd
        self.hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int, /) -> bytes:
        piece = self._source.read(size)
        if piece:
            self.hash.update(piece)
            self.size += len(piece)
            if self._copy_fd >= 0:
                write_all(self._copy_fd, piece)
            self._on_read(self.size)
        return piece


class _Compressed:
    """Writes and hashes the compressed form of a plain layer."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._compressor: Compressor = gzip_compressor()
        self.hash = hashlib.sha256()
        self.size = 0

    def add(self, piece: bytes) -> None:
        self._put(self._compressor.compress(piece))

    def finish(self) -> None:
        self._put(self._compressor.flush())

    def _put(self, data: bytes) -> None:
        self.hash.update(data)
        self.size += len(data)
        write_all(self._fd, data)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of the bytes to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Plain:
    """The layer's plain bytes, made by a thread ahead of whoever reads them."""

    def __init__(
        self, source: ByteSource, store_fd: int, on_read: Callable[[int], None], *, compress: bool = True
    ) -> None:
        kind, whole = peek(source)
        self.compression = kind
        compress = compress and not kind and store_fd >= 0
        self.raw = _Counted(whole, on_read, -1 if compress else store_fd)
        self._inflated = decompressed(kind, Peeked(b"", self.raw)) if kind else self.raw
        self.stored = _Compressed(store_fd) if compress else None
        self.hash = hashlib.sha256() if kind else self.raw.hash  # what comes plain is hashed once
        self.size = 0
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(_PIECES)
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="inflate", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while (piece := self._inflated.read(CHUNK)) and not self._stop.is_set():
                if self.compression:
                    self.hash.update(piece)
                self.size += len(piece)
                if self.stored:
                    self.stored.add(piece)
                self._pieces.put(piece)
            while not self._stop.is_set() and self.raw.read(CHUNK):  # what follows the compressed stream counts too
                pass
            if self.stored:
                self.stored.finish()
            self._pieces.put(b"")
        except BaseException as error:  # whatever it is, it is raised by read()
            self._pieces.put(error)

    def read(self, size: int, /) -> bytes:
        """At most one piece, whatever ``size``."""
        if self._ended:
            return b""
        item = self._pieces.get()
        if isinstance(item, BaseException):
            self._ended = True
            raise _explained(item, self.raw.size) from item
        self._ended = not item
        return item

    def stop(self) -> None:
        """Let the thread end. One that waits for its source is left behind: the process ends after a failure."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._pieces.get(timeout=0.05)
            except queue.Empty:
                return


def _explained(error: BaseException, position: int) -> BaseException:
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if isinstance(error, BROKEN):
        return Invalid(f"the compressed data is damaged near byte {position}: {error}")
    return error


def run(job: LayerJob, source: ByteSource, on_read: Callable[[int], None]) -> LayerResult:
    """Do it. ``on_read`` hears of the compressed bytes read so far.

    Raises Invalid for a layer that is not what it should be, Exhausted for one over the limit, OSError where the disk
    fails. What was written until then stays for the caller to remove.
    """
    store_fd = os.open(job.store, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if job.store else -1
    try:
        plain = _Plain(source, store_fd, on_read, compress=job.compress)
        try:
            applied = _unpack(job, plain)
        finally:
            plain.stop()
        blob_hash, blob_size = plain.raw.hash, plain.raw.size
        if plain.stored:
            blob_hash, blob_size = plain.stored.hash, plain.stored.size
        result = LayerResult(
            digest="sha256:" + blob_hash.hexdigest(),
            size=blob_size,
            diff_id="sha256:" + plain.hash.hexdigest(),
            unpacked=applied.size,
            entries=applied.entries,
            compression=plain.compression or ("gzip" if plain.stored else ""),
            made=[name.decode("latin-1") for name in applied.made],
        )
        verify(result, digest=job.digest, diff_id=job.diff_id)
        return result
    finally:
        if store_fd >= 0:
            os.close(store_fd)


def _unpack(job: LayerJob, plain: _Plain) -> Applied:
    if not job.unpack:
        while plain.read(CHUNK):
            pass
        return Applied()
    root = os.open(job.unpack, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        limits = Limits(total_bytes=job.total_bytes, entries=job.entries)
        return apply(root, plain, whiteouts="overlay", limits=limits)
    except TooLargeError as error:
        raise Exhausted(
            f"the layer cannot be unpacked: {error}: no space left on device",
            remedy="Remove images or enlarge the disk.",
        ) from error
    except ArchiveError as error:
        raise Invalid(f"the layer cannot be unpacked: {error}") from error
    finally:
        os.close(root)


def verify(result: LayerResult, *, digest: str, diff_id: str) -> None:
    """Raise Invalid for a layer that is not what it should be; "" stands for whatever it is."""
    if digest and result.digest != digest:
        raise Invalid(f"filesystem layer verification failed for digest {digest}: what was sent is {result.digest}")
    if diff_id and result.diff_id != diff_id:
        raise Invalid(f"layer {result.digest}: its content is {result.diff_id}, but the image's config says {diff_id}")
