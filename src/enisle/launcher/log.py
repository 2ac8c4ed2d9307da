"""The log of an instance: Docker's json-file lines, rotated by size.

A line that is not finished waits for its end, up to MAX_PARTIAL_BYTES; then it is written without a newline, as
Docker does. Text that is no UTF-8 becomes U+FFFD. The lines of one read share one time stamp. A full disk loses lines,
never blocks the workload, and never leaves half a line in the file.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator
from json.encoder import encode_basestring

from enisle.wire.plans import LogPlan

MAX_PARTIAL_BYTES = 16 << 10
STREAM_NAMES = {1: "stdout", 2: "stderr"}
_MARK = "\ud800"  # stands for a newline while text is escaped: a decoder never yields a lone surrogate


def timestamp(now_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def json_lines(stream: int, data: bytes, attributes: str, now_ns: int) -> bytes:
    """The json-file lines of whole lines of output (the last one may lack its newline)."""
    tail = f'","stream":"{STREAM_NAMES[stream]}"{attributes},"time":"{timestamp(now_ns)}"}}\n'
    ended = data.endswith(b"\n")
    text = (data[:-1] if ended else data).decode("utf-8", "replace").replace("\n", _MARK)
    body: str = encode_basestring(text)[1:-1].replace(_MARK, f'\\n{tail}{{"log":"')
    return f'{{"log":"{body}{chr(92) + "n" if ended else ""}{tail}'.encode()


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


class JsonFileLog:
    """Writes one instance's log. ``error`` is the last reason for lost lines, "" if none were."""

    def __init__(self, plan: LogPlan) -> None:
        self._plan = plan
        self._attributes = ""
        if plan.extra:
            pairs = ",".join(f"{encode_basestring(key)}:{encode_basestring(plan.extra[key])}" for key in plan.extra)
            self._attributes = f',"attrs":{{{pairs}}}'
        self._partial: dict[int, bytes] = {}
        self._compressing = 0
        self.error = ""
        self._open()

    @property
    def path(self) -> str:
        """The file written now."""
        return self._plan.path

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._plan.path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

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
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._reap_compressor()

    def _emit(self, stream: int, data: bytes) -> None:
        now = time.time_ns()
        lines = json_lines(stream, data, self._attributes, now)
        limit = self._plan.max_bytes
        if limit <= 0 or self._size + len(lines) <= limit:
            self._append(lines)
            return
        for line in lines.splitlines(keepends=True):
            if self._size >= limit:
                self._rotate()
            self._append(line)

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
        """All files of this log that are there, oldest first, the one written now last; packed ones left out."""
        for number in range(self._plan.max_files - 1, 0, -1):
            if os.path.exists(f"{self._plan.path}.{number}"):
                yield f"{self._plan.path}.{number}"
        yield self._plan.path


def compress_file(path: str) -> None:
    """Replace ``path`` by ``path``.gz."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    with open(path, "rb") as source, open(f"{path}.gz.tmp", "wb") as target:
        while block := source.read(1 << 18):
            target.write(packer.compress(block))
        target.write(packer.flush())
    os.rename(f"{path}.gz.tmp", f"{path}.gz")
    os.unlink(path)


def _rename_if_there(old: str, new: str) -> None:
    try:
        os.rename(old, new)
    except FileNotFoundError:
        pass
