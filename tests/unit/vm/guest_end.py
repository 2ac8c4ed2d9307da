"""The guest's end of an agent channel, played by a test, and a loop to run the keeper's end with."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from enisle.launcher.loop import EpollLoop
from enisle.launcher.vm.agent import Agent
from enisle.launcher.vm.protocol import Failure
from enisle.launcher.wall import Session, WallError

HEADER = struct.Struct("<IHBB")


@dataclass
class Channel:
    """Both ends of a channel. ``told``: what the wall was told (hello, ready, oom, fault)."""

    loop: EpollLoop = field(default_factory=EpollLoop)
    told: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        ours, self.guest = socket.socketpair()
        self.guest.settimeout(5)
        self.agent = Agent(
            self.loop,
            ours,
            on_hello=lambda generation: self.told.append(("hello", generation)),
            on_ready=lambda failure: self.told.append(("ready", failure)),
            on_oom=lambda: self.told.append("oom"),
            on_fault=lambda reason: self.told.append(("fault", reason)),
        )

    def say(self, kind: int, channel: int = 0, body: bytes = b"", stream: int = 0) -> None:
        """Send one frame as the guest, and let the keeper take it."""
        self.guest.sendall(HEADER.pack(len(body), channel, kind, stream) + body)
        self.run()

    def run(self) -> None:
        """Let the keeper's loop handle what is there now."""
        self.run_until(lambda: False, idle_s=0.02)

    def run_until(self, condition: Callable[[], bool], *, idle_s: float = 5.0) -> None:
        deadline = time.monotonic() + idle_s
        self.loop.call_later(idle_s + 0.002, lambda: None)  # not before the deadline: nothing else may wake the loop
        while not condition() and time.monotonic() < deadline:
            self.loop.run_once()

    def hear(self) -> tuple[int, int, bytes]:
        """The next frame the keeper sent: type, channel, body."""
        length, channel, kind, _ = HEADER.unpack(self._exactly(HEADER.size))
        return kind, channel, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not select.select([self.guest], [], [], 0)[0]:
                self.run()  # the keeper may have more to send than the socket holds
            piece = self.guest.recv(size - len(data))
            assert piece, "the keeper closed the channel"
            data += piece
        return data


class Events:
    """What the keeper's core would hear of a session, and what became of its start."""

    def __init__(self) -> None:
        self.output = b""
        self.errors = b""
        self.closed = False
        self.exit_code: int | None = None
        self.drained = 0
        self.result: Session | WallError | None = None

    def done(self, result: Session | WallError) -> None:
        assert self.result is None
        self.result = result

    def on_output(self, stream: int, data: bytes) -> None:
        if stream == 1:
            self.output += data
        else:
            self.errors += data

    def on_output_closed(self) -> None:
        assert not self.closed
        self.closed = True

    def on_exit(self, exit_code: int) -> None:
        assert self.exit_code is None
        self.exit_code = exit_code

    def on_stdin_drained(self) -> None:
        self.drained += 1


__all__ = ["Channel", "Events", "Failure"]
