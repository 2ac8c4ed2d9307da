"""Framing between our processes: a 4-byte big-endian length, then one JSON object.

Descriptors travel with the first byte of the frame they belong to (SCM_RIGHTS); a frame names how many it carries in
``"fds"``. Both blocking (launcher, keeper) and asyncio (enisled) ends use :class:`Decoder`.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

MAX_FRAME_BYTES = 16 << 20
MAX_FDS = 64
_LENGTH = struct.Struct(">I")

Message = dict[str, Any]

_to_text = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class ProtocolError(Exception):
    """The peer sent what is no frame; the connection is of no more use."""


def encode(message: Message) -> bytes:
    """The frame of one message. Raises ProtocolError when it is longer than MAX_FRAME_BYTES."""
    return pack(_to_text(message).encode("utf-8", "surrogateescape"))


def pack(body: bytes) -> bytes:
    """The frame of a message that is JSON already. ProtocolError as for ``encode``."""
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Turns received bytes into messages, however they were cut up."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def rest(self) -> bytes:
        """Bytes received after the last whole frame."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """Take in bytes; return the messages they complete. Raises ProtocolError on an impossible frame."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            try:
                message = json.loads(self._buffer[_LENGTH.size : end].decode("utf-8", "surrogateescape"))
            except ValueError as error:
                raise ProtocolError(f"a frame holds no JSON: {error}") from error
            if not isinstance(message, dict):
                raise ProtocolError("a frame holds JSON, but no object")
            messages.append(message)
            del self._buffer[:end]
        return messages


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one frame on a blocking socket, with descriptors; the caller keeps its own copies of them."""
    data = encode(message)
    sent = 0
    if fds:
        sent = socket.send_fds(sock, [data[:65536]], list(fds))
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


def receive(sock: socket.socket, size: int = 65536) -> tuple[bytes, list[int]]:
    """Receive bytes and descriptors (close-on-exec). Empty bytes mean that the peer is gone."""
    data, ancillary, _flags, _address = sock.recvmsg(
        size, socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
            fds.extend(numbers)
    return data, fds


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody wants; errors do not matter here."""
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass
