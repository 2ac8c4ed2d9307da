"""Our nftables tables, in nft's words."""

from __future__ import annotations

from dataclasses import replace

from enisle.model.ids import NetworkId
from enisle.model.network import AddressPool, Network
from enisle.network import options, ruleset
from enisle.network.ruleset import Forward
from enisle.network.senders import Sender

WEB = Forward(protocol="tcp", host_ip="0.0.0.0", host_port=80, target_ip="10.1.0.2", target_port=8080)
LOCAL = Forward(protocol="udp", host_ip="127.0.0.1", host_port=53, target_ip="10.1.0.3", target_port=53)
WEB6 = Forward(protocol="tcp", host_ip="::", host_port=80, target_ip="fd00::2", target_port=8080)

SENDER = Sender(network_id="7430" * 6, ifname="t-1", mac="02:42:ac:00:00:02", addresses=("10.1.0.2", "fd00::2"))


def network(name: str, subnet: str, **fields: object) -> Network:
    """Its id is the name, in hexadecimal digits."""
    pools = (AddressPool(subnet=subnet),)
    return Network(id=NetworkId(name.encode().hex() * 6), name=name, bridge=name, pools=pools, **fields)  # type: ignore[arg-type]


GOLDEN = """\
table inet t
delete table inet t
table bridge t
delete table bridge t
table inet t {
  map published4_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; \
elements = { 127.0.0.1 . udp . 53 : 10.1.0.3 . 53 }; }
  map published4 { type inet_proto . inet_service : ipv4_addr . inet_service; \
elements = { tcp . 80 : 10.1.0.2 . 8080 }; }
  set open4 { type ipv4_addr . inet_proto . inet_service; }
  map published6_at { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  map published6 { type inet_proto . inet_service : ipv6_addr . inet_service; \
elements = { tcp . 80 : fd00::2 . 8080 }; }
  set open6 { type ipv6_addr . inet_proto . inet_service; }
  chain guard {
    type filter hook prerouting priority -300; policy accept;
    iifname { "in0", "t0" } ip daddr 127.0.0.0/8 drop
    iifname { "in0", "t0" } ip saddr 127.0.0.0/8 drop
  }
  chain publish {
    dnat ip to ip daddr . meta l4proto . th dport map @published4_at
    dnat ip to meta l4proto . th dport map @published4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at
    dnat ip6 to meta l4proto . th dport map @published6
  }
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    ip daddr 127.0.0.0/8 return
    meta l4proto { tcp, udp, sctp } fib daddr type local jump publish
  }
  chain output {
    type nat hook output priority -100; policy accept;
    ip6 daddr ::1 return
    meta l4proto { tcp, udp, sctp } fib daddr type local jump publish
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    oifname "in0" ip saddr 127.0.0.0/8 masquerade
    oifname "in0" ip saddr 10.2.0.0/16 ct status dnat masquerade
    oifname "t0" ip saddr 127.0.0.0/8 masquerade
    oifname "t0" ip saddr 10.1.0.0/16 ct status dnat masquerade
    oifname != "t0" ip saddr 10.1.0.0/16 masquerade
  }
  chain to_0 {
    iifname "in0" accept
    drop
  }
  chain to_1 {
    ct status dnat accept
    iifname "t0" accept
    drop
  }
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state established,related accept
    oifname vmap { "in0" : jump to_0, "t0" : jump to_1 }
    iifname { "in0" } drop
  }
}
table bridge t {
  set held_mac { type ether_addr; elements = { 02:42:69:6e:30:69, 02:42:74:30:74:30, 02:42:ac:00:00:02 }; }
  set own_mac { type ifname . ether_addr; elements = { "t-1" . 02:42:ac:00:00:02 }; }
  set own4 { type ifname . ipv4_addr; elements = { "t-1" . 10.1.0.2 }; }
  set own6 { type ifname . ipv6_addr; elements = { "t-1" . fd00::2 }; }
  set held4_696e30696e30 { type ipv4_addr; }
  set held6_696e30696e30 { type ipv6_addr; }
  set held4_743074307430 { type ipv4_addr; elements = { 10.1.0.2 }; }
  set held6_743074307430 { type ipv6_addr; elements = { fd00::2 }; }
  map ports { type ifname : verdict; elements = { "t-1" : jump net_743074307430 }; }
  chain net_696e30696e30 {
    ether saddr @held_mac iifname . ether saddr != @own_mac drop
    ip saddr @held4_696e30696e30 iifname . ip saddr != @own4 drop
    arp saddr ip @held4_696e30696e30 iifname . arp saddr ip != @own4 drop
    arp saddr ether @held_mac iifname . arp saddr ether != @own_mac drop
    ip6 saddr @held6_696e30696e30 iifname . ip6 saddr != @own6 drop
    icmpv6 type nd-neighbor-advert icmpv6 taddr @held6_696e30696e30 iifname . icmpv6 taddr != @own6 drop
  }
  chain net_743074307430 {
    ether saddr @held_mac iifname . ether saddr != @own_mac drop
    ip saddr @held4_743074307430 iifname . ip saddr != @own4 drop
    arp saddr ip @held4_743074307430 iifname . arp saddr ip != @own4 drop
    arp saddr ether @held_mac iifname . arp saddr ether != @own_mac drop
    ip6 saddr @held6_743074307430 iifname . ip6 saddr != @own6 drop
    icmpv6 type nd-neighbor-advert icmpv6 taddr @held6_743074307430 iifname . icmpv6 taddr != @own6 drop
  }
  chain senders {
    type filter hook prerouting priority -300; policy accept;
    iifname vmap @ports
  }
  chain forward {
    type filter hook forward priority -200; policy accept;
    iifname "t-*" icmpv6 type { nd-router-advert, nd-redirect } drop
    iifname "t-*" udp sport 67 drop
  }
}
"""


def whole(networks: list[Network], forwards: list[Forward], senders: list[Sender] | None = None) -> str:
    return "\n".join(str(change) for change in ruleset.whole("t", "t-", networks, forwards, senders or [])) + "\n"


def test_the_whole_table() -> None:
    networks = [network("t0", "10.1.0.0/16"), network("in0", "10.2.0.0/16", internal=True)]
    assert whole(networks, [WEB, LOCAL, WEB6], [SENDER]) == GOLDEN


def test_without_networks_there_is_no_empty_set() -> None:
    assert "{ }" not in whole([], [])


def test_options_of_a_network() -> None:
    quiet = network("t0", "10.1.0.0/16", options={options.ICC: "false", options.MASQUERADE: "false"})
    text = whole([quiet], [])
    assert 'ct status dnat accept\n    iifname "t0" drop\n    drop' in text
    assert 'oifname != "t0"' not in text


def test_gateway_modes() -> None:
    routed = network("t0", "10.1.0.0/16", options={options.GATEWAY_MODE[4]: "routed"})
    text = whole([routed], [replace(WEB, host_port=0)])
    assert "set open4 { type ipv4_addr . inet_proto . inet_service; elements = { 10.1.0.2 . tcp . 8080 }; }" in text
    assert 'iifname != "t0" ip daddr . meta l4proto . th dport @open4 accept' in text
    assert 'oifname != "t0" ip saddr' not in text
    bare = network("t0", "10.1.0.0/16", options={options.GATEWAY_MODE[4]: "nat-unprotected"})
    assert 'iifname != "t0" ip daddr 10.1.0.0/16 accept' in whole([bare], [])


def test_elements() -> None:
    assert str(ruleset.add("t", [WEB, LOCAL])) == (
        "add element inet t published4 { tcp . 80 : 10.1.0.2 . 8080 }\n"
        "add element inet t published4_at { 127.0.0.1 . udp . 53 : 10.1.0.3 . 53 }"
    )
    assert str(ruleset.delete("t", [WEB6])) == "delete element inet t published6 { tcp . 80 }"
