"""nftables on the real kernel, in namespaces made here; what we have made is read by nft."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest

from enisle.linux.netlink import NLM_F_CREATE, NetlinkSocket, attribute, text
from enisle.linux.nftables.connection import Nftables, NftablesError
from enisle.linux.nftables.expressions import number
from enisle.linux.nftables.model import (
    Among,
    Chain,
    Change,
    CtFlag,
    Dispatch,
    DispatchBy,
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
    ARP_SADDR_ETHER,
    ARP_SADDR_IP,
    ETHER,
    ETHER_SADDR,
    FIB_DADDR_TYPE,
    ICMP,
    ICMPV6,
    IFNAME,
    IIFNAME,
    IP6_DADDR,
    IP6_SADDR,
    IP_DADDR,
    IP_SADDR,
    IPV4,
    IPV6,
    L4PROTO,
    ND_TARGET,
    OIFNAME,
    PROTOCOL,
    SERVICE,
    TH_DPORT,
    UDP_SPORT,
    Family,
)
from tests.linux.netns import Namespace, nft

MAP = SetType("m", (PROTOCOL, SERVICE), (IPV4, SERVICE))
TABLE = Table(family=Family.INET, name="t", sets=(MAP,), elements=(), chains=())


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


def commit(*changes: Change) -> None:
    with Nftables() as tables:
        tables.commit(*changes)


def forwards(*ports: int, table: str = "t", delete: bool = False) -> Elements:
    elements = [Element(MAP, ("tcp", str(port)), ("10.0.0.2", "8080")) for port in ports]
    return Elements(family=Family.INET, table=table, elements=elements, delete=delete)


def test_a_transaction_is_all_or_nothing(host: Namespace) -> None:
    host.run(commit, TABLE, forwards(80))
    with pytest.raises(NftablesError, match=r"nftables: elements tcp \. 1 : .* of m: No such file or directory"):
        host.run(commit, forwards(80, delete=True), forwards(1, table="nope"))
    with pytest.raises(NftablesError, match=r"elements tcp \. 81 : .* of m: No such file or directory"):
        host.run(commit, forwards(80, delete=True), forwards(81, delete=True))
    assert "tcp . 80 : 10.0.0.2 . 8080" in host.run(nft, "list map inet t m")
    host.run(commit, forwards(80), forwards(80, delete=True))
    assert "elements" not in host.run(nft, "list map inet t m")
    host.run(commit, Removal(Family.INET, "t"), Removal(Family.INET, "t"))
    assert host.run(nft, "list tables") == ""


def test_other_data_is_refused(host: Namespace) -> None:
    host.run(commit, TABLE, forwards(80))
    other = Element(MAP, ("tcp", "80"), ("10.0.0.3", "1"))
    with pytest.raises(NftablesError, match=r"elements tcp \. 80 : 10\.0\.0\.3 \. 1 of m: File exists"):
        host.run(commit, Elements(family=Family.INET, table="t", elements=[other]))


def test_thousands_at_once(host: Namespace) -> None:
    host.run(commit, TABLE, forwards(*range(1, 10_001)))
    assert host.run(nft, "list map inet t m").count("10.0.0.2") == 10_000
    host.run(commit, forwards(*range(1, 10_001), delete=True))
    assert "elements" not in host.run(nft, "list map inet t m")


def test_threads_take_turns(host: Namespace) -> None:
    def work() -> str:
        with Nftables() as tables:
            tables.commit(TABLE)

            def add(first: int) -> None:
                for port in range(first, first + 50):
                    tables.commit(forwards(port))

            threads = [threading.Thread(target=add, args=(first,)) for first in (1000, 2000, 3000)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return nft("list map inet t m")

    assert host.run(work).count("10.0.0.2") == 150


def test_closed(host: Namespace) -> None:
    def work() -> None:
        tables = Nftables()
        tables.close()
        tables.close()
        with pytest.raises(NftablesError):
            tables.commit(TABLE)

    host.run(work)


HELD = SetType("held", (ETHER,))
OWN = SetType("own", (IFNAME, ETHER))
OPEN = SetType("open", (IPV6, PROTOCOL, SERVICE))
MAP6 = SetType("m6", (IPV6, PROTOCOL, SERVICE), (IPV6, SERVICE))
PORTS = SetType("ports", (IFNAME,), verdicts=True)
RULES: dict[Family, list[Rule]] = {
    Family.INET: [
        (Is(IIFNAME, "br0"), Verdict.ACCEPT),
        (Is(OIFNAME, "br0", negated=True), Verdict.DROP),
        (Is(IIFNAME, "v-*"), Is(UDP_SPORT, "67"), Verdict.RETURN),
        (OneOf(IIFNAME, ("br0", "fifteen-letters")), Within(IP_SADDR, "127.0.0.0/8"), Verdict.DROP),
        (Within(IP_DADDR, "10.1.16.0/20"), Is(ICMP, "echo-request"), Verdict.ACCEPT),
        (Within(IP6_SADDR, "fd00:1::/64"), Within(IP6_DADDR, "fd00:2::/61"), Verdict.ACCEPT),
        (Within(IP6_DADDR, "fd00:2::/64"), Is(ICMPV6, "echo-request"), Verdict.ACCEPT),
        (Is(IP6_DADDR, "::1"), Verdict.RETURN),
        (CtFlag.ANSWER_OR_RELATED, Verdict.ACCEPT),
        (CtFlag.TRANSLATED, Verdict.ACCEPT),
        (OneOf(L4PROTO, ("tcp", "udp", "sctp")), Is(FIB_DADDR_TYPE, "local"), Jump("more")),
        (Among((IP6_DADDR, L4PROTO, TH_DPORT), "open"), Verdict.ACCEPT),
        (Dispatch(OIFNAME, (("br0", Jump("more")), ("br1", Jump("more")))),),
    ],
    Family.BRIDGE: [
        (Among((ETHER_SADDR,), "held"), Among((IIFNAME, ETHER_SADDR), "own", negated=True), Verdict.DROP),
        (Among((ARP_SADDR_ETHER,), "held"), Verdict.DROP),
        (Is(ARP_SADDR_IP, "10.1.0.1"), Verdict.DROP),
        (Is(IP_SADDR, "10.1.0.1"), Verdict.DROP),
        (Is(IP6_SADDR, "fd00::1"), Verdict.DROP),
        (OneOf(ICMPV6, ("nd-router-advert", "nd-redirect")), Verdict.DROP),
        (Is(UDP_SPORT, "67"), Verdict.DROP),
        (DispatchBy(IIFNAME, "ports"),),
    ],
}
TRANSLATIONS: tuple[Rule, ...] = (
    (Redirect(4, (L4PROTO, TH_DPORT), "m"),),
    (Redirect(6, (IP6_DADDR, L4PROTO, TH_DPORT), "m6"),),
)
HOUSE: tuple[Rule, ...] = ((Within(IP_SADDR, "10.1.0.0/16"), Masquerade()),)


def everything(family: Family) -> Table:
    chains = [Chain("more", ((Verdict.DROP,),)), Chain("every", tuple(RULES[family]), Hook("filter", "forward", 0))]
    sets, elements = [HELD, OWN, PORTS], [
        Element(HELD, ("02:42:ac:00:00:02",)),
        Element(OWN, ("v-1", "02:42:ac:00:00:02")),
        Element(PORTS, ("v-1",), Jump("more")),
    ]  # fmt: skip
    if family is Family.INET:
        sets += [MAP, MAP6, OPEN]
        elements += [
            Element(MAP, ("udp", "53"), ("10.1.0.2", "5353")),
            Element(MAP6, ("fd00::1", "tcp", "80"), ("fd00::2", "8080")),
            Element(OPEN, ("fd00::2", "sctp", "1")),
        ]
        chains += [
            Chain("arriving", TRANSLATIONS, Hook("nat", "prerouting", -100)),
            Chain("leaving", HOUSE, Hook("nat", "postrouting", 100)),
        ]
    return Table(family=family, name="t", sets=tuple(sets), elements=tuple(elements), chains=tuple(chains))


def listing(namespace: Namespace) -> list[str]:
    """The ruleset as nft shows it, with what is in braces sorted: its order is a hash table's."""
    found = namespace.run(nft, "list ruleset").splitlines()
    return [re.sub(r"\{ (.*) \}", lambda match: " ".join(sorted(match[1].split(", "))), line) for line in found]


@pytest.mark.parametrize("family", list(Family))
def test_the_kernel_gets_what_a_table_says_in_nfts_words(host: Namespace, family: Family) -> None:
    table = everything(family)
    host.run(commit, table)
    with Namespace() as other:
        other.run(nft, str(table))
        assert listing(host) == listing(other)
        assert len(listing(host)) > 30


def test_neighbour_advertisements(host: Namespace) -> None:
    """What nft of 2023 has no words for."""
    held = SetType("held6", (IPV6,))
    rule: Rule = (Is(ICMPV6, "nd-neighbor-advert"), Among((ND_TARGET,), "held6"), Verdict.DROP)
    chain = Chain("c", (rule,))
    host.run(commit, Table(family=Family.BRIDGE, name="t", sets=(held,), elements=(), chains=(chain,)))
    shown = host.run(nft, "list chain bridge t c")
    assert "icmpv6 type nd-neighbor-advert" in shown and "@held6 drop" in shown
    assert "@th,64,128" in shown or "icmpv6 taddr" in shown


def make_unreadable_table() -> None:
    """One whose set says by its user data that its key is an expression of a kind that libnftables does not take there:
    1.0.6 calls a null pointer then. A newer nft's tables look like that to it."""
    subsystem, create, family = 10 << 8, NLM_F_CREATE, bytes((1, 0, 0, 0))
    kind_of_key = bytes((3, 8, 0, 4)) + (2).to_bytes(4, "little") + bytes((1, 0))
    key = [number(3, 0), number(4, 5), number(5, 4), number(10, 1), attribute(13, kind_of_key)]
    with NetlinkSocket(12) as netlink:
        assert not netlink.exchange(
            [
                (0x10, 0, bytes((0, 0, 0, 10))),
                (subsystem | 0, create, family + text(1, "foreign")),
                (subsystem | 9, create, family + text(1, "foreign") + text(2, "s") + b"".join(key)),
                (0x11, 0, bytes((0, 0, 0, 10))),
            ]
        )


def test_tables_of_others_that_cannot_be_read(host: Namespace) -> None:
    host.run(make_unreadable_table)
    host.run(commit, TABLE, forwards(80))
    host.run(commit, forwards(80, delete=True))
    assert host.run(dropping) == []


def dropping() -> list[str]:
    with Nftables() as tables:
        return tables.dropping_chains()


def test_who_drops_what_is_forwarded(host: Namespace) -> None:
    host.run(nft, "table ip quiet { chain c { type filter hook forward priority 0; policy accept; }; }")
    host.run(nft, "table bridge bridged { chain c { type filter hook forward priority 0; policy drop; }; }")
    assert host.run(dropping) == []
    host.run(nft, "table ip strict { chain c { type filter hook forward priority 0; policy drop; }; }")
    assert host.run(dropping) == ["strict"]
