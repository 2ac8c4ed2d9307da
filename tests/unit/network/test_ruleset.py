"""Our nftables table as text."""

from __future__ import annotations

from enisle.model.ids import NetworkId
from enisle.model.network import AddressPool, Network
from enisle.network import ruleset
from enisle.network.ruleset import Forward

WEB = Forward(protocol="tcp", host_ip="0.0.0.0", host_port=80, target_ip="10.1.0.2", target_port=8080)
LOCAL = Forward(protocol="udp", host_ip="127.0.0.1", host_port=53, target_ip="10.1.0.3", target_port=53)
WEB6 = Forward(protocol="tcp", host_ip="::", host_port=80, target_ip="fd00::2", target_port=8080)


def network(name: str, subnet: str, **fields: object) -> Network:
    pools = (AddressPool(subnet=subnet),)
    return Network(id=NetworkId(name), name=name, bridge=name, pools=pools, **fields)  # type: ignore[arg-type]


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
  map published6_at { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  map published6 { type inet_proto . inet_service : ipv6_addr . inet_service; \
elements = { tcp . 80 : fd00::2 . 8080 }; }
  chain guard {
    type filter hook prerouting priority raw; policy accept;
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
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 127.0.0.0/8 return
    meta l4proto { tcp, udp } fib daddr type local jump publish
  }
  chain output {
    type nat hook output priority -100; policy accept;
    meta l4proto { tcp, udp } fib daddr type local jump publish
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
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
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    oifname vmap { "in0" : jump to_0, "t0" : jump to_1 }
    iifname { "in0" } drop
  }
}
table bridge t {
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "t-*" icmpv6 type nd-router-advert drop
    iifname "t-*" udp sport 67 drop
  }
}
"""


def test_the_whole_table() -> None:
    networks = [network("t0", "10.1.0.0/16"), network("in0", "10.2.0.0/16", internal=True)]
    assert ruleset.whole("t", "t-", networks, [WEB, LOCAL, WEB6]) == GOLDEN


def test_without_networks_there_is_no_empty_set() -> None:
    assert "{ }" not in ruleset.whole("t", "t-", [], [])


def test_options_of_a_network() -> None:
    quiet = network("t0", "10.1.0.0/16", options={ruleset.ICC: "false", ruleset.MASQUERADE: "false"})
    text = ruleset.whole("t", "t-", [quiet], [])
    assert 'ct status dnat accept\n    iifname "t0" drop\n    drop' in text
    assert 'oifname != "t0"' not in text


def test_elements() -> None:
    assert ruleset.add("t", [WEB, LOCAL]) == (
        "add element inet t published4 { tcp . 80 : 10.1.0.2 . 8080 }\n"
        "add element inet t published4_at { 127.0.0.1 . udp . 53 : 10.1.0.3 . 53 }"
    )
    assert ruleset.delete("t", [WEB6]) == "delete element inet t published6 { tcp . 80 }"
