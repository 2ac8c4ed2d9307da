"""What bodies that do not end are made of: Docker's framed streams of a process, and JSON objects."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from enisle.errors import Unavailable

STDIN, STDOUT, STDERR = 0, 1, 2
_HEADER_BYTES = 8


class FrameDecoder:
    """Turns received bytes into (stream, data), passing data on before its frame is complete.

    A frame is one byte of stream number, three zero bytes, a 4-byte big-endian length, and the data.
    """

    def __init__(self) -> None:
        self._header = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Raises ValueError when the bytes are no frames; the connection is of no more use then."""
        while data:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                yield self._stream, piece
                continue
            missing = _HEADER_BYTES - len(self._header)
            self._header, data = self._header + data[:missing], data[missing:]
            if len(self._header) == _HEADER_BYTES:
                if self._header[0] > 3 or self._header[1:4] != b"\0\0\0":
                    raise ValueError(f"unrecognised stream header {self._header!r}")
                self._stream = self._header[0]
                self._left = int.from_bytes(self._header[4:], "big")
                self._header = b""


class ObjectDecoder:
    """Turns received bytes into JSON objects, however they were cut up and whether line breaks part them or not."""

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The objects that ``data`` completes."""
        self._text += self._utf8.decode(data)
        # Docker's stats come without line breaks: an object may have ended wherever a brace closes.
        if b"\n" in data or data.endswith(b"}"):
            yield from self._whole()

    def end(self) -> Iterator[dict[str, Any]]:
        """What is left at the end of the body. Raises Unavailable when that is no object."""
        yield from self._whole()
        if rest := self._text.strip():
            raise Unavailable(f"The server's answer is not JSON: {rest[:80]!r}.")

    def _whole(self) -> Iterator[dict[str, Any]]:
        text, position = self._text, 0
        while True:
            while position < len(text) and text[position] in " \t\r\n":
                position += 1
            try:
                value, position = self._decoder.raw_decode(text, position)
            except ValueError:
                break
            yield value
        self._text = text[position:]
