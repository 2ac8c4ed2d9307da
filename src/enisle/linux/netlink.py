"""Netlink messages and sockets: building, sending, reading (netlink(7)). Standard library only.

What is done with them is in :mod:`enisle.linux.route` (links, addresses, routes) and
:mod:`enisle.linux.conntrack`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
_NLM_F_ACK_TLVS = 0x200

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12

NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_INT = struct.Struct("=i")
_RECEIVE_BYTES = 1 << 18
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_DATAGRAM_OVERHEAD_BYTES = 32  # netlink_sendmsg
_ANSWER_TIMEOUT_S = 30.0  # far above any wait for the kernel's rtnl lock


class NetlinkError(OSError):
    """The kernel refused a request: ``errno``, and in ``strerror`` what was asked and the kernel's own words."""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    length = 4 + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes, flagged as such where the protocol asks for it."""
    return attribute(kind, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def uint32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the host's byte order."""
    return attribute(kind, value.to_bytes(4, "little"))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (type, value) pairs of a run of attributes; stops at the first that makes no sense."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def datagram(messages: Sequence[tuple[int, int, bytes]], first: int = 1) -> bytes:
    """Messages (kind, flags, body) numbered from ``first`` on, the last one but one to be acknowledged."""
    parts = []
    for position, (kind, flags, body) in enumerate(messages):
        asked = flags | NLM_F_REQUEST | (NLM_F_ACK if position == len(messages) - 2 else 0)
        parts += [_HEADER.pack(16 + len(body), kind, asked, first + position, 0), body, bytes(-len(body) % 4)]
    return b"".join(parts)


class NetlinkSocket:
    """A netlink socket of the network namespace the calling thread is in when it is made; it stays with that one."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        try:
            for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.settimeout(_ANSWER_TIMEOUT_S)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def check_strictly(self) -> None:
        """Let the kernel filter dumps by what the request says (Linux 4.20); older ones ignore it and dump all."""
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        except OSError:
            pass

    def join_group(self, group: int, *, buffer_bytes: int = 0) -> None:
        """Receive the notifications of a multicast group with :meth:`notifications`; 0: the usual buffer."""
        if buffer_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        self._socket.bind((0, 0))  # without an address the kernel takes us for the sender and leaves us out
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        self._socket.setblocking(False)

    def notifications(self) -> list[tuple[int, bytes]]:
        """What has arrived, as (message type, payload), without waiting. OSError ENOBUFS: some were lost."""
        found: list[tuple[int, bytes]] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return found
            found += [(kind, body) for kind, _, _, body in _messages(data)]

    def request(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        """Send one request and read its answer up to the acknowledgement; the payloads that came before it.

        ``what`` names the request in a :class:`NetlinkError`. A dump that the kernel interrupted is made again.
        """
        while True:
            self._sequence += 1
            head = _HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, 0)
            self._socket.send(head + body)
            payloads, interrupted = self._answer(what)
            if not interrupted:
                return payloads

    def exchange(self, messages: Sequence[tuple[int, int, bytes]]) -> list[tuple[int, NetlinkError]]:
        """Send messages (kind, flags, body) as one datagram; what the kernel refused of them, as (position, why).

        The last one but one is acknowledged in any case, and waited for: what comes after it only ends a batch. A
        refusal of the first one is one of the whole.
        """
        first, last = self._sequence + 1, len(messages) - 2
        self._sequence += len(messages)
        self._send_whole(datagram(messages, first))
        failures: list[tuple[int, NetlinkError]] = []
        while True:
            for kind, flags, sequence, body in _messages(self._socket.recv(_RECEIVE_BYTES)):
                position = sequence - first
                if kind != _NLMSG_ERROR or position < 0:
                    continue
                if failure := _failure(kind, flags, body, ""):
                    failures.append((position, failure))
                if position == last or (position == 0 and failure):
                    return failures

    def _send_whole(self, data: bytes) -> None:
        """A datagram of any size, as far as the caller has CAP_NET_ADMIN."""
        if len(data) > self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _DATAGRAM_OVERHEAD_BYTES:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(data))  # the kernel doubles it
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data))
        self._socket.send(data)

    def _answer(self, what: str) -> tuple[list[bytes], bool]:
        payloads: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, body in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue  # the rest of an answer whose reading was broken off
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    if failure := _failure(kind, flags, body, what):
                        raise failure
                    return payloads, interrupted
                payloads.append(body)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, payload) of every message in what one recv gave."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _failure(kind: int, flags: int, body: bytes, what: str) -> NetlinkError | None:
    """What an answer says went wrong, in the kernel's own words where it has some."""
    code = -_INT.unpack_from(body)[0] if len(body) >= 4 else 0
    if code <= 0:
        return None
    words = b""
    if flags & _NLM_F_ACK_TLVS:
        # An error carries the header of what it answers before its attributes, the end of a dump does not.
        tail = body[20:] if kind == _NLMSG_ERROR else body[4:]
        words = next((value for key, value in attributes(tail) if key == _NLMSGERR_ATTR_MSG), b"").rstrip(b"\0")
    reason = words.decode() or os.strerror(code)
    return NetlinkError(code, f"{what}: {reason}" if what else reason)
