"""The other end of a channel, played by a test: a keeper or launcher that says what the test wants."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from typing import Any

from enisle.wire import frames

Message = dict[str, Any]


class Peer:
    """Owns one end of a socket pair; ``ours`` is the end for the code under test."""

    def __init__(self) -> None:
        self.ours, self._sock = socket.socketpair()
        self._decoder = frames.Decoder()
        self._messages: deque[Message] = deque()
        self.fds: list[int] = []

    async def receive(self) -> Message:
        """The next message; its descriptors are added to ``fds``."""
        while not self._messages:
            data, fds = await asyncio.to_thread(frames.receive, self._sock)
            self.fds += fds
            if not data:
                raise EOFError
            self._messages.extend(self._decoder.feed(data))
        return self._messages.popleft()

    async def expect(self, op: str) -> Message:
        """The next message, which must be that request."""
        message = await self.receive()
        assert message["op"] == op, message
        return message

    async def send(self, message: Message) -> None:
        await asyncio.to_thread(frames.send, self._sock, message)

    async def answer(self, request: Message, **fields: Any) -> None:
        await self.send({"id": request["id"], "ok": fields})

    async def fail(self, request: Message, kind: str, text: str, exit_code: int = 0) -> None:
        await self.send({"id": request["id"], "error": {"kind": kind, "message": text, "exit_code": exit_code}})

    def raw(self, data: bytes) -> None:
        self._sock.sendall(data)

    def close(self) -> None:
        self._sock.close()
        self.close_fds()

    def close_fds(self) -> None:
        """Close the descriptors received so far."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
