"""Which subnets are chosen, and how networks are completed."""

from __future__ import annotations

import ipaddress

import pytest

from enisle.errors import Conflict, Denied, Exhausted, Invalid, NotFound
from enisle.model.ids import NetworkId
from enisle.model.network import AddressPool, Network
from enisle.network import definitions, devices
from enisle.network.options import MTU, mtu_option
from enisle.network.subnets import Candidates, choose_ipv4, choose_ipv6, overlapping


def networks(*texts: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text) for text in texts]


def network(**fields: object) -> Network:
    return Network(id=NetworkId("ab" * 32), **{"name": "net", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("used", "chosen"),
    [
        ([], "172.17.0.0/16"),
        (["172.17.5.0/24"], "172.18.0.0/16"),
        (["172.16.0.0/12"], "192.168.0.0/20"),
        (["0.0.0.0/0", "fd00::/8"], "172.17.0.0/16"),
        (["172.17.0.1/32", "172.18.0.0/16", "172.19.0.0/16"], "172.20.0.0/16"),
    ],
)
def test_the_first_that_is_free(used: list[str], chosen: str) -> None:
    assert choose_ipv4(networks(*used)) == chosen


def test_none_is_free() -> None:
    assert len(list(Candidates().subnets4())) == 31
    with pytest.raises(Exhausted, match="all predefined address pools"):
        choose_ipv4(networks("172.16.0.0/12", "192.168.0.0/16"))


def test_ipv6_follows_from_the_seed() -> None:
    first = choose_ipv6("seed", [])
    assert first == choose_ipv6("seed", []) != choose_ipv6("other", [])
    assert ipaddress.ip_network(first).subnet_of(ipaddress.ip_network("fd00::/8"))  # type: ignore[arg-type]
    assert choose_ipv6("seed", networks(first)) != first


def test_overlapping() -> None:
    used = networks("0.0.0.0/0", "10.0.0.0/8", "fd00::/16")
    assert overlapping(ipaddress.ip_network("10.1.0.0/16"), used) == used[1]
    assert overlapping(ipaddress.ip_network("11.0.0.0/8"), used) is None


def test_complete_chooses_what_is_open_and_keeps_the_rest() -> None:
    made = definitions.complete(network(), networks("172.17.0.0/16"))
    assert made.pools == (AddressPool(subnet="172.18.0.0/16", gateway="172.18.0.1"),)
    made = definitions.complete(network(pools=(AddressPool(subnet="10.9.0.0/24", ip_range="10.9.0.64/26"),)), [])
    assert made.pools[0].gateway == "10.9.0.64"
    made = definitions.complete(network(ipv6=True, pools=(AddressPool(subnet="10.9.0.0/24", gateway="10.9.0.9"),)), [])
    assert made.pools[0].gateway == "10.9.0.9"
    assert made.pools[1].gateway.startswith("fd")


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"driver": "host"}, Denied, 'only one instance of "host" network is allowed'),
        ({"driver": "overlay"}, NotFound, "could not find plugin overlay"),
        ({"ipam_driver": "dhcp"}, NotFound, "could not find plugin dhcp"),
        ({"name": "bridge"}, Conflict, "network with name bridge already exists"),
        ({"name": "a/b"}, Invalid, "invalid network name"),
        ({"options": {"com.docker.network.bridge.name": "t0"}}, Conflict, "bridge t0 is that of network bridge"),
        ({"options": {"com.docker.network.bridge.name": 'x" drop; #'}}, Invalid, "invalid bridge name"),
        ({"driver": "ipvlan", "options": {"ipvlan_mode": "l4"}}, Invalid, "requested ipvlan mode 'l4'"),
        ({"driver": "ipvlan", "options": {"ipvlan_flag": "odd"}}, Invalid, "requested ipvlan flag 'odd'"),
        ({"driver": "macvlan", "options": {"macvlan_mode": "odd"}}, Invalid, "requested macvlan mode 'odd'"),
        ({"options": {"com.docker.network.bridge.enable_icc": "maybe"}}, Invalid, "failed to parse"),
        ({"options": {"com.docker.network.bridge.gateway_mode_ipv4": "odd"}}, Invalid, "unknown gateway mode odd"),
        ({"options": {"com.docker.network.bridge.gateway_mode_ipv6": "isolated"}}, Invalid, "internal network"),
        ({"options": {"com.docker.network.bridge.host_binding_ipv4": "x"}}, Invalid, "nil ip"),
        ({"options": {"com.docker.network.container_iface_prefix": "x" * 12}}, Invalid, "container_iface_prefix"),
        ({"pools": (AddressPool(subnet="10.0.0.0/24", gateway="10.1.0.1"),)}, Invalid, "is not in subnet"),
        ({"ingress": True}, Exception, "Swarm"),
    ],
)
def test_what_cannot_be_made_is_refused(fields: dict[str, object], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        definitions.check(network(**fields), definitions.builtins("t", {}))


def test_address_pools_of_ones_own() -> None:
    choice = Candidates.parse(["10.64.0.0/23 24", "fd12::/63 64"])
    assert choose_ipv4([], choice) == "10.64.0.0/24"
    assert choose_ipv4(networks("10.64.0.0/24"), choice) == "10.64.1.0/24"
    with pytest.raises(Exhausted, match="all predefined address pools have been fully subnetted"):
        choose_ipv4(networks("10.64.0.0/23"), choice)
    assert choose_ipv6("seed", networks("fd12::/64"), choice) == "fd12:0:0:1::/64"
    for text in ("10.64.0.0/12", "10.64.0.1/12 24", "10.64.0.0/12 8", "10.64.0.0/12 31", "x y"):
        with pytest.raises(Invalid, match="invalid address pool"):
            Candidates.parse([text])


def test_mtu_option() -> None:
    assert mtu_option(network()) == 0
    assert mtu_option(network(options={MTU: "1400"})) == 1400
    for text in ("67", "65536", "-1", "big"):
        with pytest.raises(Invalid):
            mtu_option(network(options={MTU: text}))


@pytest.mark.parametrize("engine", ["e", "enisle", "fourteen-chars", "fifteen-chars--", "x" * 60])
def test_interface_names_fit(engine: str) -> None:
    names = [
        devices.default_bridge(engine),
        devices.port_prefix(engine) + "0" * 6,
        devices.bridge_of(engine, "ab" * 32),
    ]
    assert all(len(name) <= devices.IFNAMSIZ for name in names)
    assert len(set(names)) == 3


def test_builtins_are_kept() -> None:
    first = {each.name: each for each in definitions.builtins("t", {})}
    assert set(first) == {"bridge", "host", "none"}
    assert first["bridge"].bridge == "t0"
    assert definitions.builtins("t", first) == list(first.values())
