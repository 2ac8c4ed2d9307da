"""Who may send as whom on a bridge: our nftables table of family bridge, as text. Pure.

What an instance, or the gateway, holds on a network (MAC, addresses) nobody else there may use as a sender, in ARP or
as the target of a neighbour advertisement. Whatever nobody holds may be used: a router forwards what others have
sent, and an address that moves between instances is theirs to move.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from enisle.model.instance import Endpoint
from enisle.model.network import Network

Element = tuple[str, str]
"""A set, or a map, of the table, and what is in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    """A port of a bridge, and what its instance holds."""

    network_id: str
    ifname: str
    mac: str
    addresses: tuple[str, ...]

    def elements(self) -> list[Element]:
        port = f'"{self.ifname}"'
        found = [*_held(self.network_id, self.mac, self.addresses), ("own_mac", f"{port} . {self.mac}")]
        for address in self.addresses:
            if ":" in address:
                found.append(("own6", f"{port} . {address}"))
                found.append(("own_target", f"{port} . {_number(address)}"))
            else:
                found.append(("own4", f"{port} . {address}"))
        return [*found, ("ports", f"{port} : jump {_chain(self.network_id)}")]


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


def add(table: str, elements: Iterable[Element]) -> str:
    """Let them send; what is there already stays."""
    return "\n".join(f"add element bridge {table} {name} {{ {content} }}" for name, content in elements)


def delete(table: str, elements: Iterable[Element]) -> str:
    """Fails as a whole when one of the elements is not there."""
    keys = ((name, content.partition(" : ")[0]) for name, content in elements)
    return "\n".join(f"delete element bridge {table} {name} {{ {key} }}" for name, key in keys)


def whole(table: str, port_prefix: str, networks: Sequence[Network], senders: Iterable[Sender]) -> list[str]:
    """The lines that make the table. ``port_prefix``: what the names of our host interfaces begin with."""
    elements: dict[str, dict[str, None]] = {}
    known = {network.id for network in networks}
    held = [element for network in networks for element in _held_by_gateway(network)]
    held += [element for sender in senders if sender.network_id in known for element in sender.elements()]
    for name, content in held:
        elements.setdefault(name, {})[content] = None
    lines = [f"table bridge {table} {{"]
    for name, kind in _sets(networks):
        word = "map" if name == "ports" else "set"
        content = ", ".join(sorted(elements.get(name, ())))
        lines.append(f"  {word} {name} {{ {kind};{f' elements = {{ {content} }};' if content else ''} }}")
    for network in networks:
        lines += _network_chain(network.id)
    return [
        *lines,
        "  chain senders {",
        "    type filter hook prerouting priority -300; policy accept;",
        "    iifname vmap @ports",
        "  }",
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        f'    iifname "{port_prefix}*" icmpv6 type {{ nd-router-advert, nd-redirect }} drop',
        f'    iifname "{port_prefix}*" udp sport 67 drop',
        "  }",
        "}",
    ]


def _sets(networks: Sequence[Network]) -> list[tuple[str, str]]:
    found = [
        ("held_mac", "type ether_addr"),
        ("own_mac", "type ifname . ether_addr"),
        ("own4", "type ifname . ipv4_addr"),
        ("own6", "type ifname . ipv6_addr"),
        ("own_target", "typeof iifname . @th,64,128"),
    ]
    for network in networks:
        short = _short(network.id)
        found += [
            (f"held4_{short}", "type ipv4_addr"),
            (f"held6_{short}", "type ipv6_addr"),
            (f"target_{short}", "typeof @th,64,128"),
        ]
    return [*found, ("ports", "type ifname : verdict")]


def _network_chain(network_id: str) -> list[str]:
    short = _short(network_id)
    return [
        f"  chain {_chain(network_id)} {{",
        "    ether saddr @held_mac iifname . ether saddr != @own_mac drop",
        f"    ip saddr @held4_{short} iifname . ip saddr != @own4 drop",
        f"    arp saddr ip @held4_{short} iifname . arp saddr ip != @own4 drop",
        "    arp saddr ether @held_mac iifname . arp saddr ether != @own_mac drop",
        f"    ip6 saddr @held6_{short} iifname . ip6 saddr != @own6 drop",
        f"    icmpv6 type nd-neighbor-advert @th,64,128 @target_{short} iifname . @th,64,128 != @own_target drop",
        "  }",
    ]


def _held_by_gateway(network: Network) -> list[Element]:
    mac = bridge_mac(network.id)
    addresses = [pool.gateway for pool in network.pools if pool.gateway]
    return _held(network.id, mac, [*addresses, link_local(mac)] if network.ipv6 else addresses)


def _held(network_id: str, mac: str, addresses: Iterable[str]) -> list[Element]:
    short = _short(network_id)
    found = [("held_mac", mac)]
    for address in addresses:
        if ":" in address:
            found += [(f"held6_{short}", address), (f"target_{short}", _number(address))]
        else:
            found.append((f"held4_{short}", address))
    return found


def _number(address: str) -> str:
    """An address as nft wants it where it cannot know that it is one."""
    return f"0x{int(ipaddress.IPv6Address(address)):032x}"


def _chain(network_id: str) -> str:
    return f"net_{_short(network_id)}"


def _short(network_id: str) -> str:
    return network_id[:12]
