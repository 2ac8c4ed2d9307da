"""A connection that carries frames and descriptors (:mod:`enisle.wire.frames`) on the running event loop."""

from __future__ import annotations

import array
import asyncio
import dataclasses
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from enisle.errors import EnisleError, Internal, StartFailed, Unavailable, of_kind
from enisle.wire import frames
from enisle.wire.plans import to_json

Message = dict[str, Any]


@dataclass(slots=True)
class _Outgoing:
    """Bytes still to be sent; ``fds`` are our own duplicates and go with the first byte."""

    data: memoryview
    fds: list[int]


_encoder = msgspec.json.Encoder()


def _frame(message: Message) -> bytes:
    try:
        return frames.pack(_encoder.encode(message))
    except (UnicodeEncodeError, OverflowError):  # what is no UTF-8 on this host; numbers of more than 64 bits
        plain = {name: to_json(value) if dataclasses.is_dataclass(value) else value for name, value in message.items()}
        return frames.encode(plain)


def error_of(message: Message) -> EnisleError:
    """The failure that an answer's ``error`` object stands for."""
    text = str(message.get("message", "no reason was given"))
    exit_code = message.get("exit_code") or 0
    if isinstance(exit_code, int) and exit_code:
        return StartFailed(text, exit_code=exit_code)
    return of_kind(str(message.get("kind", "")), text)


class Channel:
    """Requests, their answers in any order, and events, over one unix stream socket that the channel owns.

    uvloop's transports pass no descriptors, hence the raw non-blocking socket. ``on_event`` is called with each
    message that is no answer, in order. When the peer goes, every open request fails with Unavailable.
    """

    def __init__(self, sock: socket.socket, *, peer: str, on_event: Callable[[Message], None] | None = None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._peer = peer
        self._on_event = on_event
        self._decoder = frames.Decoder()
        self._outgoing: deque[_Outgoing] = deque()
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._next_id = 1
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def is_open(self) -> bool:
        """Whether the peer is there as far as we know."""
        return not self._closed.done()

    async def wait_closed(self) -> None:
        """Return once the connection has ended, from either side."""
        await asyncio.shield(self._closed)

    def post(self, op: str, fields: Message | None = None, fds: Sequence[int] = ()) -> asyncio.Future[Message]:
        """Send a request at once; the future gives the answer's fields or raises the failure it names.

        A field may be a plan (:mod:`enisle.wire.plans`).

        Requests leave in the order of the calls. The descriptors stay the caller's.
        """
        future: asyncio.Future[Message] = self._loop.create_future()
        if self._closed.done():
            future.set_exception(self._gone())
            return future
        number = self._next_id
        self._next_id += 1
        message: Message = {"id": number, "op": op, **(fields or {})}
        if fds:
            message["fds"] = len(fds)
        try:
            data = _frame(message)
        except frames.ProtocolError as error:
            future.set_exception(Internal(f"{self._peer}: {op}: {error}."))
            return future
        self._answers[number] = future
        future.add_done_callback(lambda _future: self._answers.pop(number, None))
        self._send(data, fds)
        return future

    async def request(
        self, op: str, fields: Message | None = None, fds: Sequence[int] = (), *, timeout_s: float | None = None
    ) -> Message:
        """Send a request and wait for its answer. Unavailable when the peer goes or the time is over."""
        future = self.post(op, fields, fds)
        if timeout_s is None:
            return await future
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError as error:
            raise Unavailable(f"{self._peer} did not answer {op!r} within {timeout_s:g} s.") from error

    def close(self) -> None:
        """Close our end; open requests fail. Idempotent."""
        if self._closed.done():
            return
        self._closed.set_result(None)
        self._loop.remove_reader(self._sock.fileno())
        if self._outgoing:
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        while self._outgoing:
            frames.close_all(self._outgoing.popleft().fds)
        for future in list(self._answers.values()):
            if not future.done():
                future.set_exception(self._gone())
                future.exception()  # a request nobody awaits any more is no fault to report

    def _gone(self) -> Unavailable:
        return Unavailable(f"{self._peer} has ended.")

    # --- sending ---------------------------------------------------------------------------------------------------

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        view = memoryview(data)
        if not self._outgoing:
            try:
                sent = self._send_some(view, fds)
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            view, fds = view[sent:], () if sent else fds
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._outgoing.append(_Outgoing(view, [os.dup(fd) for fd in fds]))

    def _send_some(self, data: memoryview, fds: Sequence[int]) -> int:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            return self._sock.sendmsg([data], ancillary)
        except (BlockingIOError, InterruptedError):
            return 0

    def _writable(self) -> None:
        try:
            while self._outgoing:
                item = self._outgoing[0]
                sent = self._send_some(item.data, item.fds)
                if not sent:
                    return
                frames.close_all(item.fds)
                item.fds = []
                item.data = item.data[sent:]
                if item.data:
                    return
                self._outgoing.popleft()
        except OSError:
            self.close()
            return
        self._loop.remove_writer(self._sock.fileno())

    # --- receiving -------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        """Read all there is. uvloop tells of a broken connection once and then never calls again: what the peer said
        last would otherwise be the last that is heard, and its end never noticed."""
        while not self._closed.done():
            try:
                data = self._sock.recv(1 << 16)  # no control buffer: the kernel drops descriptors we never asked for
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            self._heard(data)

    def _heard(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data) if data else None
        except frames.ProtocolError:
            messages = None
        if messages is None:
            self.close()
            return
        for message in messages:
            self._take(message)

    def _take(self, message: Message) -> None:
        number = message.get("id")
        if number is None:
            if self._on_event is not None:
                self._on_event(message)
            return
        future = self._answers.get(number) if isinstance(number, int) else None
        if future is None or future.done():
            return
        if "error" in message:
            error = message["error"]
            future.set_exception(error_of(error if isinstance(error, dict) else {}))
            return
        ok = message.get("ok")
        future.set_result(ok if isinstance(ok, dict) else {})


def connect(path: str) -> socket.socket | None:
    """A blocking-free connection to the unix socket at ``path``; None when nobody listens there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with suppress(OSError):
        sock.setblocking(False)  # connecting to a unix socket never waits, but for a full backlog (EAGAIN)
        sock.connect(path)
        return sock
    sock.close()
    return None
