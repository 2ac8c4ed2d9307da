"""macvlan and ipvlan networks with interfaces of their own: VLANs, none at all, and the modes of ipvlan.

Few kernels that tests run on have these; the kernel of our VMs has: test_cgroup_v2.py runs this file there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enisle.errors import Denied, Invalid
from enisle.linux.route import Route
from enisle.model.network import AddressPool, Network
from tests.linux.hosts import Host, Instance, Lan, connect, reach
from tests.linux.names_inside import SERVER, listening
from tests.linux.nameserver import ask


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One for all tests: the kernel that has all of this is a slow one."""
    with Host(tmp_path_factory.mktemp("host")) as running:
        yield running


@pytest.fixture(scope="module")
def lan(host: Host) -> Iterator[Lan]:
    with Lan(host) as machine:
        machine.serve_tcp(machine.address, 80)
        yield machine


@contextmanager
def on_segment(host: Host, driver: str, subnet: str = "198.51.100.0/24", **options: str) -> Iterator[Network]:
    """A network on an interface, removed after."""
    gateway, ip_range = subnet.replace(".0/24", ".2"), subnet.replace(".0/24", ".128/25")
    pools = (AddressPool(subnet=subnet, gateway=gateway, ip_range=ip_range),)
    network = host.create_network("segment", driver=driver, pools=pools, options=options)
    try:
        yield network
    finally:
        host.do(host.networks.remove(network))


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_a_segment_without_a_parent(host: Host, driver: str) -> None:
    with on_segment(host, driver, "203.0.113.0/24") as network:
        made = f"{'dm' if driver == 'macvlan' else 'di'}-{network.id[:12]}"
        assert made in host.links()
        with Instance(host, "one", network) as one, Instance(host, "two", network) as two:
            two.serve_tcp(two.ipv4, 80)
            assert one.run(reach, two.ipv4, 80) == one.ipv4
    assert made not in host.links()


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_a_vlan_is_made_for_the_network_and_goes_with_it(host: Host, lan: Lan, driver: str) -> None:
    number = 10 if driver == "macvlan" else 11
    vlan, address = f"lan0.{number}", f"203.0.{number}.2"

    def tagged() -> None:
        with Route() as route:
            route.create_vlan(f"eth0.{number}", "eth0", number)
            route.add_address(f"eth0.{number}", f"{address}/24")
            route.link_up(f"eth0.{number}")

    lan.run(tagged)
    lan.serve_tcp(address, 80)
    with on_segment(host, driver, f"203.0.{number}.0/24", parent=vlan) as network:
        assert vlan in host.links()
        host.restart()
        with Instance(host, "one", network) as one:
            assert one.run(reach, address, 80) == one.ipv4
        options = {"parent": vlan}
        with pytest.raises(Denied, match=f"is already using parent interface {re.escape(vlan)}"):
            host.create_network("more", driver=driver, options=options)
        with pytest.raises(Invalid, match="VLAN IDs are 1 to 4094"):
            host.create_network("more", driver=driver, options={"parent": "lan0.4095"})
    assert vlan not in host.links()


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_modes_of_ipvlan(host: Host, lan: Lan, mode: str) -> None:
    with (
        on_segment(host, "ipvlan", parent="lan0", ipvlan_mode=mode) as network,
        Instance(host, "one", network) as one,
        Instance(host, "two", network) as two,
    ):
        two.serve_tcp(two.ipv4, 80)
        assert one.run(reach, two.ipv4, 80) == one.ipv4
        assert one.endpoint.mac == ""
        assert one.run(default_gateways) == [lan.address if mode == "l2" else ""]
        if mode != "l2":  # nothing is asked by ARP: others need a route to the host, as the kernel's documentation says
            lan.route(f"{one.ipv4}/32", lan.host_address)
        assert one.run(reach, lan.address, 80) == one.ipv4


def default_gateways() -> list[str]:
    with Route() as route:
        return [entry.gateway for entry in route.routes() if entry.destination == "0.0.0.0/0"]


def test_instances_of_a_private_ipvlan_do_not_meet(host: Host, lan: Lan) -> None:
    with (
        on_segment(host, "ipvlan", parent="lan0", ipvlan_flag="private") as network,
        Instance(host, "one", network) as one,
        Instance(host, "two", network) as two,
    ):
        two.serve_tcp(two.ipv4, 80)
        assert not one.run(connect, two.ipv4, 80)
        assert one.run(reach, lan.address, 80) == one.ipv4


def test_what_ipvlan_does_not_take(host: Host, lan: Lan) -> None:
    assert lan
    with (
        on_segment(host, "ipvlan", parent="lan0") as network,
        pytest.raises(Invalid, match="do not support custom mac address"),
        Instance(host, "one", network, mac_address="02:00:00:00:00:01"),
    ):
        pass
    with pytest.raises(Invalid, match="no ipvlan on lo: "):
        host.create_network("lo", driver="ipvlan", options={"parent": "lo"})
    assert not [link for link in host.links() if link.startswith("try-")]


@pytest.mark.parametrize("mode", ["l2", "l3"])
def test_names_on_ipvlan(host: Host, lan: Lan, mode: str) -> None:
    assert lan
    with (
        on_segment(host, "ipvlan", "203.0.114.0/24", parent="lan0", ipvlan_mode=mode) as network,
        Instance(host, "one", network) as one,
        Instance(host, "two", network) as two,
        listening(one),
    ):
        assert one.run(ask, SERVER, "two") == ("NOERROR", [two.ipv4])
        assert one.run(ask, SERVER, "two", tcp=True) == ("NOERROR", [two.ipv4])
