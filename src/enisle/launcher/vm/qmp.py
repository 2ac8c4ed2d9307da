"""QEMU's monitor (QMP): requests, answers and events over a socket, never waiting for any of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.launcher.wall import Loop

_MAX_LINE_BYTES = 1 << 20

Done = Callable[[dict[str, Any]], None]
"""Takes the answer: {"return": ...} or {"error": {"class", "desc"}}."""


class Qmp:
    """One monitor. A QEMU that was taken over could say anything here: it is bounded, and at worst ignored."""

    def __init__(self, loop: Loop, sock: socket.socket, on_event: Callable[[str, dict[str, Any]], None]) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_event = on_event
        self._received = bytearray()
        self._outgoing: list[tuple[bytes, list[int]]] = []
        self._waiting: dict[int, Done] = {}
        self._next_id = 0
        self._closed = False
        loop.add_reader(sock.fileno(), self._readable)
        self.execute("qmp_capabilities", lambda _answer: None)

    def execute(self, command: str, done: Done, *, fds: Sequence[int] = (), **arguments: Any) -> None:
        """Send a command; ``fds`` stay the caller's until ``done``."""
        if self._closed:
            done({"error": {"class": "Closed", "desc": "the virtual machine has ended"}})
            return
        self._next_id += 1
        self._waiting[self._next_id] = done
        message: dict[str, Any] = {"execute": command, "id": self._next_id}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._outgoing.append((json.dumps(message).encode() + b"\n", list(fds)))
        self._writable()

    def _writable(self) -> None:
        while self._outgoing:
            data, fds = self._outgoing[0]
            try:
                sent = socket.send_fds(self._sock, [data], fds) if fds else self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._writable)
                return
            except OSError:
                self.close()
                return
            if sent < len(data):
                self._outgoing[0] = (data[sent:], [])
            else:
                del self._outgoing[0]
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            data = self._sock.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._received += data
        if len(self._received) > _MAX_LINE_BYTES:
            self.close()
            return
        *lines, rest = self._received.split(b"\n")
        self._received = bytearray(rest)
        for line in lines:
            self._take(bytes(line))

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict):
            return
        if isinstance(message.get("event"), str):
            details = message.get("data")
            self._on_event(message["event"], details if isinstance(details, dict) else {})
        elif isinstance(message.get("id"), int):
            done = self._waiting.pop(message["id"], None)
            if done is not None:
                done(message)

    def close(self) -> None:
        """Let go of the monitor; whoever waits gets an error. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done({"error": {"class": "Closed", "desc": "the virtual machine has ended"}})


def failure(answer: dict[str, Any]) -> str:
    """What went wrong, cut to a sensible length; "" when nothing did."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return ""
    return str(error.get("desc") or "QEMU refused")[:300]
