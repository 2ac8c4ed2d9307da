"""The files of a json-file or a compact log: their order, their lines, where the last n lines begin."""

from __future__ import annotations

import os
import struct
import time
import zlib
from calendar import timegm
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

CHUNK = 1 << 16
MAX_SEGMENTS = 1000
_STREAMS = {"stdout": 1, "stderr": 2}
_PACKED_HEAD = struct.Struct("<3xB6sH2sHQ")  # RFC 1952: flags, time and system; then the extra field
_KINDS = {b"1": (1, b"\n"), b"2": (2, b"\n"), b"3": (1, b""), b"4": (2, b"")}


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRecord:
    """A line (or, where a line was longer than the keeper's buffer, a part of one without its newline).

    ``stream``: 1 stdout, 2 stderr. ``time_ns`` since the epoch. ``data`` ends in a newline unless it is a part.
    """

    stream: int
    time_ns: int
    data: bytes
    attributes: dict[str, str] = field(default_factory=dict)


class _Line(msgspec.Struct):
    log: str
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = msgspec.field(default_factory=dict)


_decoder = msgspec.json.Decoder(_Line)
_seconds: dict[str, int] = {}


def parse(line: bytes) -> LogRecord | None:
    """The record of one line; None when it is damaged (a crash of the host may leave such a line)."""
    if not line.startswith(b"{"):
        return _parse_compact(line)
    try:
        read = _decoder.decode(line)
        return LogRecord(
            stream=_STREAMS[read.stream],
            time_ns=parse_time(read.time),
            data=read.log.encode("utf-8", "surrogateescape"),
            attributes=read.attrs,
        )
    except (msgspec.DecodeError, ValueError, KeyError):
        return None


def _parse_compact(line: bytes) -> LogRecord | None:
    """As ``launcher.log.compact_lines`` writes them: 1 and 2 are whole lines of stdout and stderr, 3 and 4 parts."""
    head, space, data = line.partition(b" ")
    kind = _KINDS.get(head[:1])
    if kind is None or not space:
        return None
    try:
        time_ns = int(head[1:], 16)
    except ValueError:
        return None
    stream, end = kind
    return LogRecord(stream=stream, time_ns=time_ns, data=data + end)


def parse_time(text: str) -> int:
    """RFC 3339 in UTC with up to nine digits of a fraction, as nanoseconds since the epoch."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = _seconds.get(whole)
    if seconds is None:
        if len(_seconds) > 1000:
            _seconds.clear()
        seconds = _seconds[whole] = timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int((fraction + "000000000")[:9])


def numbered(path: Path, number: int) -> Path | None:
    """The file of that number, packed or not; 0 is the current one, which always counts as there."""
    if number == 0:
        return path
    rotated = path.with_name(f"{path.name}.{number}")
    packed = path.with_name(f"{path.name}.{number}.gz")
    return rotated if rotated.exists() else packed if packed.exists() else None


def segments(path: Path) -> list[Path]:
    """All files of the log, oldest first: ``.3.gz``, ``.2``, ``.1``, the current one."""
    found: list[Path] = []
    missing = 0
    for number in range(1, MAX_SEGMENTS):
        one = numbered(path, number)
        if one is not None:
            found.append(one)
            continue
        missing += 1
        if missing > 1:  # one may be missing for the moment of its renaming
            break
    return [*reversed(found), path]


def place_of(inode: tuple[int, int], path: Path) -> int | None:
    """The number of the file that has this device and inode, or was packed from it: 0 for the newest; None: gone.

    Whoever asks holds the file open, so no other file can have its number now; but older packed ones may name it, from
    an earlier use. Hence the newest comes first, which is also how files move that are rotated meanwhile.
    """
    missing = 0
    for number in range(MAX_SEGMENTS):
        plain = path.with_name(f"{path.name}.{number}") if number else path
        packed = path.with_name(f"{path.name}.{number}.gz")
        found = (_identity(plain), _identity(packed))
        if inode in found or (found[1] is not None and packed_inode(packed) == inode[1]):
            return number
        missing = missing + 1 if found == (None, None) else 0
        if missing > 1:  # one may be missing for the moment of its renaming
            return None
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def packed_inode(path: Path) -> int:
    """The inode of the file that was packed into this one (``launcher.log.compress_file``), 0 if it does not say."""
    try:
        with path.open("rb") as file:
            head = file.read(_PACKED_HEAD.size)
    except FileNotFoundError:
        return 0
    if len(head) < _PACKED_HEAD.size:
        return 0
    flags, _rest, _length, name, size, inode = _PACKED_HEAD.unpack(head)
    return int(inode) if flags == 4 and name == b"In" and size == 8 else 0


class Segment:
    """One open file of a log, read from where it was left. A context manager that owns the descriptor."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError."""
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._packed = zlib.decompressobj(wbits=31) if path.suffix == ".gz" else None
        self._rest = b""
        self._at = 0
        self.end: int | None = None  # where to stop, although more may be written

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.close()

    def close(self) -> None:
        """Once."""
        os.close(self._fd)

    @property
    def inode(self) -> tuple[int, int]:
        facts = os.fstat(self._fd)
        return facts.st_dev, facts.st_ino

    def seek(self, offset: int) -> None:
        self._at, self._rest = offset, b""

    def lines(self) -> list[bytes] | None:
        """The whole lines of the next piece; None at the end of what is written so far."""
        size = CHUNK if self.end is None else min(CHUNK, max(self.end - self._at, 0))
        data = os.pread(self._fd, size, self._at)
        if not data:
            if self.end is None and os.fstat(self._fd).st_size < self._at:
                self.seek(0)  # the writer keeps one file only and has emptied it
                return []
            return None
        self._at += len(data)
        if self._packed is not None:
            data = self._packed.decompress(data)
        whole = (self._rest + data).split(b"\n")
        self._rest = whole.pop()
        return whole

    def last_lines(self, count: int) -> tuple[int, int]:
        """Where the last ``count`` lines begin, and how many there are (fewer if the file has fewer)."""
        if self._packed is not None:
            return self._last_packed(count)
        end = os.fstat(self._fd).st_size
        newlines, position = 0, end
        while position > 0:
            start = max(0, position - CHUNK)
            piece = os.pread(self._fd, position - start, start)
            at = len(piece)
            while (at := piece.rfind(b"\n", 0, at)) >= 0:
                if newlines == count:
                    return start + at + 1, count
                newlines += 1
            position = start
        return 0, newlines

    def _last_packed(self, count: int) -> tuple[int, int]:
        """A packed file is read whole or not at all: its lines are counted, and ``skip`` says what to pass over."""
        total = sum(1 for _line in self._all_lines())
        return (0, total) if total <= count else (-(total - count), count)

    def _all_lines(self) -> Iterator[bytes]:
        with Segment(self.path) as again:
            while (lines := again.lines()) is not None:
                yield from lines


def tail_start(paths: list[Path], count: int) -> tuple[Segment | None, int]:
    """Where the last ``count`` lines of the log begin: the file, and the byte offset in it. None: there is no file.

    The file is open, and the caller's to close: by its name it could be another one by now. For a packed file the
    offset is negative: so many lines are to be passed over.
    """
    first: Segment | None = None
    offset = 0
    for path in reversed(paths):
        try:
            segment = Segment(path)
        except FileNotFoundError:
            continue
        if first is not None:
            first.close()
        first = segment
        offset, found = segment.last_lines(count)
        count -= found
        if count <= 0:
            break
    return first, offset
