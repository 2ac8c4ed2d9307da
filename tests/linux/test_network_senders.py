"""Nobody sends as somebody else: frames forged by an instance with CAP_NET_RAW, and what arrives of them."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.linux.route import pack_mac
from enisle.model.network import AddressPool, Network
from enisle.network.senders import bridge_mac, link_local
from tests.linux.hosts import Host, Instance

_ETH_P_ALL, _ETH_P_IP, _ETH_P_ARP, _ETH_P_IPV6 = 3, 0x0800, 0x0806, 0x86DD
_EVERYBODY = b"\xff" * 6
_MARKER = b"the last frame of all"
_RECEIVED_WITHIN_S = 5.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path) as running:
        yield running


@pytest.fixture
def network(host: Host) -> Network:
    return host.create_network("six", ipv6=True, pools=(AddressPool(subnet="fd00:77::/64"),))


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    listener.bind(("eth0", 0))
    listener.settimeout(_RECEIVED_WITHIN_S)
    return listener


def _send(frames: list[bytes]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("eth0", 0))
        for frame in frames:
            out.send(frame)


def arriving(sender: Instance, receiver: Instance, frames: list[bytes]) -> list[bytes]:
    """Those of the frames that the receiver gets. A last frame that nobody objects to says when all have passed."""
    marker = _EVERYBODY + pack_mac(sender.endpoint.mac) + struct.pack("!H", 0x88B5) + _MARKER
    with receiver.run(_listen) as listener:
        sender.run(_send, [*frames, marker])
        seen = []
        while True:
            frame = listener.recv(2048)
            if frame.startswith(marker):
                return [sent for sent in frames if any(got.startswith(sent) for got in seen)]
            seen.append(frame)


def arp(sender_mac: str, claimed_mac: str, claimed_ip: str) -> bytes:
    body = struct.pack("!HHBBH", 1, _ETH_P_IP, 6, 4, 2)
    body += pack_mac(claimed_mac) + socket.inet_aton(claimed_ip) + _EVERYBODY + socket.inet_aton(claimed_ip)
    return _EVERYBODY + pack_mac(sender_mac) + struct.pack("!H", _ETH_P_ARP) + body


def datagram4(sender_mac: str, source: str, to: str) -> bytes:
    udp = struct.pack("!HHHH", 9, 9, 8, 0)
    ends = socket.inet_aton(source) + socket.inet_aton(to)
    total = sum(struct.unpack("!10H", struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + ends))
    checksum = ~(total % 0xFFFF) & 0xFFFF  # br_netfilter drops what has a wrong one
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, checksum) + ends
    return _EVERYBODY + pack_mac(sender_mac) + struct.pack("!H", _ETH_P_IP) + head + udp


def icmp6(sender_mac: str, source: str, kind: int, target: str) -> bytes:
    """A neighbour advertisement (136), router advertisement (134) or redirect (137); checksums are nobody's concern."""
    body = struct.pack("!BBHI", kind, 0, 0, 0x20000000) + ipaddress.IPv6Address(target).packed
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255)
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address("ff02::1").packed
    return b"\x33\x33\0\0\0\1" + pack_mac(sender_mac) + struct.pack("!H", _ETH_P_IPV6) + head + addresses + body


def test_forged_frames_do_not_arrive(host: Host, network: Network) -> None:
    with Instance(host, "a", network) as one, Instance(host, "b", network) as two, Instance(host, "c", network) as bad:
        own, other = bad.endpoint.mac, two.endpoint.mac
        own6, other6 = (each.endpoint.ipv6.partition("/")[0] for each in (bad, two))
        gateway, gateway6 = bad.endpoint.gateway4, bad.endpoint.gateway6
        free = "fe80::1"
        forged = [
            arp(own, own, two.ipv4),
            arp(own, own, gateway),
            arp(own, other, bad.ipv4),
            arp(other, own, bad.ipv4),
            arp(bridge_mac(network.id), own, bad.ipv4),
            datagram4(own, two.ipv4, one.ipv4),
            datagram4(own, gateway, one.ipv4),
            datagram4(other, bad.ipv4, one.ipv4),
            icmp6(own, own6, 136, other6),
            icmp6(own, own6, 136, gateway6),
            icmp6(own, other6, 136, own6),
            icmp6(own, free, 136, other6),
            icmp6(own, own6, 136, link_local(other)),
            icmp6(own, own6, 136, link_local(bridge_mac(network.id))),
            icmp6(own, own6, 134, own6),
            icmp6(own, own6, 137, own6),
        ]
        assert arriving(bad, one, forged) == []
        honest = [
            arp(own, own, bad.ipv4),
            arp(own, own, "10.99.99.99"),  # nobody's: an address that moves between instances
            datagram4(own, "10.99.99.99", one.ipv4),  # what a router sends on
            datagram4(own, bad.ipv4, one.ipv4),
            icmp6(own, own6, 136, own6),
            icmp6(own, free, 136, free),
            icmp6(own, link_local(own), 136, link_local(own)),
        ]
        assert arriving(bad, one, honest) == honest


def test_what_nobody_holds_any_more_may_be_used_and_a_restart_forgets_nothing(host: Host, network: Network) -> None:
    with Instance(host, "a", network) as one, Instance(host, "c", network) as bad:
        with Instance(host, "b", network) as two:
            claim = arp(bad.endpoint.mac, bad.endpoint.mac, two.ipv4)
            for each in (one, two, bad):
                each.store()
            host.restart()
            assert arriving(bad, one, [claim]) == []
        assert arriving(bad, one, [claim]) == [claim]
