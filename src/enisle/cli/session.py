"""A session with a workload: its streams on one connection, ours on descriptors 0, 1 and 2."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum

from enisle.cli import terminal
from enisle.cli.command import Failed, warn, write
from enisle.cli.signals import FORWARDED, Signals
from enisle.errors import EnisleError
from enisle.sdk.client import Exchange
from enisle.sdk.framing import STDERR, FrameDecoder

_READ_BYTES = 64 << 10
_QUEUE_BYTES = 1 << 20  # input read ahead of the workload, at most
_INSISTENT = 3  # that many Ctrl-C end us even if the workload does not react

Resize = Callable[[int, int], object]
Kill = Callable[[str], object]


class End(Enum):
    """Why a session ended."""

    CLOSED = "closed"
    DETACHED = "detached"


class Session:
    """Carries bytes both ways, passes window sizes and signals on. Use as a context manager around the start.

    ``tty``: the workload has a terminal, so its output is not framed, and ours becomes raw if we read from it.
    ``kill`` None: signals are left to do to us what they do.
    """

    def __init__(
        self, *, tty: bool, stdin: bool, detach_keys: str = "", resize: Resize | None = None, kill: Kill | None = None
    ) -> None:
        self._tty = tty
        self._stdin = stdin
        self._keys = terminal.DetachKeys(terminal.parse_keys(detach_keys or terminal.DEFAULT_DETACH_KEYS))
        self._resize = resize if tty else None
        self._kill = kill
        watched = [*(FORWARDED if kill else ()), *([signal.SIGWINCH] if self._resize else [])]
        self._signals = Signals(watched)
        self._interrupts = 0
        self._stack = ExitStack()

    def __enter__(self) -> Session:
        self._stack.enter_context(self._signals)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def fit(self) -> None:
        """Tell the workload's terminal the size of ours."""
        size = terminal.size()
        if self._resize is None or size is None:
            return
        try:
            self._resize(*size)
        except EnisleError:
            # It has ended meanwhile, or not begun: its end, or the next change of size, tells more.
            return

    def pump(self, connection: socket.socket, first: bytes) -> End:
        """Carry bytes until the workload closes its side, or the user detaches. Closes the connection."""
        with ExitStack() as stack:
            stack.enter_context(connection)
            if self._tty and self._stdin and os.isatty(0):
                stack.enter_context(terminal.raw_mode(0))
            pump = _Pump(connection, self._keys if self._tty else None, framed=not self._tty, stdin=self._stdin)
            pump.show(first)
            while not pump.ended:
                pump.step(self._signals, self._on_signals)
            return pump.ended

    def await_answer(self, exchange: Exchange) -> None:
        """Wait until an answer comes (of ``wait``), still passing signals on."""
        poll = select.poll()
        poll.register(exchange.fileno(), select.POLLIN)
        poll.register(self._signals.fileno(), select.POLLIN)
        while not exchange.ready:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._signals.fileno() in ready:
                self._on_signals(self._signals.take())
            if exchange.fileno() in ready:
                return

    def _on_signals(self, numbers: list[int]) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                self.fit()
                continue
            if number in (signal.SIGINT, signal.SIGTERM):
                self._interrupts += 1
                if self._interrupts > _INSISTENT:
                    warn("enisle: interrupted again: leaving the workload to itself.")
                    raise Failed(128 + number)
            if self._kill is not None:
                try:
                    self._kill(signal.Signals(number).name.removeprefix("SIG"))
                except EnisleError:
                    # It has just ended, which the connection is about to tell.
                    continue


class _Pump:
    """The state of one connection being served."""

    def __init__(
        self, connection: socket.socket, keys: terminal.DetachKeys | None, *, framed: bool, stdin: bool
    ) -> None:
        self.ended: End | None = None
        self._connection = connection
        self._keys = keys
        self._frames = FrameDecoder() if framed else None
        self._reading = stdin
        self._half_closed = not stdin
        self._queue = bytearray()
        connection.setblocking(False)

    def show(self, data: bytes) -> None:
        """Output of the workload to ours."""
        if self._frames is None:
            write(data)
            return
        for stream, piece in self._frames.feed(data):
            write(piece, descriptor=2 if stream == STDERR else 1)

    def step(self, signals: Signals, on_signals: Callable[[list[int]], None]) -> None:
        """Wait for something to do, and do it."""
        poll = select.poll()
        outgoing = select.POLLOUT if self._queue else 0
        poll.register(self._connection.fileno(), select.POLLIN | outgoing)
        poll.register(signals.fileno(), select.POLLIN)
        if self._reading and len(self._queue) < _QUEUE_BYTES:
            poll.register(0, select.POLLIN)
        for descriptor, events in poll.poll():
            if descriptor == signals.fileno():
                on_signals(signals.take())
            elif descriptor == self._connection.fileno():
                if events & select.POLLOUT:
                    self._send()
                if events & ~select.POLLOUT:
                    self._receive()
            elif descriptor == 0:
                self._read_stdin()
            if self.ended:
                return

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if data:
            self.show(data)
        else:
            self.ended = End.CLOSED

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # A terminal that went away (EIO) is the end of input.
            data = b""
        if not data:
            self._reading = False
        elif self._keys is not None:
            data, detached = self._keys.feed(data)
            if detached:
                self.ended = End.DETACHED
        self._queue += data
        self._send()

    def _send(self) -> None:
        try:
            while self._queue:
                sent = self._connection.send(memoryview(self._queue)[:_READ_BYTES].tobytes())
                del self._queue[:sent]
        except BlockingIOError:
            return
        except ConnectionError:
            # The workload does not read any more; what it still writes is worth showing.
            self._queue.clear()
            self._reading = False
            return
        if not self._reading and not self._half_closed and self.ended is None:
            self._half_closed = True
            self._half_close()

    def _half_close(self) -> None:
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            # Closed by the other side already: the next read says so.
            return


def need_terminal(*, tty: bool, stdin: bool) -> None:
    """Refuse -it without a terminal, as Docker does. Raises Failed."""
    if tty and stdin and not os.isatty(0):
        warn("the input device is not a TTY")
        raise Failed(1)
