"""Streams that may be compressed, made plain: gzip, bzip2, xz and zstd by their magic numbers, anything else as it is.

Runs in enisled, never inside an instance's root, and starts no program: an image cannot bring its own decompressor
(CVE-2026-41567). Pieces are bounded, whatever the ratio.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import zstandard

from enisle.errors import Invalid

PIECE_BYTES = 1 << 20
_ZSTD_SLICE_BYTES = 512  # a zstd block of 4 bytes may stand for 128 KiB: 512 bytes give 16 MiB at the most
_ZSTD_WINDOW_BYTES = 128 << 20
_XZ_MEMORY_BYTES = 256 << 20
_PEEK_BYTES = 6
_THREAD_FROM_BYTES = 16 << 10


class _Decompressor(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...
    def finish(self) -> bool:
        """Whether the stream is whole."""


class _Members:
    """gzip, bzip2 and xz: concatenated members, and zero padding after the last one."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._current: Any = self._make()
        self._fresh = True

    def _make(self) -> Any:
        if self._kind == "gzip":
            return zlib.decompressobj(wbits=31)
        if self._kind == "bzip2":
            return bz2.BZ2Decompressor()
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._fresh:
                data = data.lstrip(b"\0")
                if not data:
                    return
            self._fresh = False
            yield from self._member(data)
            if not self._current.eof:
                return
            data = self._current.unused_data
            self._current, self._fresh = self._make(), True

    def _member(self, data: bytes) -> Iterator[bytes]:
        current = self._current
        piece = current.decompress(data, PIECE_BYTES)
        while True:
            if piece:
                yield piece
            if current.eof:
                return
            rest = current.unconsumed_tail if self._kind == "gzip" else b""
            if not rest and (self._kind == "gzip" or current.needs_input):
                return
            piece = current.decompress(rest, PIECE_BYTES)

    def finish(self) -> bool:
        return self._fresh


class _Zstd:
    """zstd: concatenated frames."""

    def __init__(self) -> None:
        self._frames = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj(
            read_across_frames=True
        )

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE_BYTES):
            piece = self._frames.decompress(data[start : start + _ZSTD_SLICE_BYTES])
            if piece:
                yield piece

    def finish(self) -> bool:
        return True  # a tar that was cut off is found by its reader


def _decompressor(head: bytes) -> _Decompressor | None:
    if head.startswith(b"\x1f\x8b"):
        return _Members("gzip")
    if head.startswith(b"BZh"):
        return _Members("bzip2")
    if head.startswith(b"\xfd7zXZ\0"):
        return _Members("xz")
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _Zstd()
    return None


async def plain(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The bytes of the source, decompressed if need be. Invalid when a compressed stream is damaged."""
    head = b""
    async for chunk in source:
        head += chunk
        if len(head) >= _PEEK_BYTES:
            break
    decompressor = _decompressor(head)
    if decompressor is None:
        if head:
            yield head
        async for chunk in source:
            yield chunk
        return
    try:
        async for piece in _pieces(decompressor, head):
            yield piece
        async for chunk in source:
            async for piece in _pieces(decompressor, chunk):
                yield piece
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError) as error:
        raise Invalid(f"the archive cannot be decompressed: {error}") from error
    if not decompressor.finish():
        raise Invalid("the archive cannot be decompressed: it ends too early")


async def _pieces(decompressor: _Decompressor, data: bytes) -> AsyncIterator[bytes]:
    pieces = decompressor.feed(data)
    if len(data) < _THREAD_FROM_BYTES:
        for piece in pieces:
            yield piece
        return
    while (piece_or_end := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece_or_end
