"""Forgetting connections that the kernel tracks (ctnetlink), as conntrack -D does. Standard library only."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from enisle.linux.netlink import NLA_F_NESTED, NLM_F_DUMP, NetlinkError, NetlinkSocket, attributes, nested

_NETLINK_NETFILTER = 12
_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY = 1, 2
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP_V4_SRC, _CTA_IP_V6_SRC = 1, 3
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3
_UDP = 17


def forget_udp(selected: Callable[[int, str], bool]) -> int:
    """Drop the UDP flows for which ``selected`` (port asked for, address that answers) is true; how many those were.

    A flow keeps the translation it began with as long as packets come, even when its instance is gone.
    """
    dropped = 0
    with NetlinkSocket(_NETLINK_NETFILTER) as conntrack:
        for family in (socket.AF_INET, socket.AF_INET6):
            head = bytes((family, 0, 0, 0))  # nfgenmsg: family, version, resource id
            for body in conntrack.request(_GET, NLM_F_DUMP, head, "list tracked connections"):
                if body[0] != family:
                    continue
                tuples = dict(attributes(body[4:]))
                original, reply = tuples.get(_CTA_TUPLE_ORIG, b""), tuples.get(_CTA_TUPLE_REPLY, b"")
                protocol, port, _ = _parse(original)
                if protocol == _UDP and selected(port, _parse(reply)[2]):
                    dropped += _delete(conntrack, head, original)
    return dropped


def _delete(conntrack: NetlinkSocket, head: bytes, original: bytes) -> int:
    try:
        conntrack.request(_DELETE, 0, head + nested(_CTA_TUPLE_ORIG | NLA_F_NESTED, original), "forget a connection")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return 0  # it ended in the meantime
        raise
    return 1


def _parse(found: bytes) -> tuple[int, int, str]:
    """Protocol number, destination port and source address of a tuple; 0 and "" for what it has not."""
    parts = dict(attributes(found))
    addresses = dict(attributes(parts.get(_CTA_TUPLE_IP, b"")))
    protocol = dict(attributes(parts.get(_CTA_TUPLE_PROTO, b"")))
    source = ""
    for key, family, length in ((_CTA_IP_V4_SRC, socket.AF_INET, 4), (_CTA_IP_V6_SRC, socket.AF_INET6, 16)):
        if len(addresses.get(key, b"")) == length:
            source = socket.inet_ntop(family, addresses[key])
    number = protocol.get(_CTA_PROTO_NUM, b"\0")[0]
    return number, int.from_bytes(protocol.get(_CTA_PROTO_DST_PORT, b""), "big"), source
