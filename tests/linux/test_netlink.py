"""Links, addresses and routes on the real kernel, between namespaces made here."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from enisle.linux.netlink import NetlinkError
from enisle.linux.route import Route
from enisle.linux.taps import open_tap
from tests.linux.netns import Namespace


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def inside() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


def test_bridge_keeps_its_mac_and_mtu(host: Namespace) -> None:
    def work() -> None:
        with Route() as route:
            route.create_bridge("br0", mac="02:42:00:00:00:01", mtu=1400, up=True)
            link = route.link("br0")
            assert (link.kind, link.mac, link.mtu, link.up) == ("bridge", "02:42:00:00:00:01", 1400, True)
            route.delete_link("br0")
            assert not route.exists("br0")

    host.run(work)


def test_veth_peer_is_made_named_in_the_other_namespace(host: Namespace, inside: Namespace) -> None:
    def make() -> None:
        with Route() as route:
            route.create_bridge("br0", mac="02:42:00:00:00:01", up=True)
            route.add_address("br0", "10.9.0.1/24")
            route.create_veth("v0", "eth0", peer_pid=inside.pid, master="br0", peer_mac="02:42:0a:09:00:02", up=True)
            link = route.link("v0")
            assert link.master == route.index_of("br0")
            assert link.up

    def configure() -> None:
        with Route() as route:
            route.link_up("lo")
            route.configure(
                "eth0", mtu=1400, addresses=["10.9.0.2/24"], gateway4="10.9.0.1", routes=[["10.8.0.0/16", "10.9.0.3"]]
            )
            link = route.link("eth0")
            assert (link.mac, link.mtu, link.up) == ("02:42:0a:09:00:02", 1400, True)
            assert [a.cidr for a in route.addresses("eth0")] == ["10.9.0.2/24"]  # and no IPv6 link-local one
            routes = {(r.destination, r.gateway) for r in route.routes()}
            assert {("0.0.0.0/0", "10.9.0.1"), ("10.8.0.0/16", "10.9.0.3"), ("10.9.0.0/24", "")} <= routes

    def ask() -> bytes:
        with socket.create_connection(("10.9.0.2", 80), timeout=5) as connection:
            return connection.recv(10)

    def wait() -> None:
        with Route() as route:
            assert route.wait_carrier("v0")

    host.run(make)
    inside.run(configure)
    host.run(wait)
    inside.serve_tcp("10.9.0.2", 80, b"hello")
    assert host.run(ask) == b"hello"


def test_ipv6_address_is_usable_at_once(host: Namespace, inside: Namespace) -> None:
    def make() -> None:
        with Route() as route:
            route.create_veth("v0", "tmp0", peer_pid=inside.pid, up=True)
            route.add_address("v0", "fd00:9::1/64")

    def configure() -> str:
        with Route() as route:
            route.configure("eth0", current_name="tmp0", addresses=["fd00:9::2/64"], gateway6="fd00:9::1")
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                probe.bind(("fd00:9::2", 0))  # EADDRNOTAVAIL while duplicate detection runs
            return next(r.gateway for r in route.routes() if r.destination == "::/0")

    host.run(make)
    assert inside.run(configure) == "fd00:9::1"


def test_adding_what_is_there_is_no_error(host: Namespace) -> None:
    def work() -> int:
        with Route() as route:
            route.create_bridge("br0", up=True)
            for _ in range(2):
                route.add_address("br0", "10.9.0.1/24")
                route.add_route("10.8.0.0/16", gateway="10.9.0.9", link="br0")
            route.delete_address("br0", "10.9.0.1/24")
            return len([a for a in route.addresses("br0") if "." in a.cidr])

    assert host.run(work) == 0


def test_failures_name_object_and_reason(host: Namespace) -> None:
    def work() -> list[tuple[int | None, str]]:
        found = []
        with Route() as route:
            route.create_bridge("br0")
            for call in (
                lambda: route.create_bridge("br0"),
                lambda: route.link_up("nope"),
                lambda: route.add_route("10.8.0.0/16", gateway="10.9.0.9"),
                lambda: route.create_veth("v0", "eth0", peer_pid=2**22 - 1),
            ):
                with pytest.raises(NetlinkError) as caught:
                    call()
                found.append((caught.value.errno, caught.value.strerror))
        return found

    twice, missing, unreachable, nobody = host.run(work)
    assert twice == (errno.EEXIST, "create link br0: File exists")
    assert missing == (errno.ENODEV, "set link nope up: No such device")
    assert unreachable[0] in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    assert unreachable[1].endswith("Nexthop has invalid gateway")  # the kernel's own words
    assert nobody[0] == errno.ESRCH


def test_tap_lives_as_long_as_its_descriptor(host: Namespace) -> None:
    def work() -> tuple[str, bool]:
        with Route() as route:
            route.create_bridge("br0", up=True)
            fd = open_tap("tap0")
            route.set_master("tap0", "br0")
            route.link_up("tap0")
            kind = route.link("tap0").kind
            os.close(fd)
            return kind, route.exists("tap0")

    assert host.run(work) == ("tun", False)


def test_isolated_ports_and_moves(host: Namespace, inside: Namespace) -> None:
    def work() -> bool:
        with Route() as route:
            route.create_bridge("br0", up=True)
            route.create_veth("v0", "v1", master="br0", up=True)
            route.set_port("v0", hairpin=True, isolated=True)
            route.set_namespace("v1", inside.pid)
            return route.exists("v1")

    def look() -> list[str]:
        with Route() as route:
            route.set_name("v1", "eth5")
            route.set_mac("eth5", "02:42:00:00:00:09")
            return [link.name for link in route.links() if link.mac == "02:42:00:00:00:09"]

    assert host.run(work) is False
    assert inside.run(look) == ["eth5"]
