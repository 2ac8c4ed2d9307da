"""What a RUN prints, from its keeper to the build's log."""

from __future__ import annotations

import asyncio
import codecs
import socket
import struct
from typing import Protocol

_READ_BYTES = 64 << 10
_HEADER = struct.Struct(">BxxxI")  # Docker's frames: stream, length
_STDERR = 2


class Say(Protocol):
    """Takes text."""

    def __call__(self, text: str, *, stderr: bool) -> None: ...


class Output:
    """Takes Docker's frames in pieces of any size; gives ``say`` their text, and whether it came from stderr.

    Bytes that are no UTF-8 are replaced.
    """

    def __init__(self, say: Say) -> None:
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
            self._say(text, stderr=stream == _STDERR)


async def pump(source: socket.socket, say: Say) -> None:
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
