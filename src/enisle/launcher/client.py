"""One attached client: its connection, what it has still to get, the keys that let go.

A client that is gone is dropped. One that is merely slow keeps at most HIGH_BYTES in memory; then the workload waits,
as on a full pipe.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop

HIGH_BYTES = 256 << 10
LOW_BYTES = 64 << 10
DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p ctrl-q
_HEADER = struct.Struct(">BxxxI")
_READ_BYTES = 64 << 10
_PIECES = 64  # of the queue in one call; the kernel takes 1024


class DetachKeys:
    """Finds the detach sequence in input, even in pieces. ``feed`` returns what goes on, and whether it was found."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Bytes that may begin the sequence are held back until it is clear."""
        if not self._keys or (not self._matched and self._keys[0] not in data):
            return data, False
        out = bytearray()
        for value in data:
            if value == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(out), True
                continue
            out += self._keys[: self._matched]
            self._matched = 0
            if value == self._keys[0]:
                self._matched = 1
            else:
                out.append(value)
        return bytes(out), False


@dataclass(slots=True, kw_only=True)
class ClientOptions:
    """What a client wants of a session; ``initial`` are bytes that were read from it before we got it."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    framed: bool = False
    logs: bool = False
    detach_keys: bytes = b""
    initial: bytes = b""


class Client:
    """A client's connection, which it owns. The callbacks are the session's (see stdio.Stdio)."""

    def __init__(self, loop: EpollLoop, fd: int, options: ClientOptions) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self.options = options
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._ending = False
        self._input_over = not options.stdin
        self.reading = False
        self.replaying = False
        self.detach: DetachKeys | None = None
        self.on_input: Callable[[Client, bytes], None] = lambda _client, _data: None
        self.on_input_end: Callable[[Client], None] = lambda _client: None
        self.on_detach: Callable[[Client], None] = lambda _client: None
        self.on_drained: Callable[[Client], None] = lambda _client: None
        self.on_gone: Callable[[Client], None] = lambda _client: None
        loop.add_hangup(fd, self.drop)

    @property
    def open(self) -> bool:
        """Whether the connection is there."""
        return self._fd >= 0

    @property
    def full(self) -> bool:
        """Whether it has more to get than it should."""
        return self._queued > HIGH_BYTES

    # --- output ----------------------------------------------------------------------------------------------------

    def wants(self, stream: int) -> bool:
        """Whether it asked for stdout (1) or stderr (2)."""
        return self.options.stdout if stream == 1 else self.options.stderr

    def send(self, stream: int, data: bytes) -> None:
        """Queue output, with Docker's header if it wants that."""
        if self._fd < 0 or not data or not self.wants(stream):
            return
        idle = not self._queue
        if self.options.framed:
            self._queue.append(_HEADER.pack(stream, len(data)))
            self._queued += _HEADER.size
        self._queue.append(data)
        self._queued += len(data)
        if idle:
            self._flush()

    def end(self) -> None:
        """Close once everything queued has been taken."""
        self._ending = True
        self._stop_reading()
        if self._fd >= 0 and not self._queue:
            self.drop()

    def drop(self) -> None:
        """Close now. Idempotent."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        self._loop.remove(fd)
        os.close(fd)
        self._queue.clear()
        self._queued = 0
        self.on_gone(self)

    def _flush(self) -> None:
        try:
            while self._queue:
                sent = os.writev(self._fd, list(islice(self._queue, _PIECES)))
                self._queued -= sent
                while self._queue and sent >= len(self._queue[0]):
                    sent -= len(self._queue.popleft())
                if sent:
                    self._queue[0] = memoryview(self._queue[0])[sent:]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._fd, self._writable)
            return
        except OSError:
            self.drop()
            return
        self._loop.remove_writer(self._fd)
        if self._ending:
            self.drop()

    def _writable(self) -> None:
        self._flush()
        if self._fd >= 0 and self._queued <= LOW_BYTES:
            self.on_drained(self)

    # --- input -----------------------------------------------------------------------------------------------------

    def start_reading(self) -> None:
        """Take input from now on."""
        if self._fd < 0 or self._input_over or self.reading:
            return
        self.reading = True
        if self.options.initial:
            data, self.options.initial = self.options.initial, b""
            self._take(data)
        if self._fd >= 0 and self.reading:
            self._loop.add_reader(self._fd, self._readable)

    def _stop_reading(self) -> None:
        self.reading = False
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def pause_reading(self) -> None:
        """Take no input until ``start_reading``."""
        self._stop_reading()

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.drop()
            return
        if data:
            self._take(data)
            return
        self._input_over = True
        self._stop_reading()
        self.on_input_end(self)

    def _take(self, data: bytes) -> None:
        if self.detach is None:
            self.on_input(self, data)
            return
        data, detached = self.detach.feed(data)
        if data:
            self.on_input(self, data)
        if detached:
            self.on_detach(self)
