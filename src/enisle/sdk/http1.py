"""HTTP/1.1 as bytes, without I/O: what both clients share.

Our own few lines rather than aiohttp or http.client because a command line pays for its imports on every call
(medians on the development machine above an empty interpreter's 12 ms: aiohttp 200 ms, asyncio 45 ms, http.client
30 ms, this module below 1 ms), and because attach needs the bare connection after the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from enisle.errors import Unavailable

MAX_HEAD_BYTES = 256 << 10
LAST_CHUNK = b"0\r\n\r\n"
_HEAD_END = b"\r\n\r\n"


class Head(NamedTuple):
    """Status line and headers of a response; header names in lower case."""

    status: int
    reason: str
    headers: dict[str, str]


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The first bytes of a request, up to its body. Raises ValueError for text that would break out of its line."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("line break in a request header")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def chunk(piece: bytes) -> bytes:
    """A piece of a body in the chunked coding; never empty, for that is the end."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def split_head(data: bytes) -> tuple[Head, bytes] | None:
    """The head and what follows it; None while it is incomplete. Raises Unavailable when it is not HTTP."""
    end = data.find(_HEAD_END)
    if end < 0:
        if len(data) > MAX_HEAD_BYTES:
            raise Unavailable("The server's answer is not HTTP: no end of headers.")
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise Unavailable(f"The server's answer is not HTTP: {first[:80]!r}.")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Head(int(parts[1]), parts[2] if len(parts) > 2 else "", headers), data[end + len(_HEAD_END) :]


class BodyDecoder:
    """Takes a response body out of its transfer coding, however the bytes were cut up.

    ``done`` becomes True at the end of the body; ``rest`` holds bytes received after it. A body with neither a length
    nor chunks ends with the connection (``end``).
    """

    def __init__(self, head: Head, *, method: str) -> None:
        self.done = False
        self.rest = b""
        self._chunked = "chunked" in head.headers.get("transfer-encoding", "").lower()
        self._left: int | None = None  # bytes left of the body or the chunk; None: until the connection ends
        self._buffer = b""
        self._after_chunk = False  # the line break that ends a chunk is next
        self._trailer = False
        if self._chunked:
            self._left = 0
        elif "content-length" in head.headers:
            self._left = _length(head.headers["content-length"], base=10)
        if (
            method == "HEAD"
            or head.status in (204, 304)
            or head.status < 200
            or (not self._chunked and self._left == 0)
        ):
            self.done = True

    def feed(self, data: bytes) -> bytes:
        """The payload bytes that ``data`` completes."""
        if self.done:
            self.rest += data
            return b""
        if self._chunked:
            return self._feed_chunked(data)
        if self._left is None:
            return data
        taken = data[: self._left]
        self._left -= len(taken)
        if self._left == 0:
            self.done = True
            self.rest = data[len(taken) :]
        return taken

    def end(self) -> None:
        """The connection has ended. Raises Unavailable when the body had not."""
        if not self.done and self._left is not None:
            raise Unavailable("The connection ended in the middle of an answer.")
        self.done = True

    def _feed_chunked(self, data: bytes) -> bytes:
        self._buffer += data
        out = []
        while not self.done:
            if self._left:
                piece = self._buffer[: self._left]
                if not piece:
                    break
                out.append(piece)
                self._left -= len(piece)
                self._buffer = self._buffer[len(piece) :]
                self._after_chunk = self._left == 0
                continue
            if not self._take_line():
                break
        return b"".join(out)

    def _take_line(self) -> bool:
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise Unavailable("The server's answer has an endless chunk header.")
            return False
        self._buffer = rest
        if self._after_chunk:
            self._after_chunk = False
        elif self._trailer:
            if not line:
                self.done = True
                self.rest, self._buffer = self._buffer, b""
        else:
            self._left = _length(line.split(b";")[0].decode("latin-1"), base=16)
            self._trailer = self._left == 0
        return True


def _length(text: str, *, base: int) -> int:
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if value < 0:
        raise Unavailable(f"The server's answer has a broken length: {text[:40]!r}.")
    return value
