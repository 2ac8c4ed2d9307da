"""Bridge networks on the real kernel: namespaces stand for the host, for instances and for another machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.errors import Conflict
from enisle.linux.route import Route
from enisle.model.instance import PublishedPort
from enisle.model.network import AddressPool
from tests.linux.hosts import Host, Instance, Lan, connect, datagram, reach


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host(tmp_path) as running:
        yield running


@pytest.fixture
def lan(host: Host) -> Iterator[Lan]:
    with Lan(host) as machine:
        yield machine


def test_an_instance_reaches_other_machines_by_the_hosts_address(host: Host, lan: Lan) -> None:
    lan.serve_tcp(lan.address, 80)
    with Instance(host, "one") as one:
        assert one.run(reach, lan.address, 80) == lan.host_address


def test_instances_of_one_network_reach_each_other_directly(host: Host) -> None:
    with Instance(host, "one") as one, Instance(host, "two") as two:
        two.serve_tcp(two.ipv4, 80)
        assert one.run(reach, two.ipv4, 80) == one.ipv4


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_published_port_is_reached_from_everywhere(host: Host, lan: Lan, bridged: str) -> None:
    host.filter_bridged(bridged)
    with Instance(host, "one") as one, Instance(host, "two") as two:
        one.serve_tcp("0.0.0.0", 8080)
        bound = one.publish(PublishedPort(container_port=8080, host_port=80))
        assert [(port.host_ip, port.host_port) for port in bound] == [("0.0.0.0", 80), ("::", 80)]
        assert lan.run(reach, lan.host_address, 80) == lan.address  # its source address is kept
        gateway = one.endpoint.gateway4
        for address in ("127.0.0.1", gateway, lan.host_address):
            assert host.run(reach, address, 80), address
        assert two.run(reach, lan.host_address, 80)
        assert two.run(reach, gateway, 80)
        assert one.run(reach, lan.host_address, 80)  # itself, by the host's address


def test_unpublished_is_unreachable(host: Host, lan: Lan) -> None:
    with Instance(host, "one") as one:
        one.serve_tcp("0.0.0.0", 8080)
        one.publish(PublishedPort(container_port=8080, host_port=80))
        assert lan.run(reach, lan.host_address, 80)
        one.unpublish()
        assert not lan.run(connect, lan.host_address, 80)
        assert not host.run(connect, "127.0.0.1", 80)
        assert host.engine_table().count("dnat ip to") == 2
        assert "elements" not in host.engine_table()


def test_udp_and_ranges_and_random_ports(host: Host, lan: Lan) -> None:
    with Instance(host, "one") as one:
        one.serve_udp(one.ipv4, 53)
        bound = one.publish(
            PublishedPort(container_port=53, protocol="udp", host_port=5353),
            PublishedPort(container_port=53, protocol="udp", host_port=7000, host_port_end=7002),
            PublishedPort(container_port=53, protocol="udp", host_port=7000, host_port_end=7002),
            PublishedPort(container_port=53, protocol="udp"),
        )
        assert [port.host_port for port in bound[:6]] == [5353, 5353, 7000, 7000, 7001, 7001]
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
        assert low <= bound[6].host_port <= high
        for port in bound:
            assert lan.run(datagram, lan.host_address, port.host_port) == b"ping"
            assert host.run(datagram, "127.0.0.1", port.host_port) == b"ping"


def test_a_host_address_of_ones_own(host: Host, lan: Lan) -> None:
    with Instance(host, "one") as one, Instance(host, "two") as two:
        one.serve_tcp(one.ipv4, 80, b"one")
        two.serve_tcp(two.ipv4, 80, b"two")
        one.publish(PublishedPort(container_port=80, host_ip="127.0.0.1", host_port=80))
        two.publish(PublishedPort(container_port=80, host_ip=lan.host_address, host_port=80))
        assert host.run(reach, "127.0.0.1", 80) == "one"
        assert lan.run(reach, lan.host_address, 80) == "two"
        assert not two.run(connect, one.endpoint.gateway4, 80)


def test_a_port_in_use_is_a_conflict_and_takes_nothing(host: Host) -> None:
    with Instance(host, "one") as one, Instance(host, "two") as two:
        one.publish(PublishedPort(container_port=80, host_port=80))
        with pytest.raises(Conflict) as caught:
            two.publish(PublishedPort(container_port=80, host_port=81), PublishedPort(container_port=80, host_port=80))
        assert str(caught.value) == (
            "driver failed programming external connectivity on endpoint two "
            f"({two.endpoint.endpoint_id}): Bind for 0.0.0.0:80 failed: port is already allocated"
        )
        assert [port.host_port for port in two.publish(PublishedPort(container_port=80, host_port=81))] == [81, 81]
        with pytest.raises(Conflict, match="all ports are allocated"):
            two.publish(PublishedPort(container_port=80, host_port=80, host_port_end=81))


def test_a_port_of_another_program_is_a_conflict(host: Host) -> None:
    host.serve_tcp("127.0.0.1", 80)
    with Instance(host, "one") as one, pytest.raises(Conflict, match="port is already allocated"):
        one.publish(PublishedPort(container_port=80, host_port=80))


def test_another_machine_reaches_neither_unpublished_ports_nor_our_loopback(host: Host, lan: Lan) -> None:
    with Instance(host, "one") as one:
        one.serve_tcp("0.0.0.0", 80)
        one.serve_tcp("0.0.0.0", 81)
        one.publish(PublishedPort(container_port=80, host_ip="127.0.0.1", host_port=80))
        lan.route(f"{one.ipv4}/32", lan.host_address)
        assert not lan.run(connect, one.ipv4, 80)
        assert not lan.run(connect, one.ipv4, 81)
        lan.claim_loopback(lan.host_address)
        assert not lan.run(connect, "127.0.0.1", 80)
        assert host.run(reach, "127.0.0.1", 80)


def test_an_instance_does_not_reach_the_hosts_loopback(host: Host) -> None:
    host.serve_tcp("127.0.0.1", 631)
    with Instance(host, "one") as one:
        one.claim_loopback(one.endpoint.gateway4)
        assert not one.run(connect, "127.0.0.1", 631)


def test_networks_are_apart_and_internal_ones_have_no_way_out(host: Host, lan: Lan) -> None:
    lan.serve_tcp(lan.address, 80)
    inner = host.create_network("inner", internal=True)
    outer = host.create_network("outer")
    with (
        Instance(host, "one") as one,
        Instance(host, "two", outer) as two,
        Instance(host, "three", inner) as three,
        Instance(host, "four", inner) as four,
    ):
        for each in (one, two, three, four):
            each.serve_tcp("0.0.0.0", 80)
        assert not one.run(connect, two.ipv4, 80)
        assert not two.run(connect, one.ipv4, 80)
        assert four.run(reach, three.ipv4, 80)
        assert two.run(reach, lan.address, 80) == lan.host_address
        three.default_route(inner.pools[0].gateway)  # it was given none, and takes one
        assert not three.run(connect, lan.address, 80)
        assert not three.run(connect, one.ipv4, 80)
        assert three.publish(PublishedPort(container_port=80, host_port=80)) == []


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_without_inter_container_communication_only_published_ports_are_reached(host: Host, bridged: str) -> None:
    host.filter_bridged(bridged)
    network = host.create_network("quiet", options={"com.docker.network.bridge.enable_icc": "false"})
    with Instance(host, "one", network) as one, Instance(host, "two", network) as two:
        for port in (80, 81):
            one.serve_tcp("0.0.0.0", port)
        one.publish(PublishedPort(container_port=80, host_port=80))
        assert not two.run(connect, one.ipv4, 81)
        if bridged == "0":  # br_netfilter keeps translated frames in the bridge, where the ports are isolated
            assert two.run(reach, one.endpoint.gateway4, 80)


def test_the_first_networks_gateway_stays_the_default(host: Host, lan: Lan) -> None:
    lan.serve_tcp(lan.address, 80)
    other = host.create_network("other")
    with Instance(host, "one") as one, Instance(host, "two", other) as two:
        two.serve_tcp(two.ipv4, 80)
        one.connect(other)
        assert one.run(reach, lan.address, 80) == lan.host_address
        assert one.run(reach, two.ipv4, 80).startswith(other.pools[0].gateway.rsplit(".", 1)[0])  # by the second NIC

        def gateways() -> list[str]:
            with Route() as route:
                return [entry.gateway for entry in route.routes() if entry.destination == "0.0.0.0/0"]

        assert one.run(gateways) == [one.endpoint.gateway4]


def test_ipv6_network(host: Host, lan: Lan) -> None:
    network = host.create_network("six", ipv6=True, pools=(AddressPool(subnet="fd00:77::/64"),))
    with Instance(host, "one", network) as one:
        assert one.endpoint.ipv6.endswith("/64")
        one.serve_tcp("::", 80)
        bound = one.publish(PublishedPort(container_port=80, host_port=80))
        assert {port.host_ip for port in bound} == {"0.0.0.0", "::"}
        assert host.run(reach, one.endpoint.ipv6.partition("/")[0], 80)
        assert lan.run(reach, lan.host_address6, 80) == lan.address6
        lan.serve_tcp(lan.address6, 90)
        assert one.run(reach, lan.address6, 90) == lan.host_address6


def test_a_flushed_ruleset_is_made_again(host: Host, lan: Lan) -> None:
    with Instance(host, "one") as one:
        one.serve_tcp("0.0.0.0", 80)
        one.publish(PublishedPort(container_port=80, host_port=80))
        host.nft("flush ruleset")
        assert host.engine_table() == ""
        host.wait_until(lambda: bool(host.engine_table()))
        assert lan.run(reach, lan.host_address, 80) == lan.address
        host.nft("flush chain inet " + host.name + " forward")
        host.wait_until(lambda: "ct state" in host.engine_table())


def test_our_own_replacement_of_many_rules_is_no_removal(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.small_monitor()
    for number in range(4):
        host.create_network(f"more{number}")
        host.small_monitor()
    host.turn(0.5)  # longer than a repair is put off
    assert not [each for each in caplog.messages if "made anew" in each]
    host.nft("flush ruleset")
    host.wait_until(lambda: bool(host.engine_table()))


def test_foreign_tables_are_left_alone(host: Host) -> None:
    host.nft("table inet foreign { chain c { type filter hook input priority 0; policy accept; counter; }; }")
    before = host.nft("list table inet foreign")
    with Instance(host, "one") as one:
        one.publish(PublishedPort(container_port=80, host_port=80))
    host.close(keep=False)
    assert host.nft("list table inet foreign") == before
    assert host.nft("list tables").strip() == "table inet foreign"


def test_the_hosts_own_rules_have_their_say(host: Host, lan: Lan) -> None:
    """What a dockerd, a podman or a firewalld beside us, or the administrator, drops stays dropped."""
    with Instance(host, "one") as one:
        one.serve_tcp("0.0.0.0", 8080)
        one.publish(PublishedPort(container_port=8080, host_port=80))
        for priority in (-10, 10):
            policy = f"type filter hook forward priority {priority}; policy drop; ct state established accept"
            host.nft(f"table inet own {{ chain forward {{ {policy}; }}; }}")
            assert not lan.run(connect, lan.host_address, 80)
            host.nft("add rule inet own forward ct status dnat accept")
            assert lan.run(reach, lan.host_address, 80) == lan.address
            host.nft("delete table inet own")


def test_a_firewall_that_loads_all_of_its_rules_anew(host: Host, lan: Lan) -> None:
    rules = "table inet own { chain input { type filter hook input priority 0; policy accept; }; }"
    with Instance(host, "one") as one:
        one.serve_tcp("0.0.0.0", 80)
        one.publish(PublishedPort(container_port=80, host_port=80))
        for _ in range(3):
            host.nft(f"flush ruleset\n{rules}")
            host.wait_until(lambda: "@published4" in host.engine_table())
            assert lan.run(reach, lan.host_address, 80) == lan.address
            assert "chain input" in host.nft("list table inet own")


def test_routed_networks_are_reached_by_their_own_addresses(host: Host, lan: Lan) -> None:
    prefix = "com.docker.network.bridge.gateway_mode_ipv"
    options = {f"{prefix}4": "routed", f"{prefix}6": "nat-unprotected"}
    network = host.create_network("routed", ipv6=True, options=options)
    with Instance(host, "one", network) as one, Instance(host, "two") as two:
        lan.route(f"{one.ipv4}/32", lan.host_address)
        ipv6 = one.endpoint.ipv6.partition("/")[0]
        lan.route(f"{ipv6}/128", lan.host_address6)
        lan.serve_tcp(lan.address, 90)
        for port in (80, 81):
            one.serve_tcp("::", port)
        bound = one.publish(PublishedPort(container_port=80, host_port=80))
        assert [(port.host_ip, port.host_port) for port in bound] == [("0.0.0.0", 0), ("::", 80)]
        assert lan.run(reach, one.ipv4, 80).endswith(lan.address)
        assert two.run(reach, one.ipv4, 80), "from other networks as well"
        assert not lan.run(connect, one.ipv4, 81)
        assert not lan.run(connect, lan.host_address, 80)
        assert one.run(reach, lan.address, 90) == one.ipv4, "untranslated"
        assert lan.run(reach, ipv6, 81) == lan.address6
        one.unpublish()
        assert not lan.run(connect, one.ipv4, 80)


def test_a_restart_loses_nothing(host: Host, lan: Lan) -> None:
    with Instance(host, "one") as one:
        one.serve_tcp("0.0.0.0", 80)
        one.publish(PublishedPort(container_port=80, host_port=80))
        one.store()
        before = host.links()
        host.restart()
        assert host.links() == before
        assert lan.run(reach, lan.host_address, 80) == lan.address
        with Instance(host, "two") as two:
            assert two.ipv4 != one.ipv4


def test_close_leaves_nothing(host: Host) -> None:
    before = host.links_before
    host.create_network("other")
    with Instance(host, "one"):
        pass
    host.close(keep=False)
    assert host.links() == before
    assert host.nft("list tables") == ""
    assert list(host.run_root.iterdir()) == []


def test_the_default_subnet_avoids_what_the_host_uses(tmp_path: Path) -> None:
    def taken() -> None:
        with Route() as route:
            route.create_bridge("docker0", up=True)
            route.add_address("docker0", "172.17.0.1/16")
            route.add_route("172.18.0.0/24", link="docker0")

    with Host(tmp_path, prepare=taken) as host:
        assert host.default.pools[0].subnet == "172.19.0.0/16"
        with Host(tmp_path / "second", beside=host) as second:
            assert second.default.pools[0].subnet == "172.20.0.0/16"
            assert second.default.bridge != host.default.bridge
            host.close(keep=False)
            assert second.engine_table()


def test_no_ipv6_and_no_advertisements_where_there_is_none(host: Host) -> None:
    def sysctls() -> list[str]:
        base = Path(f"/proc/sys/net/ipv6/conf/{host.default.bridge}")
        return [(base / name).read_text().strip() for name in ("accept_ra", "disable_ipv6")]

    assert host.run(sysctls) == ["0", "1"]

    def addresses() -> list[str]:
        with Route() as route:
            return [address.cidr for address in route.addresses("eth0")]

    with Instance(host, "one") as one:
        assert one.run(addresses) == [one.endpoint.ipv4]
