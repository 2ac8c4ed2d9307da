"""What our nftables table holds, as text: pure functions of the networks and published ports.

One table of family inet named after the engine, and one of family bridge (:mod:`enisle.network.senders`). Published
ports are elements of maps, so that a new one is one element added and a packet is looked up once, however many there
are. No other table is ever touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from enisle.model.network import AddressPool, Network
from enisle.network import senders
from enisle.network.options import BridgeOptions, GatewayMode, bridge_options
from enisle.network.senders import Sender


@dataclass(frozen=True, kw_only=True, slots=True)
class Forward:
    """One published port. ``host_ip`` "0.0.0.0" or "::" is every address of the host; ``host_port`` 0: none of the
    host's, the instance's own address is reached (gateway mode "routed")."""

    protocol: str
    host_ip: str
    host_port: int
    target_ip: str
    target_port: int

    def key(self) -> tuple[str, str]:
        """The map it belongs to, and its key there."""
        version = 6 if ":" in self.target_ip else 4
        if not self.host_port:
            return f"open{version}", f"{self.target_ip} . {self.protocol} . {self.target_port}"
        port = f"{self.protocol} . {self.host_port}"
        if self.host_ip in ("0.0.0.0", "::"):
            return f"published{version}", port
        return f"published{version}_at", f"{self.host_ip} . {port}"

    def element(self) -> tuple[str, str]:
        """The map, or set, it belongs to, and what it is there."""
        name, key = self.key()
        return name, f"{key} : {self.target_ip} . {self.target_port}" if self.host_port else key


def add(table: str, forwards: Iterable[Forward]) -> str:
    """Start forwarding; fails as a whole when one of the elements is there with another target."""
    parts = [forward.element() for forward in forwards]
    return "\n".join(f"add element inet {table} {name} {{ {content} }}" for name, content in parts)


def delete(table: str, forwards: Iterable[Forward]) -> str:
    """Stop forwarding; fails as a whole when one of the elements is not there."""
    parts = [forward.key() for forward in forwards]
    return "\n".join(f"delete element inet {table} {name} {{ {key} }}" for name, key in parts)


def remove_tables(table: str) -> str:
    """Remove what is ours, whether it is there or not."""
    return "\n".join(f"table {family} {table}\ndelete table {family} {table}" for family in ("inet", "bridge"))


def whole(
    table: str,
    port_prefix: str,
    networks: Sequence[Network],
    forwards: Iterable[Forward],
    known_senders: Iterable[Sender] = (),
) -> str:
    """The script that makes our tables from nothing or from whatever they are now, in one transaction.

    ``port_prefix``: what the names of our instances' host interfaces begin with.
    """
    bridges = [
        _Bridge(network=network, options=bridge_options(network))
        for network in sorted((network for network in networks if network.bridge), key=lambda network: network.bridge)
    ]
    elements: dict[str, list[str]] = {}
    for forward in forwards:
        name, content = forward.element()
        elements.setdefault(name, []).append(content)
    lines = [remove_tables(table), f"table inet {table} {{"]
    for kind, name, key_type in (
        ("map", "published4_at", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"),
        ("map", "published4", "inet_proto . inet_service : ipv4_addr . inet_service"),
        ("map", "published6_at", "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service"),
        ("map", "published6", "inet_proto . inet_service : ipv6_addr . inet_service"),
        ("set", "open4", "ipv4_addr . inet_proto . inet_service"),
        ("set", "open6", "ipv6_addr . inet_proto . inet_service"),
    ):
        held = elements.get(name)
        content = f" elements = {{ {', '.join(sorted(held))} }};" if held else ""
        lines.append(f"  {kind} {name} {{ type {key_type};{content} }}")
    lines += _guard(bridges) + _publish() + _postrouting(bridges) + _forward(bridges)
    lines += ["}", *senders.whole(table, port_prefix, [bridge.network for bridge in bridges], known_senders)]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bridge:
    network: Network
    options: BridgeOptions

    @property
    def name(self) -> str:
        return self.network.bridge

    def mode(self, pool: AddressPool) -> GatewayMode:
        return self.options.gateway_mode(6 if ":" in pool.subnet else 4)


def _guard(bridges: Sequence[_Bridge]) -> list[str]:
    """Our bridges route 127.0.0.0/8 (for ports published there); nobody behind them may use that."""
    rules = []
    if bridges:
        names = ", ".join(f'"{bridge.name}"' for bridge in bridges)
        rules = [
            f"    iifname {{ {names} }} ip daddr 127.0.0.0/8 drop",
            f"    iifname {{ {names} }} ip saddr 127.0.0.0/8 drop",
        ]
    return ["  chain guard {", "    type filter hook prerouting priority raw; policy accept;", *rules, "  }"]


def _publish() -> list[str]:
    """Destination translation, for what comes in and for the host's own connections.

    What comes in for 127.0.0.1 from another machine is left alone: the kernel then drops it as a martian, whereas
    a translated address would be let through. What is for ::1 the kernel lets nobody send on: keepers relay it.
    """
    return [
        "  chain publish {",
        "    dnat ip to ip daddr . meta l4proto . th dport map @published4_at",
        "    dnat ip to meta l4proto . th dport map @published4",
        "    dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at",
        "    dnat ip6 to meta l4proto . th dport map @published6",
        "  }",
        "  chain prerouting {",
        "    type nat hook prerouting priority dstnat; policy accept;",
        "    ip daddr 127.0.0.0/8 return",
        "    meta l4proto { tcp, udp, sctp } fib daddr type local jump publish",
        "  }",
        "  chain output {",
        "    type nat hook output priority -100; policy accept;",
        "    ip6 daddr ::1 return",
        "    meta l4proto { tcp, udp, sctp } fib daddr type local jump publish",
        "  }",
    ]


def _postrouting(bridges: Sequence[_Bridge]) -> list[str]:
    lines = ["  chain postrouting {", "    type nat hook postrouting priority srcnat; policy accept;"]
    for bridge in bridges:
        name, internal = bridge.name, bridge.network.internal
        lines.append(f'    oifname "{name}" ip saddr 127.0.0.0/8 masquerade')
        for pool in bridge.network.pools:
            family = "ip6" if ":" in pool.subnet else "ip"
            # A neighbour reached by a published port would answer directly, untranslated, if it saw who asks.
            lines.append(f'    oifname "{name}" {family} saddr {pool.subnet} ct status dnat masquerade')
            if not internal and bridge.options.masquerade and bridge.mode(pool) is not GatewayMode.ROUTED:
                lines.append(f'    oifname != "{name}" {family} saddr {pool.subnet} masquerade')
    return [*lines, "  }"]


def _forward(bridges: Sequence[_Bridge]) -> list[str]:
    """Into a network come answers, published ports and neighbours only; out of an internal one goes nothing."""
    lines = []
    for position, bridge in enumerate(bridges):
        lines.append(f"  chain to_{position} {{")
        if not bridge.network.internal:
            lines.append("    ct status dnat accept")
            lines += [rule for pool in bridge.network.pools if (rule := _open_rule(bridge, pool))]
        lines += [f'    iifname "{bridge.name}" {"accept" if bridge.options.icc else "drop"}', "    drop", "  }"]
    lines += ["  chain forward {", "    type filter hook forward priority filter; policy accept;"]
    lines.append("    ct state established,related accept")
    internal = ", ".join(f'"{bridge.name}"' for bridge in bridges if bridge.network.internal)
    if bridges:
        verdicts = ", ".join(f'"{bridge.name}" : jump to_{position}' for position, bridge in enumerate(bridges))
        lines.append(f"    oifname vmap {{ {verdicts} }}")
    if internal:
        lines.append(f"    iifname {{ {internal} }} drop")
    return [*lines, "  }"]


def _open_rule(bridge: _Bridge, pool: AddressPool) -> str:
    """What comes in for an instance's own address, from elsewhere."""
    version = 6 if ":" in pool.subnet else 4
    family = "ip6" if version == 6 else "ip"
    elsewhere = f'    iifname != "{bridge.name}" {family} daddr'
    match bridge.mode(pool):
        case GatewayMode.NAT_UNPROTECTED:
            return f"{elsewhere} {pool.subnet} accept"
        case GatewayMode.ROUTED:
            icmp = "icmp type echo-request" if version == 4 else "icmpv6 type echo-request"
            return (
                f"{elsewhere} . meta l4proto . th dport @open{version} accept\n{elsewhere} {pool.subnet} {icmp} accept"
            )
        case _:
            return ""
