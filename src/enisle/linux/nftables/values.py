"""The kinds of values that nftables compares, and the fields of a packet that have them (nft(8), "DATA TYPES")."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

_IFNAME_BYTES = 16  # IFNAMSIZ
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_ICMP_TYPES = {"echo-request": 8}
_ICMPV6_TYPES = {"echo-request": 128, "nd-router-advert": 134, "nd-neighbor-advert": 136, "nd-redirect": 137}
_FIB_TYPES = {"local": 2}  # RTN_LOCAL


class Family(IntEnum):
    """Which packets a table sees (NFPROTO_*)."""

    INET = 1
    BRIDGE = 7

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class DataType:
    """``code`` is nft's number for it, by which `nft list` shows a set. ``size`` in bytes. ``pack`` makes the kernel's
    form of a value from nft's words for it."""

    name: str
    code: int
    size: int
    pack: Callable[[str], bytes]

    def show(self, value: str) -> str:
        """As nft writes it."""
        return f'"{value}"' if self.name == "ifname" else value


def _named(names: dict[str, int], size: int = 1) -> Callable[[str], bytes]:
    return lambda value: names[value].to_bytes(size, "big")


IPV4 = DataType("ipv4_addr", 7, 4, lambda value: ipaddress.IPv4Address(value).packed)
IPV6 = DataType("ipv6_addr", 8, 16, lambda value: ipaddress.IPv6Address(value).packed)
ETHER = DataType("ether_addr", 9, 6, lambda value: bytes.fromhex(value.replace(":", "")))
PROTOCOL = DataType("inet_proto", 12, 1, _named(_PROTOCOLS))
SERVICE = DataType("inet_service", 13, 2, lambda value: int(value).to_bytes(2, "big"))
ICMP_TYPE = DataType("icmp_type", 14, 1, _named(_ICMP_TYPES))
ICMPV6_TYPE = DataType("icmpv6_type", 29, 1, _named(_ICMPV6_TYPES))
FIB_TYPE = DataType("fib_addrtype", 38, 4, lambda value: _FIB_TYPES[value].to_bytes(4, "little"))
IFNAME = DataType("ifname", 41, _IFNAME_BYTES, lambda value: value.encode().ljust(_IFNAME_BYTES, b"\0"))


class Header(IntEnum):
    """Where an offset into a packet begins (enum nft_payload_bases)."""

    LINK = 0
    NETWORK = 1
    TRANSPORT = 2


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes of the packet."""

    header: Header
    offset: int


class Meta(IntEnum):
    """What the kernel knows of a packet (enum nft_meta_keys)."""

    PROTOCOL = 1
    IIFNAME = 6
    OIFNAME = 7
    NFPROTO = 15
    L4PROTO = 16


class Fib(IntEnum):
    """What the routing tables say of a packet (enum nft_fib_flags, for the type of an address)."""

    DADDR_TYPE = 2


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to be known of a packet. ``text`` as nft writes it. ``inside`` names what the packet must be for it to
    have this, which is compared first: "" where every packet has it."""

    text: str
    type: DataType
    source: Payload | Meta | Fib
    inside: str = ""


IIFNAME = Field("iifname", IFNAME, Meta.IIFNAME)
OIFNAME = Field("oifname", IFNAME, Meta.OIFNAME)
L4PROTO = Field("meta l4proto", PROTOCOL, Meta.L4PROTO)
FIB_DADDR_TYPE = Field("fib daddr type", FIB_TYPE, Fib.DADDR_TYPE)
ETHER_SADDR = Field("ether saddr", ETHER, Payload(Header.LINK, 6))
ARP_SADDR_ETHER = Field("arp saddr ether", ETHER, Payload(Header.NETWORK, 8), "arp")
ARP_SADDR_IP = Field("arp saddr ip", IPV4, Payload(Header.NETWORK, 14), "arp")
IP_SADDR = Field("ip saddr", IPV4, Payload(Header.NETWORK, 12), "ip")
IP_DADDR = Field("ip daddr", IPV4, Payload(Header.NETWORK, 16), "ip")
IP6_SADDR = Field("ip6 saddr", IPV6, Payload(Header.NETWORK, 8), "ip6")
IP6_DADDR = Field("ip6 daddr", IPV6, Payload(Header.NETWORK, 24), "ip6")
TH_DPORT = Field("th dport", SERVICE, Payload(Header.TRANSPORT, 2))
UDP_SPORT = Field("udp sport", SERVICE, Payload(Header.TRANSPORT, 0), "udp")
ICMP = Field("icmp type", ICMP_TYPE, Payload(Header.TRANSPORT, 0), "icmp")
ICMPV6 = Field("icmpv6 type", ICMPV6_TYPE, Payload(Header.TRANSPORT, 0), "icmpv6")
ND_TARGET = Field("icmpv6 taddr", IPV6, Payload(Header.TRANSPORT, 8), "icmpv6")

_NFPROTO = {"ip": 2, "ip6": 10}
_ETHERTYPE = {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD}
_CARRIERS = {"icmp": "ip", "icmpv6": "ip6", "udp": ""}


def requirements(field: Field, family: Family) -> list[tuple[Meta, bytes]]:
    """What has to be compared, in order, before the field means anything in a table of that family."""
    if not field.inside:
        return []
    carrier = _CARRIERS.get(field.inside)
    network = field.inside if carrier is None else carrier
    found: list[tuple[Meta, bytes]] = []
    if network and family is Family.INET:
        found.append((Meta.NFPROTO, bytes([_NFPROTO[network]])))
    elif network:
        found.append((Meta.PROTOCOL, _ETHERTYPE[network].to_bytes(2, "big")))
    if carrier is not None:
        found.append((Meta.L4PROTO, bytes([_PROTOCOLS[field.inside]])))
    return found
