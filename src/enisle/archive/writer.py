"""Writing tar streams: ustar headers, with pax records only for what those cannot hold. Equal input, equal bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from enisle.archive import pax
from enisle.archive.entry import BLOCK, Entry, FileKind
from enisle.archive.numbers import format_number

_RECORD = 20 * BLOCK  # archives are padded to this, as tar(1) does


class ByteSink(Protocol):
    """Where archives go: ``write`` takes all of the bytes."""

    def write(self, data: bytes | memoryview, /) -> object: ...


class TarWriter:
    """Write members one by one, then :meth:`close`."""

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink
        self.written = 0  # bytes

    def add(self, entry: Entry, content: Iterable[bytes | memoryview] = ()) -> None:
        """Append a member. Content that is longer than ``entry.size`` is cut, shorter is filled with zeros.

        A file that changes while it is read must not break the archive for all others.
        """
        for _ in self.adding(entry, content):
            pass

    def adding(self, entry: Entry, content: Iterable[bytes | memoryview]) -> Iterator[None]:
        """As :meth:`add`, with a stop after each piece, for sinks that have to be emptied."""
        if entry.sparse is not None:
            self._begin_sparse(entry)
            left = sum(length for _, length in entry.sparse)
        else:
            self._put(format_entry(entry))
            left = entry.size
        if entry.kind is not FileKind.REGULAR:
            return
        padding = -left % BLOCK
        for piece in content:
            if not left:
                break
            piece = piece if len(piece) <= left else memoryview(piece)[:left]
            self._put(piece)
            left -= len(piece)
            yield
        while left:
            self._put(bytes(min(left, 1 << 16)))
            left -= min(left, 1 << 16)
        if padding:
            self._put(bytes(padding))

    def _begin_sparse(self, entry: Entry) -> None:
        """The header and map of a file with holes, in GNU's format 1.0, which stores what is between them."""
        parts = entry.sparse or []
        places = pax.sparse_map(parts)
        above, slash, name = entry.name.rpartition(b"/")
        header = replace(
            entry,
            name=above + slash + b"GNUSparseFile.0/" + name,
            size=len(places) + sum(length for _, length in parts),
            sparse=None,
        )
        self._put(format_entry(header, pax.sparse_records(entry.name, entry.size)))
        self._put(places)

    def close(self) -> None:
        """Write the end marker. The sink stays open."""
        self._put(bytes(2 * BLOCK))
        if rest := -self.written % _RECORD:
            self._put(bytes(rest))

    def _put(self, data: bytes | memoryview) -> None:
        self._sink.write(data)
        self.written += len(data)


def format_entry(entry: Entry, more: pax.Records | None = None) -> bytes:
    """The header blocks of an entry, with ``more`` pax records. A directory's name gets its slash."""
    name = entry.name
    if entry.kind is FileKind.DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    records = {**pax.xattr_records(entry), **(more or {})}
    short, prefix = _split(name)
    if short is None or not name.isascii():
        records[b"path"] = name
        short, prefix = _ascii(name)[:100], b""
    target = entry.target
    if len(target) > 100 or not target.isascii():
        records[b"linkpath"] = target
        target = _ascii(target)[:100]
    for key, value, limit in ((b"size", entry.size, 8**11), (b"uid", entry.uid, 8**7), (b"gid", entry.gid, 8**7)):
        if value >= limit:
            records[key] = b"%d" % value
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    if nanoseconds or not 0 <= seconds < 8**11:
        records[b"mtime"] = _time(entry.mtime_ns)
    header = _header(entry, short, prefix, target)
    if not records:
        return header
    body = pax.format_records(records)
    extended = Entry(name=b"PaxHeaders.0/" + short.rstrip(b"/")[-80:], size=len(body), mode=0o644)
    return _header(extended, extended.name, b"", b"", b"x") + body + bytes(-len(body) % BLOCK) + header


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    """The name as ustar's name and prefix; None where it does not fit."""
    if len(name) <= 100:
        return name, b""
    cut = name.rfind(b"/", 0, min(len(name) - 1, 156))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return None, b""
    return name[cut + 1 :], name[:cut]


def _ascii(name: bytes) -> bytes:
    return bytes(b if b < 128 else 0x5F for b in name)


def _time(time_ns: int) -> bytes:
    sign = b"-" if time_ns < 0 else b""
    seconds, nanoseconds = divmod(abs(time_ns), 1_000_000_000)
    return sign + (b"%d.%09d" % (seconds, nanoseconds)).rstrip(b"0").rstrip(b".")


def _header(entry: Entry, name: bytes, prefix: bytes, target: bytes, flag: bytes | None = None) -> bytes:
    seconds = entry.mtime_ns // 1_000_000_000
    major, minor = entry.device
    size = entry.size if entry.kind is FileKind.REGULAR else 0
    fields = (
        name.ljust(100, b"\0"),
        format_number(entry.mode, 8),
        format_number(entry.uid if entry.uid < 8**7 else 0, 8),
        format_number(entry.gid if entry.gid < 8**7 else 0, 8),
        format_number(size if size < 8**11 else 0, 12),
        format_number(seconds if 0 <= seconds < 8**11 else 0, 12),
        b" " * 8,
        flag or entry.kind.value,
        target.ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),  # user and group names: ids are what counts
        format_number(major, 8),
        format_number(minor, 8),
        prefix.ljust(155, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
