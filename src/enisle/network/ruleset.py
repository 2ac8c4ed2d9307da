"""What our nftables tables hold: pure functions of the networks and published ports.

One table of family inet named after the engine, and one of family bridge (:mod:`enisle.network.senders`). Published
ports are elements of maps, so that a new one is one element added and a packet is looked up once, however many there
are. No other table is ever touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from enisle.linux.nftables.model import (
    Among,
    Chain,
    Change,
    CtFlag,
    Dispatch,
    Element,
    Elements,
    Hook,
    Is,
    Jump,
    Masquerade,
    OneOf,
    Redirect,
    Removal,
    Rule,
    SetType,
    Table,
    Verdict,
    Within,
)
from enisle.linux.nftables.values import (
    FIB_DADDR_TYPE,
    ICMP,
    ICMPV6,
    IIFNAME,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    IPV4,
    IPV6,
    L4PROTO,
    OIFNAME,
    PROTOCOL,
    SERVICE,
    TH_DPORT,
    DataType,
    Family,
)
from enisle.model.network import AddressPool, Network
from enisle.network import senders
from enisle.network.options import BridgeOptions, GatewayMode, bridge_options
from enisle.network.senders import Sender

_LOOPBACK = "127.0.0.0/8"
_PUBLISHED = OneOf(L4PROTO, ("tcp", "udp", "sctp"))
_DSTNAT, _OUTPUT_DSTNAT, _SRCNAT, _RAW, _FILTER = -100, -100, 100, -300, 0


@dataclass(frozen=True, slots=True)
class _Maps:
    """Where the published ports of one version of IP are."""

    address: DataType
    version: int

    @property
    def at(self) -> SetType:
        """Those on one address of the host."""
        return SetType(f"published{self.version}_at", (self.address, PROTOCOL, SERVICE), (self.address, SERVICE))

    @property
    def everywhere(self) -> SetType:
        return SetType(f"published{self.version}", (PROTOCOL, SERVICE), (self.address, SERVICE))

    @property
    def open(self) -> SetType:
        """Those reached by the instances' own addresses."""
        return SetType(f"open{self.version}", (self.address, PROTOCOL, SERVICE))


_MAPS = {4: _Maps(IPV4, 4), 6: _Maps(IPV6, 6)}
_SETS = tuple(one for maps in _MAPS.values() for one in (maps.at, maps.everywhere, maps.open))


@dataclass(frozen=True, kw_only=True, slots=True)
class Forward:
    """One published port. ``host_ip`` "0.0.0.0" or "::" is every address of the host; ``host_port`` 0: none of the
    host's, the instance's own address is reached (gateway mode "routed")."""

    protocol: str
    host_ip: str
    host_port: int
    target_ip: str
    target_port: int

    def element(self) -> Element:
        """What it is in our table."""
        maps = _MAPS[6 if ":" in self.target_ip else 4]
        if not self.host_port:
            return Element(maps.open, (self.target_ip, self.protocol, str(self.target_port)))
        target = (self.target_ip, str(self.target_port))
        if self.host_ip in ("0.0.0.0", "::"):
            return Element(maps.everywhere, (self.protocol, str(self.host_port)), target)
        return Element(maps.at, (self.host_ip, self.protocol, str(self.host_port)), target)

    def key(self) -> tuple[str, tuple[str, ...]]:
        """What no other may have at the same time."""
        element = self.element()
        return element.set.name, element.key


def add(table: str, forwards: Iterable[Forward]) -> Elements:
    """Start forwarding; fails as a whole when one of the elements is there with another target."""
    return Elements(family=Family.INET, table=table, elements=[forward.element() for forward in forwards])


def delete(table: str, forwards: Iterable[Forward]) -> Elements:
    """Stop forwarding; fails as a whole when one of the elements is not there."""
    gone = [forward.element() for forward in forwards]
    return Elements(family=Family.INET, table=table, elements=gone, delete=True)


def remove_tables(table: str) -> list[Change]:
    """Remove what is ours, whether it is there or not."""
    return [Removal(Family.INET, table), Removal(Family.BRIDGE, table)]


def whole(
    table: str,
    port_prefix: str,
    networks: Sequence[Network],
    forwards: Iterable[Forward],
    known_senders: Iterable[Sender] = (),
) -> list[Change]:
    """What makes our tables from nothing or from whatever they are now, in one transaction.

    ``port_prefix``: what the names of our instances' host interfaces begin with.
    """
    bridges = [
        _Bridge(network=network, options=bridge_options(network))
        for network in sorted((network for network in networks if network.bridge), key=lambda network: network.bridge)
    ]
    ours = Table(
        family=Family.INET,
        name=table,
        sets=_SETS,
        elements=tuple(forward.element() for forward in forwards),
        chains=(_guard(bridges), *_publish(), _postrouting(bridges), *_forward(bridges)),
    )
    on_bridges = senders.whole(table, port_prefix, [bridge.network for bridge in bridges], known_senders)
    return [*remove_tables(table), ours, on_bridges]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bridge:
    network: Network
    options: BridgeOptions

    @property
    def name(self) -> str:
        return self.network.bridge

    def mode(self, pool: AddressPool) -> GatewayMode:
        return self.options.gateway_mode(_version(pool))


def _version(pool: AddressPool) -> int:
    return 6 if ":" in pool.subnet else 4


def _guard(bridges: Sequence[_Bridge]) -> Chain:
    """Our bridges route 127.0.0.0/8 (for ports published there); nobody behind them may use that."""
    rules: list[Rule] = []
    if bridges:
        ours = OneOf(IIFNAME, tuple(bridge.name for bridge in bridges))
        rules = [(ours, Within(field, _LOOPBACK), Verdict.DROP) for field in (IP_DADDR, IP_SADDR)]
    return Chain("guard", tuple(rules), Hook("filter", "prerouting", _RAW))


def _publish() -> list[Chain]:
    """Destination translation, for what comes in and for the host's own connections.

    What comes in for 127.0.0.1 from another machine is left alone: the kernel then drops it as a martian, whereas
    a translated address would be let through. What is for ::1 the kernel lets nobody send on: keepers relay it.
    """
    translations: list[Rule] = []
    for version, address in ((4, IP_DADDR), (6, IP6_DADDR)):
        maps = _MAPS[version]
        translations.append((Redirect(version, (address, L4PROTO, TH_DPORT), maps.at.name),))
        translations.append((Redirect(version, (L4PROTO, TH_DPORT), maps.everywhere.name),))
    to_us: Rule = (_PUBLISHED, Is(FIB_DADDR_TYPE, "local"), Jump("publish"))
    arriving: tuple[Rule, ...] = ((Within(IP_DADDR, _LOOPBACK), Verdict.RETURN), to_us)
    own: tuple[Rule, ...] = ((Is(IP6_DADDR, "::1"), Verdict.RETURN), to_us)
    return [
        Chain("publish", tuple(translations)),
        Chain("prerouting", arriving, Hook("nat", "prerouting", _DSTNAT)),
        Chain("output", own, Hook("nat", "output", _OUTPUT_DSTNAT)),
    ]


def _postrouting(bridges: Sequence[_Bridge]) -> Chain:
    rules: list[Rule] = []
    for bridge in bridges:
        into, internal = Is(OIFNAME, bridge.name), bridge.network.internal
        rules.append((into, Within(IP_SADDR, _LOOPBACK), Masquerade()))
        for pool in bridge.network.pools:
            inside = Within(IP6_SADDR if _version(pool) == 6 else IP_SADDR, pool.subnet)
            # A neighbour reached by a published port would answer directly, untranslated, if it saw who asks.
            rules.append((into, inside, CtFlag.TRANSLATED, Masquerade()))
            if not internal and bridge.options.masquerade and bridge.mode(pool) is not GatewayMode.ROUTED:
                rules.append((Is(OIFNAME, bridge.name, negated=True), inside, Masquerade()))
    return Chain("postrouting", tuple(rules), Hook("nat", "postrouting", _SRCNAT))


def _forward(bridges: Sequence[_Bridge]) -> list[Chain]:
    """Into a network come answers, published ports and neighbours only; out of an internal one goes nothing."""
    chains = []
    for position, bridge in enumerate(bridges):
        rules: list[Rule] = []
        if not bridge.network.internal:
            rules.append((CtFlag.TRANSLATED, Verdict.ACCEPT))
            rules += [rule for pool in bridge.network.pools for rule in _open_rules(bridge, pool)]
        rules.append((Is(IIFNAME, bridge.name), Verdict.ACCEPT if bridge.options.icc else Verdict.DROP))
        chains.append(Chain(f"to_{position}", (*rules, (Verdict.DROP,))))
    forward: list[Rule] = [(CtFlag.ANSWER_OR_RELATED, Verdict.ACCEPT)]
    if bridges:
        ways = tuple((bridge.name, Jump(f"to_{position}")) for position, bridge in enumerate(bridges))
        forward.append((Dispatch(OIFNAME, ways),))
    if internal := tuple(bridge.name for bridge in bridges if bridge.network.internal):
        forward.append((OneOf(IIFNAME, internal), Verdict.DROP))
    return [*chains, Chain("forward", tuple(forward), Hook("filter", "forward", _FILTER))]


def _open_rules(bridge: _Bridge, pool: AddressPool) -> list[Rule]:
    """What comes in for an instance's own address, from elsewhere."""
    version = _version(pool)
    elsewhere = Is(IIFNAME, bridge.name, negated=True)
    address = IP6_DADDR if version == 6 else IP_DADDR
    match bridge.mode(pool):
        case GatewayMode.NAT_UNPROTECTED:
            return [(elsewhere, Within(address, pool.subnet), Verdict.ACCEPT)]
        case GatewayMode.ROUTED:
            ping = Is(ICMPV6 if version == 6 else ICMP, "echo-request")
            ports = Among((address, L4PROTO, TH_DPORT), _MAPS[version].open.name)
            return [
                (elsewhere, ports, Verdict.ACCEPT),
                (elsewhere, Within(address, pool.subnet), ping, Verdict.ACCEPT),
            ]
        case _:
            return []
