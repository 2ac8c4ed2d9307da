"""Who may send as whom on a bridge: our nftables table of family bridge. Pure.

What an instance, or the gateway, holds on a network (MAC, addresses) nobody else there may use as a sender, in ARP or
as the target of a neighbour advertisement. Whatever nobody holds may be used: a router forwards what others have
sent, and an address that moves between instances is theirs to move.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from enisle.linux.nftables.model import (
    Among,
    Chain,
    DispatchBy,
    Element,
    Elements,
    Hook,
    Is,
    Jump,
    OneOf,
    Rule,
    SetType,
    Table,
    Verdict,
)
from enisle.linux.nftables.values import (
    ARP_SADDR_ETHER,
    ARP_SADDR_IP,
    ETHER,
    ETHER_SADDR,
    ICMPV6,
    IFNAME,
    IIFNAME,
    IP6_SADDR,
    IP_SADDR,
    IPV4,
    IPV6,
    ND_TARGET,
    UDP_SPORT,
    Family,
    Field,
)
from enisle.model.instance import Endpoint
from enisle.model.network import Network

_BEFORE_ALL, _FILTER = -300, -200

_HELD_MAC = SetType("held_mac", (ETHER,))
_OWN_MAC = SetType("own_mac", (IFNAME, ETHER))
_OWN4 = SetType("own4", (IFNAME, IPV4))
_OWN6 = SetType("own6", (IFNAME, IPV6))
_PORTS = SetType("ports", (IFNAME,), verdicts=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    """A port of a bridge, and what its instance holds."""

    network_id: str
    ifname: str
    mac: str
    addresses: tuple[str, ...]

    def elements(self) -> list[Element]:
        port = self.ifname
        found = [*_held(self.network_id, self.mac, self.addresses), Element(_OWN_MAC, (port, self.mac))]
        found += [Element(_OWN6 if ":" in address else _OWN4, (port, address)) for address in self.addresses]
        return [*found, Element(_PORTS, (port,), Jump(_chain(self.network_id)))]


def sender_of(endpoint: Endpoint) -> Sender:
    """What an endpoint on a bridge holds."""
    addresses = [cidr.partition("/")[0] for cidr in (endpoint.ipv4, endpoint.ipv6) if cidr]
    mac = endpoint.mac.lower()
    return Sender(
        network_id=endpoint.network_id,
        ifname=endpoint.host_ifname,
        mac=mac,
        addresses=(*addresses, link_local(mac)) if endpoint.ipv6 else tuple(addresses),
    )


def link_local(mac: str) -> str:
    """The IPv6 address that a NIC gives itself (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    host_part = bytes((raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]))
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + host_part))


def bridge_mac(network_id: str) -> str:
    """The MAC of a network's bridge: always the same, so that neighbours' caches stay right."""
    return f"02:42:{network_id[:2]}:{network_id[2:4]}:{network_id[4:6]}:{network_id[6:8]}"


def add(table: str, elements: Sequence[Element]) -> Elements:
    """Let them send; what is there already stays."""
    return Elements(family=Family.BRIDGE, table=table, elements=elements)


def delete(table: str, elements: Sequence[Element]) -> Elements:
    """Fails as a whole when one of the elements is not there."""
    return Elements(family=Family.BRIDGE, table=table, elements=elements, delete=True)


def whole(table: str, port_prefix: str, networks: Sequence[Network], senders: Iterable[Sender]) -> Table:
    """The table. ``port_prefix``: what the names of our host interfaces begin with."""
    known = {network.id for network in networks}
    held = [element for network in networks for element in _held_by_gateway(network)]
    held += [element for sender in senders if sender.network_id in known for element in sender.elements()]
    ours = Is(IIFNAME, f"{port_prefix}*")
    routers: Rule = (ours, OneOf(ICMPV6, ("nd-router-advert", "nd-redirect")), Verdict.DROP)
    dhcp: Rule = (ours, Is(UDP_SPORT, "67"), Verdict.DROP)
    return Table(
        family=Family.BRIDGE,
        name=table,
        sets=(
            _HELD_MAC,
            _OWN_MAC,
            _OWN4,
            _OWN6,
            *(one for network in networks for one in _held_sets(network.id)),
            _PORTS,
        ),
        elements=tuple(dict.fromkeys(held)),
        chains=(
            *(_network_chain(network.id) for network in networks),
            Chain("senders", ((DispatchBy(IIFNAME, _PORTS.name),),), Hook("filter", "prerouting", _BEFORE_ALL)),
            Chain("forward", (routers, dhcp), Hook("filter", "forward", _FILTER)),
        ),
    )


def _held_sets(network_id: str) -> tuple[SetType, SetType]:
    """The addresses that somebody holds on a network, by version of IP."""
    short = _short(network_id)
    return SetType(f"held4_{short}", (IPV4,)), SetType(f"held6_{short}", (IPV6,))


def _network_chain(network_id: str) -> Chain:
    held4, held6 = _held_sets(network_id)
    advertised: Rule = (Is(ICMPV6, "nd-neighbor-advert"), *_of_another(ND_TARGET, held6, _OWN6))
    rules = (
        _of_another(ETHER_SADDR, _HELD_MAC, _OWN_MAC),
        _of_another(IP_SADDR, held4, _OWN4),
        _of_another(ARP_SADDR_IP, held4, _OWN4),
        _of_another(ARP_SADDR_ETHER, _HELD_MAC, _OWN_MAC),
        _of_another(IP6_SADDR, held6, _OWN6),
        advertised,
    )
    return Chain(_chain(network_id), rules)


def _of_another(field: Field, held: SetType, own: SetType) -> Rule:
    """Drop what names somebody else there."""
    return (Among((field,), held.name), Among((IIFNAME, field), own.name, negated=True), Verdict.DROP)


def _held_by_gateway(network: Network) -> list[Element]:
    mac = bridge_mac(network.id)
    addresses = [pool.gateway for pool in network.pools if pool.gateway]
    return _held(network.id, mac, [*addresses, link_local(mac)] if network.ipv6 else addresses)


def _held(network_id: str, mac: str, addresses: Iterable[str]) -> list[Element]:
    held4, held6 = _held_sets(network_id)
    return [Element(_HELD_MAC, (mac,)), *(Element(held6 if ":" in one else held4, (one,)) for one in addresses)]


def _chain(network_id: str) -> str:
    return f"net_{_short(network_id)}"


def _short(network_id: str) -> str:
    return network_id[:12]
