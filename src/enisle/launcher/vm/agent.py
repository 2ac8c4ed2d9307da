"""The keeper's end of the channel to the guest agent: frames, sessions and their flow control.

The other end is in the hands of whoever runs in the VM. It can end this instance, and do no more: every frame is
bounded, output is granted in windows, a guest that sends what was not granted or makes no sense is given up, and what
it does not read waits in a bounded buffer here.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from enisle.launcher.vm.protocol import (
    INPUT_WINDOW_BYTES,
    MAX_TO_GUEST_BYTES,
    OUTPUT_WINDOW_BYTES,
    Decoder,
    Failure,
    Frame,
    FromGuest,
    GuestFault,
    ToGuest,
    frame,
    read_failure,
    read_u32,
    u32,
)

if TYPE_CHECKING:
    from enisle.launcher.wall import Loop

_READ_BYTES = 1 << 18
_STRAY_FRAMES = 4096
_OOM_EVERY_S = 1.0
_OUTGOING_BYTES = 4 * MAX_TO_GUEST_BYTES
_CHANNELS = 60_000


class Peer(Protocol):
    """What one channel of the agent reports to: a session or a call."""

    def on_started(self, pid: int) -> None: ...
    def on_failed(self, failure: Failure) -> None: ...
    def on_output(self, stream: int, data: bytes) -> None: ...
    def on_closed(self) -> None: ...
    def on_exited(self, code: int) -> None: ...
    def on_input_credit(self, size: int) -> None: ...
    def on_lost(self, code: int) -> None:
        """The guest is gone; nothing more will come. ``code``: what its processes are to have exited with."""


class Agent:
    """The channel. ``on_hello``, ``on_ready`` (None, or why not), ``on_oom`` and ``on_fault`` are the wall's."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        on_hello: Callable[[int], None],
        on_ready: Callable[[Failure | None], None],
        on_oom: Callable[[], None],
        on_fault: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_hello = on_hello
        self._on_ready = on_ready
        self._on_oom = on_oom
        self._on_fault = on_fault
        self._decoder = Decoder()
        self._outgoing = bytearray()
        self._peers: dict[int, _Channel] = {}
        self._next_channel = 0
        self._strays = 0
        self._oom_told_at = -_OOM_EVERY_S
        self._faulty = False
        self._closed = False
        loop.add_reader(sock.fileno(), self._readable)

    # --- sending ---------------------------------------------------------------------------------------------------

    def open(self, kind: ToGuest, body: bytes, peer: Peer) -> int:
        """Begin a session (RUN) or a call (CALL); its channel, of which ``peer`` hears."""
        for _ in range(_CHANNELS):
            self._next_channel = self._next_channel % _CHANNELS + 1
            if self._next_channel not in self._peers:
                break
        self._peers[self._next_channel] = _Channel(peer)
        self.send(kind, self._next_channel, body)
        return self._next_channel

    def send(self, kind: ToGuest, channel: int = 0, body: bytes = b"", *, stream: int = 0) -> None:
        """Queue one frame."""
        if self._closed or self._faulty:
            return
        data = frame(kind, channel, body, stream=stream)
        if len(self._outgoing) + len(data) > _OUTGOING_BYTES:
            self._fault("the guest's agent does not read what it is sent")
            return
        self._outgoing += data
        self._writable()

    def input_room(self, channel: int) -> int:
        """How many bytes of input the guest takes now."""
        state = self._peers.get(channel)
        return state.input_credit if state is not None else 0

    def send_input(self, channel: int, data: bytes) -> None:
        """Send input, at most :meth:`input_room` bytes."""
        state = self._peers.get(channel)
        if state is None or not data:
            return
        state.input_credit -= len(data)
        self.send(ToGuest.INPUT, channel, data)

    def consumed(self, channel: int, size: int) -> None:
        """``size`` bytes of output have been passed on: the guest may send as many again."""
        state = self._peers.get(channel)
        if state is None:
            return
        state.due += size
        if state.due >= OUTPUT_WINDOW_BYTES // 4:
            state.output_credit += state.due
            self.send(ToGuest.CREDIT, channel, u32(state.due))
            state.due = 0

    def _writable(self) -> None:
        while self._outgoing:
            try:
                sent = self._sock.send(memoryview(self._outgoing)[:_READ_BYTES])
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._writable)
                return
            except OSError:
                self._lost()
                return
            del self._outgoing[:sent]
        self._loop.remove_writer(self._sock.fileno())

    # --- receiving -------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        try:
            for received in self._decoder.feed(data):
                if self._closed:
                    return
                self._take(received)
        except GuestFault as fault:
            self._fault(f"the guest's agent broke the protocol: {fault}")

    def _take(self, received: Frame) -> None:
        if received.channel == 0:
            self._take_control(received)
            return
        state = self._peers.get(received.channel)
        if state is None:
            self._stray()
            return
        peer = state.peer
        if received.type == FromGuest.OUTPUT:
            state.output_credit -= len(received.body)
            if state.output_credit < 0 or received.stream not in (1, 2) or not received.body:
                raise GuestFault("output that was not granted")
            peer.on_output(received.stream, received.body)
        elif received.type == FromGuest.STARTED:
            peer.on_started(read_u32(received.body) & 0x7FFFFFFF)
        elif received.type == FromGuest.FAILED:
            del self._peers[received.channel]
            peer.on_failed(read_failure(received.body))
        elif received.type == FromGuest.INPUT_CREDIT:
            state.input_credit += read_u32(received.body)
            if state.input_credit > INPUT_WINDOW_BYTES:
                raise GuestFault("room for more input than there is")
            peer.on_input_credit(state.input_credit)
        elif received.type == FromGuest.CLOSED:
            state.closed = True
            peer.on_closed()
        elif received.type == FromGuest.EXITED:
            state.exited = True
            peer.on_exited(read_u32(received.body) & 0xFF)
        else:
            raise GuestFault(f"a frame of type {received.type}")
        if state.closed and state.exited:
            self._peers.pop(received.channel, None)

    def _take_control(self, received: Frame) -> None:
        if received.type == FromGuest.HELLO:
            self._on_hello(read_u32(received.body))
        elif received.type == FromGuest.READY:
            self._on_ready(None)
        elif received.type == FromGuest.FAILED:
            self._on_ready(read_failure(received.body))
        elif received.type == FromGuest.OOM:
            self._take_oom()
        else:
            raise GuestFault(f"a frame of type {received.type}")

    def _take_oom(self) -> None:
        """Told at most once a second. A workload whose children are killed again and again is no fault; thousands of
        frames at once are."""
        now = time.monotonic()
        if now - self._oom_told_at < _OOM_EVERY_S:
            self._stray()
            return
        self._oom_told_at, self._strays = now, 0
        self._on_oom()

    def _stray(self) -> None:
        """Frames for a channel just closed by us are in order; endlessly many are not."""
        self._strays += 1
        if self._strays > _STRAY_FRAMES:
            raise GuestFault("a flood of frames nobody waits for")

    def _drain(self) -> None:
        try:
            for _ in range(64):  # what the socket's buffers may hold, and no more
                data = self._sock.recv(_READ_BYTES)
                if not data:
                    return
                for received in self._decoder.feed(data):
                    self._take(received)
        except (OSError, GuestFault):
            return

    # --- the end ---------------------------------------------------------------------------------------------------

    def abort(self, channel: int) -> None:
        """Give up a session or call; nothing more of it is reported."""
        if self._peers.pop(channel, None) is not None:
            self.send(ToGuest.ABORT, channel)

    def _fault(self, reason: str) -> None:
        if not self._closed and not self._faulty:
            self._faulty = True
            self._lost()
            self._on_fault(reason)

    def _lost(self) -> None:
        """The port is closed: QEMU has ended, or is about to. What its end means is for the wall to say."""
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())

    def close(self, code: int = 137) -> None:
        """Deliver what had arrived, let go of the channel, tell whoever still waits. Idempotent."""
        if self._closed:
            return
        self._drain()
        self._closed = True
        self._lost()
        self._sock.close()
        peers, self._peers = self._peers, {}
        for state in peers.values():
            state.peer.on_lost(code)


class _Channel:
    """The flow of one channel: bytes either side may still send."""

    __slots__ = ("closed", "due", "exited", "input_credit", "output_credit", "peer")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.output_credit = OUTPUT_WINDOW_BYTES
        self.input_credit = INPUT_WINDOW_BYTES
        self.due = 0
        self.closed = False
        self.exited = False
