"""Compressed uploads."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import AsyncIterator, Callable

import pytest
import zstandard

from enisle.drivers.decompress import PIECE_BYTES, plain
from enisle.errors import Invalid

CONTENT = os.urandom(100_000) + b"\0" * 3_000_000 + b"end"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(data),
}


async def cut(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1000, 70_000, 1 << 30])
@pytest.mark.parametrize("name", PACKERS)
async def test_round_trip(name: str, size: int) -> None:
    packed = PACKERS[name](CONTENT)
    assert b"".join([piece async for piece in plain(cut(packed, size))]) == CONTENT


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
async def test_members_put_end_to_end(name: str) -> None:
    packed = PACKERS[name](b"one") + PACKERS[name](b"two")
    assert b"".join([piece async for piece in plain(cut(packed, 7))]) == b"onetwo"


async def test_zeros_after_the_last_member_are_padding() -> None:
    packed = gzip.compress(b"one") + b"\0" * 1024
    assert b"".join([piece async for piece in plain(cut(packed, 100))]) == b"one"


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
async def test_damage_is_found(name: str) -> None:
    packed = bytearray(PACKERS[name](os.urandom(100_000)))
    packed[500:600] = b"\xaa" * 100
    with pytest.raises(Invalid, match="cannot be decompressed"):
        _ = [piece async for piece in plain(cut(bytes(packed), 10_000))]


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz"])
async def test_a_stream_that_ends_early_is_found(name: str) -> None:
    packed = PACKERS[name](os.urandom(100_000))[:-20]
    with pytest.raises(Invalid, match="ends too early"):
        _ = [piece async for piece in plain(cut(packed, 10_000))]


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
async def test_bombs_come_in_bounded_pieces(name: str) -> None:
    packed = PACKERS[name](b"\0" * (256 << 20))
    total, largest = 0, 0
    async for piece in plain(cut(packed, 1 << 20)):
        total += len(piece)
        largest = max(largest, len(piece))
    assert total == 256 << 20
    assert largest <= (16 * PIECE_BYTES if name == "zstd" else PIECE_BYTES)


@pytest.mark.parametrize("data", [b"", b"a", b"BZ", b"\x1f"])
async def test_short_input_passes_through(data: bytes) -> None:
    assert b"".join([piece async for piece in plain(cut(data, 1))]) == data
