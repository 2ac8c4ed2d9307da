"""The program of a worker process: takes layer jobs, one at a time, from the socket it inherited.

A line of JSON each way: {"job": {...}, "source": path, "follow": bool} comes in; {"read": bytes} now and then and at
last {"ok": {...}} or {"error": [kind, message]} go out. With ``follow`` the source is a file that still grows, until
the line {"end": true}. Without a path the layer comes through the pipe that was inherited, too: frames of a length
(four bytes) and as many bytes; a length of 0 is the end. After an error the process ends, because its reading thread
may be stuck, and so that the pipe breaks.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import select
import signal
import socket
import time
from typing import Any

from enisle.errors import EnisleError, Exhausted, Kind
from enisle.images.layer_job import LayerJob, run
from enisle.linux.syscalls import PR_SET_PDEATHSIG, prctl

FRAME_HEAD_BYTES = 4
_POLL_S = 0.01  # how soon a growing source is looked at again
_REPORT_S = 0.1


class _Control:
    """The socket to the parent, read line by line: several lines may arrive at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def receive(self) -> dict[str, Any] | None:
        """The next line's message; None when the parent is gone."""
        while (end := self._buffer.find(b"\n")) < 0:
            piece = self._connection.recv(1 << 16)
            if not piece:
                return None
            self._buffer += piece
        message: dict[str, Any] = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        return message

    def waits(self, timeout_s: float) -> bool:
        """Whether there is something to receive, now or within that time."""
        return bool(self._buffer) or bool(select.select([self._connection], [], [], timeout_s)[0])

    def send(self, message: dict[str, Any]) -> None:
        """Send one line."""
        self._connection.sendall(json.dumps(message).encode() + b"\n")


class _Growing:
    """A file that somebody else is writing; its end is the end only after a line on the socket says so."""

    def __init__(self, path: str, control: _Control, *, follow: bool) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._control = control
        self._ended = not follow

    def read(self, size: int, /) -> bytes:
        while True:
            ended = self._ended
            if piece := os.read(self._fd, size):
                return piece
            if ended:
                return b""
            if self._control.waits(_POLL_S):
                if self._control.receive() is None:
                    os._exit(1)
                self._ended = True

    def close(self) -> None:
        os.close(self._fd)


class _Fed:
    """The frames of one layer on the pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._left = 0  # of the current frame
        self._ended = False

    def read(self, size: int, /) -> bytes:
        if not self._left and not self._ended:
            self._left = int.from_bytes(self._some(FRAME_HEAD_BYTES), "big")
            self._ended = not self._left
        if self._ended:
            return b""
        piece = self._some(min(size, self._left))
        self._left -= len(piece)
        return piece

    def _some(self, size: int) -> bytes:
        """At least one byte; a head is written at once, and so never comes in two parts."""
        piece = os.read(self._pipe, size)
        if not piece:
            os._exit(1)
        return piece

    def close(self) -> None:
        """Nothing: the pipe is for the next layer, too."""


def main(fd: int, pipe: int) -> None:
    """Serve jobs until the other side closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c in a terminal is for the daemon, which will end us
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    control = _Control(socket.socket(fileno=fd))
    while request := control.receive():
        try:
            result = _serve(request, control, pipe)
        except Exception as error:  # goes to the parent, whatever it is
            control.send({"error": explain(error)})
            os._exit(1)
        control.send({"ok": result})


def _serve(request: dict[str, Any], control: _Control, pipe: int) -> dict[str, Any]:
    reported = time.monotonic()

    def on_read(size: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= _REPORT_S:
            reported = now
            control.send({"read": size})

    path = request["source"]
    source = _Growing(path, control, follow=request["follow"]) if path else _Fed(pipe)
    try:
        return dataclasses.asdict(run(LayerJob(**request["job"]), source, on_read))
    finally:
        source.close()


def explain(error: Exception) -> tuple[str, str]:
    """Kind and message of a failure, for the wire."""
    if isinstance(error, EnisleError):
        return error.kind.value, str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        full = Exhausted(
            "the image store is full: no space left on device.", remedy="Remove images or enlarge the disk."
        )
        return full.kind.value, str(full)
    return Kind.INTERNAL.value, f"unpacking a layer failed: {type(error).__name__}: {error}"
