"""Docker's stream framing: output and error output of a process without a terminal, on one connection."""

from __future__ import annotations

from collections.abc import Iterator

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
