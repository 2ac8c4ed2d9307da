"""The log of an instance in files rotated by size: Docker's json-file lines, or compact lines of our own ("local").

A line that is not finished waits for its end, up to MAX_PARTIAL_BYTES; then it is written without a newline, as
Docker does. In JSON, text that is no UTF-8 becomes U+FFFD. The lines of one read share one time stamp. A full disk
loses lines, never blocks the workload, and never leaves half a line in the file.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import BinaryIO, cast

from enisle.wire.plans import LogPlan

MAX_PARTIAL_BYTES = 16 << 10
STREAM_NAMES = {1: "stdout", 2: "stderr"}
_STREAM_NUMBERS = {name: number for number, name in STREAM_NAMES.items()}
_GZIP_HEAD = b"\x1f\x8b\x08\x04\0\0\0\0\0\x03"  # deflate, an extra field, no time, made on Unix
_PART = 2  # added to the stream's number in the compact format where the line goes on in the next one
_ESCAPES = [(b"\\", b"\\\\"), (b'"', b'\\"')] + [
    (bytes([code]), encode_basestring(chr(code))[1:-1].encode()) for code in range(0x20) if code != 0x0A
]
_ESCAPED = b"".join(plain for plain, _ in _ESCAPES)


def timestamp(now_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def json_lines(stream: int, data: bytes, attributes: str, now_ns: int) -> bytes:
    """The json-file lines of whole lines of output (the last one may lack its newline)."""
    tail = b'","stream":"%s"%s,"time":"%s"}\n' % (
        STREAM_NAMES[stream].encode(),
        attributes.encode(),
        timestamp(now_ns).encode(),
    )
    ended = data.endswith(b"\n")
    body = _escaped(data[:-1] if ended else data).replace(b"\n", b'\\n%s{"log":"' % tail)
    return b"".join((b'{"log":"', body, b"\\n" if ended else b"", tail))


def _escaped(data: bytes) -> bytes:
    """As JSON text, newlines excepted. On bytes: most output needs nothing, and to know that takes 1/20 of escaping."""
    if not data.isascii():
        data = data.decode("utf-8", "replace").encode()
    if len(data.translate(None, _ESCAPED)) != len(data):
        for plain, escape in _ESCAPES:
            data = data.replace(plain, escape)
    return data


def complete_characters(data: bytes) -> int:
    """How many bytes of ``data`` end with a whole UTF-8 character; all of them where it is no UTF-8 anyway."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) if back >= length else len(data) - back
        if byte < 0x80:
            break
    return len(data)


def compact_lines(stream: int, data: bytes, now_ns: int) -> bytes:
    """The compact lines of whole lines of output (the last one may lack its newline): number of the stream, time as
    nanoseconds since the epoch in hexadecimal, a space, and the output just as it was."""
    body, newline, part = data.rpartition(b"\n")
    prefix = b"%d%x " % (stream, now_ns)
    lines = prefix + body.replace(b"\n", b"\n" + prefix) + b"\n" if newline else b""
    return lines + b"%d%x %b\n" % (stream + _PART, now_ns, part) if part else lines


class Log(ABC):
    """Takes in output and cuts it into lines. ``error`` is the last reason for lost lines, "" if none were."""

    def __init__(self, plan: LogPlan) -> None:
        self._plan = plan
        self._partial: dict[int, bytes] = {}
        self.error = ""

    def pending(self, stream: int) -> bytes:
        """Output taken in, but not written yet because its line is not finished."""
        return self._partial.get(stream, b"")

    def write(self, stream: int, data: bytes) -> None:
        """Take in output. Never raises and never waits for anything but the disk."""
        waiting = self._partial.pop(stream, b"")
        if waiting:
            data = waiting + data
        end = data.rfind(b"\n") + 1
        if end:
            self._emit(stream, data[:end])
            data = data[end:]
        while len(data) >= MAX_PARTIAL_BYTES:
            cut = complete_characters(data[:MAX_PARTIAL_BYTES])
            self._emit(stream, data[:cut])
            data = data[cut:]
        if data:
            self._partial[stream] = data

    def close(self) -> None:
        """Write what waits for the end of its line, and close. Idempotent."""
        for stream in sorted(self._partial):
            self._emit(stream, self._partial[stream])
        self._partial.clear()
        self._close()

    def rotated(self) -> Iterator[str]:
        """All files of this log that are there, oldest first, the one written now last."""
        return iter(())

    def record(self, line: bytes) -> tuple[int, bytes] | None:
        """Stream and output of one line of such a file; None when it is damaged."""
        del line
        return None

    @abstractmethod
    def _emit(self, stream: int, data: bytes) -> None:
        """Keep whole lines, or a part of one."""

    @abstractmethod
    def _close(self) -> None: ...


class FileLog(Log):
    """A log in files, rotated as the plan says."""

    def __init__(self, plan: LogPlan) -> None:
        super().__init__(plan)
        self._compressing = 0
        self._open()

    @abstractmethod
    def _encode(self, stream: int, data: bytes) -> bytes:
        """The file's lines for whole lines of output."""

    @property
    def path(self) -> str:
        """The file written now."""
        return self._plan.path

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._plan.path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._reap_compressor()

    def _emit(self, stream: int, data: bytes) -> None:
        lines = self._encode(stream, data)
        limit = self._plan.max_bytes
        if limit <= 0 or self._size + len(lines) <= limit:
            self._append(lines)
            return
        for line in lines[:-1].split(b"\n"):
            if self._size >= limit:
                self._rotate()
            self._append(line + b"\n")

    def _append(self, lines: bytes) -> None:
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._fd, memoryview(lines)[written:])
            self._size += written
        except OSError as error:
            self.error = f"lines of the log {self._plan.path} are lost: {error.strerror}"
            if written:
                self._cut_off()

    def _cut_off(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            self.error += f"; half a line stays in it: {error.strerror}"

    def _rotate(self) -> None:
        path, count = self._plan.path, self._plan.max_files
        try:
            self._reap_compressor()
            if count <= 1:
                os.ftruncate(self._fd, 0)
                self._size = 0
                return
            for suffix in ("", ".gz"):
                for number in range(count - 2, 0, -1):
                    _rename_if_there(f"{path}.{number}{suffix}", f"{path}.{number + 1}{suffix}")
            os.rename(path, f"{path}.1")
            old = self._fd
            self._open()
            os.close(old)
            if self._plan.compress:
                self._compress(f"{path}.1")
        except OSError as error:
            self.error = f"the log {path} could not be rotated: {error.strerror}"

    def _compress(self, path: str) -> None:
        """In a child of its own: packing 10 MiB takes longer than output may wait."""
        self._compressing = os.fork()
        if self._compressing == 0:
            try:
                compress_file(path)
            finally:
                os._exit(0)

    def _reap_compressor(self) -> None:
        if self._compressing:
            pid, self._compressing = self._compressing, 0
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass

    def rotated(self) -> Iterator[str]:
        for number in range(self._plan.max_files - 1, 0, -1):
            for suffix in ("", ".gz"):
                if os.path.exists(f"{self._plan.path}.{number}{suffix}"):
                    yield f"{self._plan.path}.{number}{suffix}"
                    break
        yield self._plan.path


class JsonFileLog(FileLog):
    """Docker's json-file."""

    def __init__(self, plan: LogPlan) -> None:
        self._attributes = ""
        if plan.extra:
            pairs = ",".join(f"{encode_basestring(key)}:{encode_basestring(plan.extra[key])}" for key in plan.extra)
            self._attributes = f',"attrs":{{{pairs}}}'
        super().__init__(plan)

    def _encode(self, stream: int, data: bytes) -> bytes:
        return json_lines(stream, data, self._attributes, time.time_ns())

    def record(self, line: bytes) -> tuple[int, bytes] | None:
        try:
            record = json.loads(line)
            return _STREAM_NUMBERS[record["stream"]], record["log"].encode("utf-8", "surrogateescape")
        except (ValueError, KeyError):
            return None


class LocalLog(FileLog):
    """The compact format: output byte for byte, less to write and to read than JSON."""

    def _encode(self, stream: int, data: bytes) -> bytes:
        return compact_lines(stream, data, time.time_ns())

    def record(self, line: bytes) -> tuple[int, bytes] | None:
        head, space, data = line.partition(b" ")
        if not space or head[:1] not in (b"1", b"2", b"3", b"4"):
            return None
        number = int(head[:1])
        return (number - _PART, data.removesuffix(b"\n")) if number > _PART else (number, data)


def open_segment(path: str) -> BinaryIO:
    """One file of a log, packed or not."""
    if path.endswith(".gz"):
        import gzip  # seldom wanted, and the launcher's memory is every keeper's

        return cast(BinaryIO, gzip.open(path, "rb"))
    return open(path, "rb")


def compress_file(path: str) -> None:
    """Replace ``path`` by ``path``.gz; OSError leaves it as it is.

    The header's extra field "In" (RFC 1952) holds the inode that was packed: a reader that has the old file open finds
    its place in the log by it.
    """
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    partial = f"{path}.gz.tmp"
    try:
        with open(path, "rb") as source, open(partial, "wb") as target:
            target.write(_GZIP_HEAD + struct.pack("<H2sHQ", 12, b"In", 8, os.fstat(source.fileno()).st_ino))
            checksum = size = 0
            while block := source.read(1 << 18):
                checksum, size = zlib.crc32(block, checksum), size + len(block)
                target.write(packer.compress(block))
            target.write(packer.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))
        os.rename(partial, f"{path}.gz")
    except OSError:
        os.unlink(partial)  # the disk is full: the file stays as it is
        raise
    os.unlink(path)


def _rename_if_there(old: str, new: str) -> None:
    try:
        os.rename(old, new)
    except FileNotFoundError:
        pass
