"""Which subnets are chosen, and how networks are completed."""

from __future__ import annotations

import ipaddress

import pytest

from enisle.errors import Conflict, Denied, Exhausted, Invalid, NotFound
from enisle.model.ids import NetworkId
from enisle.model.network import AddressPool, Network
from enisle.network import definitions, devices
from enisle.network.subnets import candidates, choose_ipv4, choose_ipv6, overlapping


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
    assert len(list(candidates())) == 31
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
        ({"pools": (AddressPool(subnet="fd00::/64"),)}, Invalid, "needs IPv6 enabled"),
        ({"pools": (AddressPool(subnet="10.0.0.0/24", gateway="10.1.0.1"),)}, Invalid, "is not in subnet"),
        ({"ingress": True}, Exception, "Swarm"),
    ],
)
def test_what_cannot_be_made_is_refused(fields: dict[str, object], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        definitions.check(network(**fields), definitions.builtins("t", {}))


def test_mtu_option() -> None:
    assert definitions.mtu_option(network()) == 0
    assert definitions.mtu_option(network(options={definitions.MTU: "1400"})) == 1400
    for text in ("67", "65536", "-1", "big"):
        with pytest.raises(Invalid):
            definitions.mtu_option(network(options={definitions.MTU: text}))


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
