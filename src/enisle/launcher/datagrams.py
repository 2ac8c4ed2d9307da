"""Datagrams to published UDP ports that the kernel cannot send on: a keeper passes them along (see relay.py).

Whoever sends is known to the instance by a socket of his own, to which answers come; a flow ends when nothing has
passed for a while. The number of flows is bounded: the longest unused gives way to a new one, as in the kernel's NAT.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop, Timer

Place = tuple[str, int]
Key = tuple[Place, Any, bytes]
"""Where a datagram came in, whose it is, and to which of the host's addresses."""

_DATAGRAM_BYTES = 65535
_BUFFER_BYTES = 208 << 10  # the kernel's usual one; while a socket only reserves a port it has none to speak of
_FLOWS_AT_MOST = 256
_IDLE_S = 90.0
_AT_A_TIME = 32  # then others have their turn
_PKTINFO_BYTES = 20  # struct in6_pktinfo: the address, the interface's number
_ADDRESS_BYTES = 16
_LINK_LOCAL = b"\xfe\x80"


@dataclass(slots=True)
class _Flow:
    socket: socket.socket
    target: Place
    used_at: float


class Datagrams:
    """The UDP relays of one instance."""

    def __init__(self, loop: EpollLoop, *, flows_at_most: int = _FLOWS_AT_MOST, idle_s: float = _IDLE_S) -> None:
        self._loop = loop
        self._flows_at_most = flows_at_most
        self._idle_s = idle_s
        self._entrances: dict[Place, socket.socket] = {}
        self._targets: dict[Place, Place] = {}
        self._flows: dict[Key, _Flow] = {}  # the longest unused first
        self._timer: Timer | None = None

    def take(self, fds: list[int], targets: dict[Place, Place]) -> None:
        """Read from those of the sockets that there are targets for; these become ours, and leave the list."""
        self.point(targets)
        for fd in list(fds):
            one = socket.socket(fileno=fd)
            place = _place(one)
            if place not in targets:
                one.detach()
                continue
            fds.remove(fd)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            self._entrances[place] = one
            self._loop.add_reader(one.fileno(), self._reader(place, one))

    def point(self, targets: dict[Place, Place]) -> None:
        """Where datagrams go: the target of each place listened on. Flows to what is no target any more end."""
        self._targets = targets
        for key in [key for key, flow in self._flows.items() if targets.get(key[0]) != flow.target]:
            self._end(key)

    def close(self) -> None:
        """End all of it."""
        for one in self._entrances.values():
            self._loop.remove(one.fileno())
            one.close()
        self._entrances.clear()
        for key in list(self._flows):
            self._end(key)
        if self._timer:
            self._timer.cancel()

    def _reader(self, place: Place, entrance: socket.socket) -> Any:
        def read() -> None:
            for _ in range(_AT_A_TIME):
                try:
                    data, ancillary, _flags, client = entrance.recvmsg(
                        _DATAGRAM_BYTES, socket.CMSG_SPACE(_PKTINFO_BYTES)
                    )
                except OSError:  # nothing there, or an answer of ours that its client refused
                    return
                self._send_on((place, client, _answer_from(ancillary)), data)

        return read

    def _send_on(self, key: Key, data: bytes) -> None:
        flow = self._flows.pop(key, None) or self._begin(key)
        if flow is None:
            return
        self._flows[key] = flow
        flow.used_at = time.monotonic()
        for _ in range(2):
            try:
                flow.socket.send(data)
            except ConnectionRefusedError:
                continue  # told of an earlier one, and nothing was sent
            except OSError:
                pass  # as if it had been lost on the way
            return

    def _begin(self, key: Key) -> _Flow | None:
        target = self._targets.get(key[0])
        if target is None:
            return None
        if len(self._flows) >= self._flows_at_most:
            self._end(next(iter(self._flows)))
        one = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            one.setblocking(False)
            one.connect(target)
        except OSError:
            one.close()
            return None
        self._loop.add_reader(one.fileno(), lambda: self._answer(key, one))
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle_s, self._tidy)
        return _Flow(one, target, 0.0)

    def _answer(self, key: Key, one: socket.socket) -> None:
        """Send back what the instance says, from the address that was asked."""
        place, client, answer_from = key
        entrance = self._entrances.get(place)
        for _ in range(_AT_A_TIME):
            try:
                data = one.recv(_DATAGRAM_BYTES)
            except OSError:  # nothing there, or refused: the port inside may be served later
                return
            flow = self._flows.pop(key)
            flow.used_at = time.monotonic()
            self._flows[key] = flow
            if entrance is not None:
                try:
                    entrance.sendmsg([data], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, answer_from)], 0, client)
                except OSError:
                    pass  # as if it had been lost on the way

    def _tidy(self) -> None:
        """End the flows that are idle, and look again when the next one may be."""
        self._timer = None
        now = time.monotonic()
        for key, flow in list(self._flows.items()):
            left_s = flow.used_at + self._idle_s - now
            if left_s > 0:
                self._timer = self._loop.call_later(left_s, self._tidy)
                return
            self._end(key)

    def _end(self, key: Key) -> None:
        flow = self._flows.pop(key)
        self._loop.remove(flow.socket.fileno())
        flow.socket.close()


def _answer_from(ancillary: Sequence[tuple[int, int, bytes]]) -> bytes:
    """in6_pktinfo for the answers to a datagram: by whichever interface leads there, but for one link's addresses."""
    info = next((data for _level, kind, data in ancillary if kind == socket.IPV6_PKTINFO), bytes(_PKTINFO_BYTES))
    return info if info.startswith(_LINK_LOCAL) else info[:_ADDRESS_BYTES] + bytes(_PKTINFO_BYTES - _ADDRESS_BYTES)


def _place(one: socket.socket) -> Place:
    """Where a UDP socket of IPv6 is bound; any other is nowhere."""
    if one.type != socket.SOCK_DGRAM or one.family != socket.AF_INET6:
        return "", 0
    address = one.getsockname()
    return str(address[0]), int(address[1])
