"""Reading tar streams: ustar, pax, GNU long names and sparse files. Everything taken from the stream is bounded.

Where readers of the world differ, this one follows Go's archive/tar, which Docker and containerd use: an archive must
mean the same here as there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from enisle.archive import pax
from enisle.archive.entry import BLOCK, ID_LIMIT, ArchiveError, Entry, FileKind, shown
from enisle.archive.numbers import parse_decimal, parse_number

_CHUNK = 1 << 18
_EXTENSIONS_LIMIT = 16  # extended headers before one member
_ZERO = bytes(BLOCK)
_HEADER_ONLY = frozenset(FileKind) - {FileKind.REGULAR}
_KINDS = {kind.value: kind for kind in FileKind} | {
    b"\0": FileKind.REGULAR,
    b"7": FileKind.REGULAR,
    b"S": FileKind.REGULAR,
    b"D": FileKind.DIRECTORY,
}


class ByteSource(Protocol):
    """Where archives come from: ``read`` gives at most ``size`` bytes and b"" at the end."""

    def read(self, size: int, /) -> bytes: ...


class TarReader:
    """Iterate over the members of a tar stream; :meth:`data` gives the current member's content."""

    def __init__(self, source: ByteSource, *, overlay_xattrs: bool = False) -> None:
        self._source = source
        self._overlay_xattrs = overlay_xattrs
        self._buffer = memoryview(b"")
        self._taken = 0  # bytes read from the source
        self._global: pax.Records = {}
        self._remaining = 0  # stored bytes of the current member not yet read
        self._padding = 0
        self._entry: Entry | None = None

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            self._entry = entry
            yield entry

    @property
    def position(self) -> int:
        """Where in the stream the reader is: right after a member was given, where its stored bytes begin."""
        return self._taken - len(self._buffer)

    def data(self) -> Iterator[tuple[int, memoryview]]:
        """The current member's stored bytes as (offset in the file, bytes). Views are valid until the next step."""
        entry = self._entry
        assert entry is not None
        parts = entry.sparse if entry.sparse is not None else [(0, entry.stored)]
        for offset, length in parts:
            while length:
                piece = self._some(min(length, _CHUNK))
                self._remaining -= len(piece)
                yield offset, piece
                offset += len(piece)
                length -= len(piece)

    def drain(self) -> None:
        """Read the stream to its end, so that whoever hashes it has seen all of it."""
        self._buffer = memoryview(b"")
        while self._source.read(_CHUNK):
            pass

    # --- bytes ---

    def _fill(self) -> None:
        self._buffer = memoryview(self._source.read(_CHUNK))
        self._taken += len(self._buffer)

    def _some(self, limit: int) -> memoryview:
        if not self._buffer:
            self._fill()
            if not self._buffer:
                raise ArchiveError("the archive is cut short")
        piece, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return piece

    def _exactly(self, size: int) -> bytes:
        if len(self._buffer) >= size:
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            return bytes(piece)
        parts = []
        while size:
            part = self._some(size)
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._some(size))

    def _block(self) -> bytes | None:
        """The next header block; None where the stream ends between members."""
        if not self._buffer:
            self._fill()
            if not self._buffer:
                return None
        return self._exactly(BLOCK)

    # --- headers ---

    def _next(self) -> Entry | None:
        self._skip(self._remaining + self._padding)
        self._remaining = self._padding = 0
        records: pax.Records = {}
        long_name = long_target = b""
        for _ in range(_EXTENSIONS_LIMIT):
            block = self._block()
            if block is None:
                return None
            if block == _ZERO:
                self._end()
                return None
            entry, flag = parse_header(block)
            if flag == b"g":
                self._global |= pax.parse_records(self._metadata(entry))
            elif flag in b"xX":
                records = pax.parse_records(self._metadata(entry))
            elif flag == b"L":
                long_name = self._metadata(entry).partition(b"\0")[0]
            elif flag == b"K":
                long_target = self._metadata(entry).partition(b"\0")[0]
            elif flag == b"V":
                self._metadata(entry)
            else:
                entry.name = long_name or entry.name
                entry.target = long_target or entry.target
                self._complete(entry, flag, block, self._global | records if self._global else records)
                return entry
        raise ArchiveError("too many extended headers in a row")

    def _end(self) -> None:
        block = self._block()
        if block is not None and block != _ZERO:
            raise ArchiveError("a header follows the end of the archive")

    def _metadata(self, entry: Entry) -> bytes:
        if entry.size > pax.METADATA_LIMIT_BYTES:
            raise ArchiveError(f"an extended header is over {pax.METADATA_LIMIT_BYTES} bytes")
        data = self._exactly(entry.size)
        self._skip(-entry.size % BLOCK)
        return data

    def _complete(self, entry: Entry, flag: bytes, block: bytes, records: pax.Records) -> None:
        if records:
            pax.apply_records(entry, records, overlay_xattrs=self._overlay_xattrs)
        kind = _KINDS.get(flag)
        if kind is None:
            raise ArchiveError(f"{shown(entry.name)}: unknown type of member {flag!r}")
        entry.kind = kind
        if flag in b"\0" and entry.name.endswith(b"/"):
            entry.kind = FileKind.DIRECTORY
        if entry.kind in _HEADER_ONLY:
            entry.size = entry.stored = 0
        self._remaining = entry.stored
        self._padding = -entry.stored % BLOCK
        if flag == b"S":
            self._old_sparse(entry, block)
        elif b"GNU.sparse.realsize" in records or b"GNU.sparse.size" in records:
            pax.apply_sparse(entry, records)
            if pax.is_sparse_map_in_data(records):
                self._map_in_data(entry)
        if entry.sparse is not None:
            pax.check_sparse(entry)

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        """GNU's first format: four parts in the header, more in blocks after it."""
        parts: list[tuple[int, int]] = []
        fields, extended = block[386:482], block[482]
        entry.size = parse_number(block[483:495])
        while True:
            for at in range(0, len(fields), 24):
                if fields[at] == 0:
                    break
                parts.append((parse_number(fields[at : at + 12]), parse_number(fields[at + 12 : at + 24])))
            if not extended:
                break
            if len(parts) > pax.SPARSE_LIMIT:
                raise ArchiveError(f"{shown(entry.name)}: more than {pax.SPARSE_LIMIT} parts in a sparse file")
            more = self._exactly(BLOCK)
            fields, extended = more[:504], more[504]
        entry.sparse = parts

    def _map_in_data(self, entry: Entry) -> None:
        """Format 1.0: decimal lines, padded to blocks, before the data and counted in its size."""
        numbers: list[int] = []
        text = b""
        wanted = 1
        while len(numbers) < wanted:
            if self._remaining < BLOCK or len(text) > BLOCK + 24:
                raise ArchiveError(f"{shown(entry.name)}: the sparse map is cut short")
            text += self._exactly(BLOCK)
            self._remaining -= BLOCK
            entry.stored -= BLOCK
            *lines, text = text.split(b"\n")
            numbers += [parse_decimal(line, "a sparse map") for line in lines[: wanted - len(numbers)] if line]
            if numbers and wanted == 1:
                wanted = 1 + 2 * numbers[0]
                if numbers[0] > pax.SPARSE_LIMIT:
                    raise ArchiveError(f"{shown(entry.name)}: more than {pax.SPARSE_LIMIT} parts in a sparse file")
                numbers += [parse_decimal(line, "a sparse map") for line in lines[1:wanted] if line]
        entry.sparse = list(zip(numbers[1::2], numbers[2::2], strict=True))


def parse_header(block: bytes) -> tuple[Entry, bytes]:
    """One header block as an entry and its type flag. Raises ArchiveError on a wrong checksum or field."""
    check = block[148:156]
    expected = parse_number(check)
    plain = _sum(block[:148]) + 8 * 0x20 + _sum(block[156:384]) + _sum(block[384:])
    if expected != plain and expected != plain - 256 * sum(b > 127 for b in block[:148] + block[156:]):
        raise ArchiveError("a header's checksum is wrong: this is no tar archive, or it is damaged")
    magic = block[257:263]
    name = block[:100].partition(b"\0")[0]
    device = (0, 0)
    if magic in (b"ustar\0", b"ustar "):
        if magic == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
            name = prefix + b"/" + name
        if block[156:157] in b"34":
            device = (parse_number(block[329:337]), parse_number(block[337:345]))
    size = parse_number(block[124:136])
    uid, gid = parse_number(block[108:116]), parse_number(block[116:124])
    if not (0 <= size < 1 << 63 and 0 <= uid <= ID_LIMIT and 0 <= gid <= ID_LIMIT):
        raise ArchiveError(f"{shown(name)}: size, user or group in the header is out of range")
    entry = Entry(
        name=name,
        mode=parse_number(block[100:108]) & 0o7777,
        uid=uid,
        gid=gid,
        size=size,
        stored=size,
        mtime_ns=parse_number(block[136:148]) * 1_000_000_000,
        target=block[157:257].partition(b"\0")[0],
        device=device,
    )
    return entry, block[156:157]


def _sum(data: bytes) -> int:
    """The sum of at most 256 bytes: the lower half of Adler-32 (RFC 1950) less one, as long as it is below 65521."""
    return (zlib.adler32(data) & 0xFFFF) - 1
