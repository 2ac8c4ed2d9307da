"""Extended headers: pax records, and the ways GNU tar stores sparse files in them (pax(1); GNU tar manual)."""

from __future__ import annotations

from enisle.archive.entry import BLOCK, ID_LIMIT, ArchiveError, Entry, keeps_xattr, shown
from enisle.archive.numbers import parse_decimal, parse_time_ns

METADATA_LIMIT_BYTES = 1 << 20
XATTR_LIMIT_BYTES = 64 << 10  # XATTR_SIZE_MAX
SPARSE_LIMIT = 100_000

_XATTR = b"SCHILY.xattr."
_SPARSE_OFFSET = b"GNU.sparse.offset"
_SPARSE_LENGTH = b"GNU.sparse.numbytes"
_SPARSE_MAP = b"GNU.sparse.map"

Records = dict[bytes, bytes]


def parse_records(data: bytes) -> Records:
    """The records of one extended header. Raises ArchiveError where a length lies."""
    records: Records = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 12)
        if space < 0:
            if not data[position:].strip(b"\0"):
                break
            raise ArchiveError("a pax record has no length")
        length = parse_decimal(data[position:space], "the length of a pax record")
        end = position + length
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 2 or end > len(data) or data[end - 1] != 0x0A or not equals or not key:
            raise ArchiveError("a pax record is malformed")
        if key in (_SPARSE_OFFSET, _SPARSE_LENGTH):  # format 0.0 repeats them; keep the pairs in order
            pairs.append(value)
        else:
            records[key] = value
        position = end
    if pairs:
        records[_SPARSE_MAP] = b",".join(pairs)
    return records


def format_records(records: Records) -> bytes:
    """Records in pax form, sorted by key so that equal archives are equal bytes."""
    lines = []
    for key, value in sorted(records.items()):
        body = b" " + key + b"=" + value + b"\n"
        length = len(body)
        while len(b"%d" % length) + len(body) != length:
            length = len(b"%d" % length) + len(body)
        lines.append(b"%d" % length + body)
    return b"".join(lines)


def apply_records(entry: Entry, records: Records, *, overlay_xattrs: bool = False) -> None:
    """Let extended records override what the plain header said. An empty value removes the record's effect."""
    entry.name = records.get(b"path") or entry.name
    entry.target = records.get(b"linkpath") or entry.target
    if value := records.get(b"size"):
        entry.size = entry.stored = parse_decimal(value, "a pax size")
    if value := records.get(b"uid"):
        entry.uid = _identity(value)
    if value := records.get(b"gid"):
        entry.gid = _identity(value)
    if value := records.get(b"mtime"):
        entry.mtime_ns = parse_time_ns(value)
    for key, value in records.items():
        if key.startswith(_XATTR) and keeps_xattr(key[len(_XATTR) :], overlay=overlay_xattrs):
            if len(value) > XATTR_LIMIT_BYTES:
                raise ArchiveError(f"{shown(entry.name)}: an extended attribute is over {XATTR_LIMIT_BYTES} bytes")
            entry.xattrs[key[len(_XATTR) :]] = value


def _identity(text: bytes) -> int:
    value = parse_decimal(text, "a pax user or group id")
    if value > ID_LIMIT:
        raise ArchiveError(f"the user or group id {value} does not exist")
    return value


def xattr_records(entry: Entry) -> Records:
    """The records that carry an entry's extended attributes."""
    return {_XATTR + name: value for name, value in entry.xattrs.items()}


def sparse_records(name: bytes, size: int) -> Records:
    """The records of a file whose map stands before its data (format 1.0)."""
    return {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % size,
    }


def sparse_map(parts: list[tuple[int, int]]) -> bytes:
    """That map, filled up to whole blocks."""
    numbers = [len(parts), *(number for part in parts for number in part)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(-len(text) % BLOCK)


def is_sparse_map_in_data(records: Records) -> bool:
    """Whether the map of a sparse file stands before its data (format 1.0)."""
    return records.get(b"GNU.sparse.major") == b"1" and records.get(b"GNU.sparse.minor") == b"0"


def apply_sparse(entry: Entry, records: Records) -> None:
    """Take over the real name, size and, in formats 0.x, the map of a sparse file."""
    entry.name = records.get(b"GNU.sparse.name") or entry.name
    size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
    if size is None:
        return
    if _SPARSE_MAP in records:
        numbers = [parse_decimal(part, "a sparse map") for part in records[_SPARSE_MAP].split(b",") if part]
        if len(numbers) % 2:
            raise ArchiveError(f"{shown(entry.name)}: the sparse map has an odd number of fields")
        entry.sparse = list(zip(numbers[::2], numbers[1::2], strict=True))
    entry.size = parse_decimal(size, "the size of a sparse file")


def check_sparse(entry: Entry) -> None:
    """Raise ArchiveError unless the stored parts are in order, apart, inside the file and as many as are stored."""
    end = total = 0
    parts = entry.sparse or []
    if len(parts) > SPARSE_LIMIT:
        raise ArchiveError(f"{shown(entry.name)}: more than {SPARSE_LIMIT} parts in a sparse file")
    for offset, length in parts:
        if offset < end or length < 0:
            raise ArchiveError(f"{shown(entry.name)}: the sparse map is out of order")
        end = offset + length
        total += length
    if end > entry.size or total != entry.stored:
        raise ArchiveError(f"{shown(entry.name)}: the sparse map does not fit the file")
