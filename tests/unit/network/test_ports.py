"""Reserving ports of this host."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from enisle.errors import Conflict, Invalid
from enisle.model.instance import Endpoint, PublishedPort
from enisle.network.ports import Place, host_addresses, reserve

BOTH = Place(
    label="web", endpoint=Endpoint(network="n", network_id="1", endpoint_id="e1", ipv4="10.1.0.2/24", ipv6="fd00::2/64")
)
FOUR = Place(label="web", endpoint=Endpoint(network="n", network_id="1", endpoint_id="e1", ipv4="10.1.0.2/24"))


def port(**fields: object) -> PublishedPort:
    return PublishedPort(**{"container_port": 80, "host_ip": "127.0.0.1", **fields})  # type: ignore[arg-type]


def test_all_addresses_of_the_families_it_has() -> None:
    assert host_addresses(port(host_ip=""), BOTH, "") == ["0.0.0.0", "::"]
    assert host_addresses(port(host_ip=""), FOUR, "") == ["0.0.0.0", "::"], "relayed"
    assert host_addresses(port(host_ip="", protocol="udp"), FOUR, "") == ["0.0.0.0", "::"]
    assert host_addresses(port(host_ip="", protocol="sctp"), FOUR, "") == ["0.0.0.0"]
    assert host_addresses(port(host_ip="[0::1]"), BOTH, "") == ["::1"]
    assert host_addresses(port(host_ip=""), replace(BOTH, default_ip="127.0.0.1"), "") == ["127.0.0.1"]


def test_ports_of_a_routed_family_bind_nothing() -> None:
    place = replace(BOTH, routed=frozenset({4, 6}))
    bound, sockets = reserve([port(host_ip="", host_port=80)], place)
    assert sockets == []
    assert [(each.host_ip, each.host_port) for each in bound] == [("0.0.0.0", 0), ("::", 0)]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"protocol": "icmp"}, "invalid proto: icmp"),
        ({"host_ip": "::1", "protocol": "sctp"}, "no IPv6 address"),
        ({"host_ip": "localhost"}, "invalid host IP address: localhost"),
    ],
)
def test_what_cannot_be_published(fields: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        reserve([port(**fields)], FOUR)


def test_an_address_the_host_does_not_have() -> None:
    with pytest.raises(Invalid, match=r"failed to bind host port for 192\.0\.2\.99:80/tcp: Cannot assign requested"):
        reserve([port(host_ip="192.0.2.99", host_port=80)], FOUR)


def test_reserved_ports_are_bound_and_refuse_connections() -> None:
    (bound,), (reserved,) = reserve([port()], FOUR)
    with reserved:
        assert bound.host_port == reserved.getsockname()[1] != 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", bound.host_port), timeout=5)
        with socket.socket() as rival, pytest.raises(OSError):
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            rival.bind(("127.0.0.1", bound.host_port))


def test_a_taken_port_and_a_range_with_one_left() -> None:
    _, (reserved,) = reserve([port()], FOUR)
    with reserved:
        number = reserved.getsockname()[1]
        with pytest.raises(Conflict) as caught:
            reserve([port(host_port=number)], FOUR)
        assert str(caught.value) == (
            "driver failed programming external connectivity on endpoint web (e1): "
            f"Bind for 127.0.0.1:{number} failed: port is already allocated"
        )
        (bound,), (other,) = reserve([port(host_port=number, host_port_end=number + 20)], FOUR)
        with other:
            assert number < bound.host_port <= number + 20


def test_all_or_none() -> None:
    _, (reserved,) = reserve([port()], FOUR)
    with reserved:
        taken = reserved.getsockname()[1]
        _, (free,) = reserve([port()], FOUR)
        number = free.getsockname()[1]
        free.close()
        with pytest.raises(Conflict):
            reserve([port(host_port=number), port(host_port=taken)], FOUR)
        _, (again,) = reserve([port(host_port=number)], FOUR)
        again.close()
