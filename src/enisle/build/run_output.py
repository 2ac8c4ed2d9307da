"""What a RUN prints, from its keeper to the build's log."""

from __future__ import annotations

import asyncio
import codecs
import socket
import struct
from collections.abc import Callable

_READ_BYTES = 64 << 10
_HEADER = struct.Struct(">BxxxI")  # Docker's frames: stream, length
_STDERR = 2
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"  # what dockerd puts around stderr


class Output:
    """Takes Docker's frames in pieces of any size; gives ``say`` their text, what came from stderr in red.

    Bytes that are no UTF-8 are replaced.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._pending = bytearray()
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in range(_STDERR + 1)}

    def feed(self, data: bytes) -> None:
        self._pending += data
        start = 0
        while len(self._pending) - start >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._pending, start)
            end = start + _HEADER.size + length
            if len(self._pending) < end:
                break
            self._tell(stream, bytes(self._pending[start + _HEADER.size : end]))
            start = end
        del self._pending[:start]

    def end(self) -> None:
        """Tell what is left of characters that were cut off."""
        for stream in self._decoders:
            self._tell(stream, b"", final=True)

    def _tell(self, stream: int, data: bytes, *, final: bool = False) -> None:
        if text := self._decoders[stream].decode(data, final):
            self._say(f"{_RED}{text}{_PLAIN}" if stream == _STDERR else text)


async def pump(source: socket.socket, say: Callable[[str], None]) -> None:
    """Pass on text until the other side has closed."""
    loop = asyncio.get_running_loop()
    output = Output(say)
    while True:
        try:
            data = await loop.sock_recv(source, _READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            output.end()
            return
        output.feed(data)
