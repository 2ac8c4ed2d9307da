"""The messages of HTTP/1.1 connections as a bystander sees them: bytes in, heads and bodies out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

KEEP_BYTES = 32 << 20  # of one body; what is longer is not looked at
_NO_BODY = frozenset({204, 304})


@dataclass
class Message:
    """``start`` is the request or status line. ``body`` is None when it was too long to keep."""

    start: str
    headers: dict[str, str]
    body: bytearray | None = field(default_factory=bytearray)
    whole: bool = False

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def add(self, data: bytes) -> None:
        if self.body is not None:
            self.body += data
            if len(self.body) > KEEP_BYTES:
                self.body = None


def parse_head(data: bytes) -> Message:
    """Lenient: what is malformed is for the engine to refuse."""
    lines = data.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return Message(lines[0], headers)


class Reader:
    """One direction of a connection. ``opened`` gets each head and says how its body is delimited: a length, -1 for
    chunks, None for all that follows. ``closed`` gets each message when it is over. Raises ValueError for what is no
    HTTP: the caller stops listening."""

    def __init__(self, opened: Callable[[Message], int | None], closed: Callable[[Message], None]) -> None:
        self._opened, self._closed = opened, closed
        self._buffer = bytearray()
        self._message: Message | None = None
        self._left: int | None = 0  # of the body, or of the present chunk with its line end
        self._chunked = False

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def end(self) -> None:
        """The connection is over: so is a body that only this delimits; another one is cut off."""
        if self._message is not None:
            message, self._message = self._message, None
            message.whole = self._left is None
            self._closed(message)

    def _step(self) -> bool:
        """Whether there may be more to do."""
        if self._message is None:
            return self._head()
        if self._chunked:
            return self._chunk()
        if self._left is None:
            self._message.add(bytes(self._buffer))
            self._buffer.clear()
            return False
        self._take_body()
        if self._left == 0:
            self._finish()
        return bool(self._buffer)

    def _head(self) -> bool:
        while self._buffer[:2] == b"\r\n":
            del self._buffer[:2]
        head, separator, _ = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            if len(self._buffer) > 1 << 20:
                raise ValueError("no head")
            return False
        del self._buffer[: len(head) + 4]
        message = parse_head(bytes(head))
        length = self._opened(message)
        self._message = message
        self._chunked, self._left = length == -1, 0 if length == -1 else length
        if length == 0:
            self._finish()
        return True

    def _take_body(self) -> None:
        assert self._message is not None
        assert self._left is not None
        taken = bytes(self._buffer[: self._left])
        del self._buffer[: len(taken)]
        self._message.add(taken)
        self._left -= len(taken)

    def _chunk(self) -> bool:
        assert self._left is not None
        if self._left > 2:
            taken = bytes(self._buffer[: self._left - 2])
            assert self._message is not None
            self._message.add(taken)
            del self._buffer[: len(taken)]
            self._left -= len(taken)
        if self._left:
            if len(self._buffer) < 2 or self._left > 2:
                return False
            del self._buffer[:2]
            self._left = 0
        line, separator, _ = self._buffer.partition(b"\r\n")
        if not separator:
            return False
        size = int(line.partition(b";")[0], 16)
        if size:
            del self._buffer[: len(line) + 2]
            self._left = size + 2
            return True
        if not re.match(rb"0[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n", self._buffer):
            return False
        del self._buffer[: self._buffer.index(b"\r\n\r\n") + 4]
        self._finish()
        return True

    def _finish(self) -> None:
        message, self._message, self._chunked = self._message, None, False
        assert message is not None
        message.whole = True
        self._closed(message)


def request_length(request: Message) -> int:
    """How a request's body is delimited, as ``Reader`` wants to know it."""
    if "chunked" in request.headers.get("transfer-encoding", "").lower():
        return -1
    return int(request.headers.get("content-length") or 0)


def answer_length(answer: Message, method: str) -> int | None:
    """The same for an answer to that method."""
    if method == "HEAD" or answer.status in _NO_BODY or answer.status < 200:
        return 0
    if "chunked" in answer.headers.get("transfer-encoding", "").lower():
        return -1
    length = answer.headers.get("content-length")
    return int(length) if length else None
