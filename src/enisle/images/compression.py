"""Compressed streams: recognised by their first bytes, decompressed in bounded memory, in this process."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from typing import IO, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

from enisle.archive.reader import ByteSource
from enisle.errors import Invalid

CHUNK = 1 << 18
_WINDOW_LIMIT_BYTES = 128 << 20  # the largest window of zstd that is accepted; level 19 needs 8 MiB
_XZ_MEMORY_LIMIT_BYTES = 160 << 20
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)  # RFC 8878, section 3.1.2

_IsalError = cast(type[Exception], isal_zlib.error)  # its stub declares an instance
BROKEN = (EOFError, OSError, zlib.error, _IsalError, lzma.LZMAError, zstandard.ZstdError)
"""What decompressors raise on damaged input (OSError also stands for real failures, which have an errno)."""


def detect(head: bytes) -> str:
    """Which compression begins with these bytes (six are enough): gzip, zstd, bzip2, xz, or "" for none."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or int.from_bytes(head[:4], "little") in _SKIPPABLE:
        return "zstd"
    if head[:3] == b"BZh":
        return "bzip2"
    if head[:6] == b"\xfd7zXZ\x00":
        return "xz"
    return ""


class Peeked(io.RawIOBase):
    """A source whose first bytes were looked at already."""

    def __init__(self, head: bytes, source: ByteSource) -> None:
        self._head = head
        self._source = source

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._source.read(size if size > 0 else CHUNK)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def peek(source: ByteSource) -> tuple[str, Peeked]:
    """The compression of a source, and the source as if it had not been touched."""
    head = b""
    while len(head) < 6 and (piece := source.read(6 - len(head))):
        head += piece
    return detect(head), Peeked(head, source)


def decompressed(kind: str, source: io.RawIOBase) -> ByteSource:
    """The plain bytes of a source of that compression ("" is passed on)."""
    if kind == "gzip":
        return igzip.IGzipFile(fileobj=io.BufferedReader(source, CHUNK), mode="rb")  # type: ignore[no-untyped-call]
    if kind == "zstd":
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT_BYTES)
        return decompressor.stream_reader(cast(IO[bytes], source), read_size=CHUNK, read_across_frames=True)
    if kind == "bzip2":
        return bz2.BZ2File(io.BufferedReader(source, CHUNK))
    if kind == "xz":
        return _Xz(source)
    if kind:
        raise Invalid(f"the compression {kind} is not known")
    return source


class _Xz:
    """lzma.LZMAFile cannot be told a memory limit; this can."""

    def __init__(self, source: io.RawIOBase) -> None:
        self._source = source
        self._decompressor: lzma.LZMADecompressor | None = None
        self._waiting = b""

    def read(self, size: int, /) -> bytes:
        while True:
            current = self._decompressor
            if current is None or current.eof:
                self._waiting = (current.unused_data if current else self._waiting).lstrip(b"\0")
                self._waiting = self._waiting or self._source.read(CHUNK) or b""
                if not self._waiting:
                    return b""
                self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_LIMIT_BYTES)
                data, self._waiting = self._waiting, b""
            elif current.needs_input:
                data = self._source.read(CHUNK) or b""
                if not data:
                    raise EOFError("the compressed stream is cut short")
            else:
                data = b""
            assert self._decompressor is not None
            if piece := self._decompressor.decompress(data, size):
                return piece


class Compressor(Protocol):
    """What makes compressed bytes: compress() some, then flush() the rest."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def gzip_compressor() -> Compressor:
    """Fast gzip for layers made here. The header carries no time, so equal layers are equal blobs."""
    compressor: Compressor = isal_zlib.compressobj(2, isal_zlib.DEFLATED, 31)
    return compressor
