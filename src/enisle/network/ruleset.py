"""What our nftables table holds, as text: pure functions of the networks and published ports.

One table of family inet named after the engine. Published ports are elements of maps, so that a new one is one
element added and a packet is looked up once, however many there are. No other table is ever touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from enisle.model.network import Network

ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forward:
    """One published port. ``host_ip`` "0.0.0.0" or "::" is every address of the host."""

    protocol: str
    host_ip: str
    host_port: int
    target_ip: str
    target_port: int

    def key(self) -> tuple[str, str]:
        """The map it belongs to, and its key there."""
        port = f"{self.protocol} . {self.host_port}"
        version = 6 if ":" in self.host_ip else 4
        if self.host_ip in ("0.0.0.0", "::"):
            return f"published{version}", port
        return f"published{version}_at", f"{self.host_ip} . {port}"

    def value(self) -> str:
        """What the map has for it."""
        return f"{self.target_ip} . {self.target_port}"


def add(table: str, forwards: Iterable[Forward]) -> str:
    """Start forwarding; fails as a whole when one of the elements is there with another target."""
    parts = [(*forward.key(), forward.value()) for forward in forwards]
    return "\n".join(f"add element inet {table} {name} {{ {key} : {value} }}" for name, key, value in parts)


def delete(table: str, forwards: Iterable[Forward]) -> str:
    """Stop forwarding; fails as a whole when one of the elements is not there."""
    parts = [forward.key() for forward in forwards]
    return "\n".join(f"delete element inet {table} {name} {{ {key} }}" for name, key in parts)


def remove_tables(table: str) -> str:
    """Remove what is ours, whether it is there or not."""
    return "\n".join(f"table {family} {table}\ndelete table {family} {table}" for family in ("inet", "bridge"))


def whole(table: str, port_prefix: str, networks: Sequence[Network], forwards: Iterable[Forward]) -> str:
    """The script that makes our tables from nothing or from whatever they are now, in one transaction.

    ``port_prefix``: what the names of our instances' host interfaces begin with.
    """
    bridges = sorted((network for network in networks if network.bridge), key=lambda network: network.bridge)
    elements: dict[str, list[str]] = {}
    for forward in forwards:
        name, key = forward.key()
        elements.setdefault(name, []).append(f"{key} : {forward.value()}")
    lines = [remove_tables(table), f"table inet {table} {{"]
    for name, key_type in (
        ("published4_at", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"),
        ("published4", "inet_proto . inet_service : ipv4_addr . inet_service"),
        ("published6_at", "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service"),
        ("published6", "inet_proto . inet_service : ipv6_addr . inet_service"),
    ):
        held = elements.get(name)
        content = f" elements = {{ {', '.join(sorted(held))} }};" if held else ""
        lines.append(f"  map {name} {{ type {key_type};{content} }}")
    lines += _guard(bridges) + _publish() + _postrouting(bridges) + _forward(bridges)
    lines += ["}", *_bridge_table(table, port_prefix)]
    return "\n".join(lines) + "\n"


def _guard(bridges: Sequence[Network]) -> list[str]:
    """Our bridges route 127.0.0.0/8 (for ports published there); nobody behind them may use that."""
    rules = []
    if bridges:
        names = ", ".join(f'"{network.bridge}"' for network in bridges)
        rules = [
            f"    iifname {{ {names} }} ip daddr 127.0.0.0/8 drop",
            f"    iifname {{ {names} }} ip saddr 127.0.0.0/8 drop",
        ]
    return ["  chain guard {", "    type filter hook prerouting priority raw; policy accept;", *rules, "  }"]


def _publish() -> list[str]:
    """Destination translation, for what comes in and for the host's own connections.

    What comes in for 127.0.0.1 from another machine is left alone: the kernel then drops it as a martian, whereas
    a translated address would be let through.
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
        "    meta l4proto { tcp, udp } fib daddr type local jump publish",
        "  }",
        "  chain output {",
        "    type nat hook output priority -100; policy accept;",
        "    meta l4proto { tcp, udp } fib daddr type local jump publish",
        "  }",
    ]


def _postrouting(bridges: Sequence[Network]) -> list[str]:
    lines = ["  chain postrouting {", "    type nat hook postrouting priority srcnat; policy accept;"]
    for network in bridges:
        name = network.bridge
        lines.append(f'    oifname "{name}" ip saddr 127.0.0.0/8 masquerade')
        for pool in network.pools:
            family = "ip6" if ":" in pool.subnet else "ip"
            # A neighbour reached by a published port would answer directly, untranslated, if it saw who asks.
            lines.append(f'    oifname "{name}" {family} saddr {pool.subnet} ct status dnat masquerade')
            if not network.internal and network.options.get(MASQUERADE, "true") != "false":
                lines.append(f'    oifname != "{name}" {family} saddr {pool.subnet} masquerade')
    return [*lines, "  }"]


def _forward(bridges: Sequence[Network]) -> list[str]:
    """Into a network come answers, published ports and neighbours only; out of an internal one goes nothing."""
    lines = []
    for position, network in enumerate(bridges):
        neighbours = "drop" if network.options.get(ICC) == "false" else "accept"
        lines.append(f"  chain to_{position} {{")
        if not network.internal:
            lines.append("    ct status dnat accept")
        lines += [f'    iifname "{network.bridge}" {neighbours}', "    drop", "  }"]
    lines += ["  chain forward {", "    type filter hook forward priority filter; policy accept;"]
    lines.append("    ct state established,related accept")
    internal = ", ".join(f'"{network.bridge}"' for network in bridges if network.internal)
    if bridges:
        verdicts = ", ".join(f'"{network.bridge}" : jump to_{position}' for position, network in enumerate(bridges))
        lines.append(f"    oifname vmap {{ {verdicts} }}")
    if internal:
        lines.append(f"    iifname {{ {internal} }} drop")
    return [*lines, "  }"]


def _bridge_table(table: str, port_prefix: str) -> list[str]:
    """Instances do not tell their neighbours where the router is, or what address to use."""
    return [
        f"table bridge {table} {{",
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        f'    iifname "{port_prefix}*" icmpv6 type nd-router-advert drop',
        f'    iifname "{port_prefix}*" udp sport 67 drop',
        "  }",
        "}",
    ]
