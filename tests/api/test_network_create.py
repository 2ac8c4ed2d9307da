"""What `docker network create` takes and refuses, and what becomes of its options."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.api.places import Place
from tests.daemon import dispose, image_archive, new_daemon, run

BRIDGE = "com.docker.network.bridge"
SERVE = ("httpd", "-f", "-p", "[::]:80", "-h", "/etc")


def inspected(place: Place, network: str) -> dict[str, object]:
    (found,) = json.loads(place.daemon.docker("network", "inspect", network).stdout)
    return dict(found)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return str(answer.read().decode())


def echoed(address: str, port: int) -> bytes:
    """What a server, once it is up, sends back for a datagram."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.connect((address, port))
        client.settimeout(0.2)
        for _ in range(100):
            with contextlib.suppress(OSError):
                client.send(b"hello")
                return client.recv(100)
    return b""


def test_mistakes_are_told_in_dockers_words(place: Place) -> None:
    def create(*args: str) -> str:
        return place.refused("network", "create", *args, f"bad-{place.suffix}")

    assert "invalid subnet 10.78.0.1/24: it should be 10.78.0.0/24" in create("--subnet", "10.78.0.1/24")
    assert "networks of scope local only" in create("--ingress")
    assert "failed to parse" in create("-o", f"{BRIDGE}.enable_icc=maybe")
    assert "parent interface nowhere0 was not found" in create("-d", "macvlan", "-o", "parent=nowhere0")
    assert "parent interface nowhere0 was not found" in create("-d", "ipvlan", "-o", "parent=nowhere0")
    place.network("first", "--subnet", "10.201.7.0/24")
    assert "Pool overlaps with other one on this address space" in create("--subnet", "10.201.7.0/25")


@pytest.mark.parametrize(("wall", "number"), [("runc", 8), ("vm", 18)])  # both may run at once
def test_both_families_with_addresses_of_the_users_choice(place: Place, wall: str, number: int) -> None:
    ipv4, ipv6 = f"10.201.{number}", f"fd00:201:{number}"
    network = place.network(
        "dual", "--ipv6", "--subnet", f"{ipv4}.0/24", "--gateway", f"{ipv4}.254", "--ip-range", f"{ipv4}.128/25",
        "--aux-address", f"printer={ipv4}.128", "--subnet", f"{ipv6}::/64",
    )  # fmt: skip
    web = place.start("web", "--runtime", wall, "--network", network, "--ip6", f"{ipv6}::80")
    addresses = place.inside(web, "ip", "-o", "addr", "show", "dev", "eth0")
    assert f"inet {ipv4}.129/24" in addresses
    assert f"inet6 {ipv6}::80/64" in addresses
    assert "tentative" not in addresses
    assert f"default via {ipv6}::1" in place.inside(web, "ip", "-6", "route")
    assert place.inside(web, "ping6", "-c1", "-W10", f"{ipv6}::1")
    other = place.start("other", "--network", network)
    assert f"{ipv6}::80" in place.inside(other, "nslookup", "-type=aaaa", web)
    assert place.inside(other, "ping6", "-c1", "-W10", f"{ipv6}::80")
    assert place.inside(web, "ping", "-c1", "-W10", other)


def test_networks_from_a_configuration(place: Place) -> None:
    config = place.network("cfg", "--config-only", "--subnet", "10.201.9.0/24", "-o", f"{BRIDGE}.enable_icc=false")
    made = place.network("made", "--config-from", config)
    shown = inspected(place, made)
    assert shown["ConfigFrom"] == {"Network": config}
    assert shown["Options"] == {f"{BRIDGE}.enable_icc": "false"}
    assert inspected(place, config)["ConfigOnly"] is True
    assert "cannot have instances" in place.refused("run", "--rm", "--network", config, "busybox", "true")
    assert "is in use by" in place.refused("network", "rm", config)
    place.networks.reverse()  # the other way round they can be removed


def test_options_of_a_bridge(place: Place) -> None:
    name = f"br{place.suffix}"
    network = place.network(
        "opts", "-o", f"{BRIDGE}.name={name}", "-o", f"{BRIDGE}.host_binding_ipv4=127.0.0.1", "-o",
        "com.docker.network.driver.mtu=1390", "-o", "com.docker.network.container_iface_prefix=lan", "-o", "unknown=x",
    )  # fmt: skip
    web = place.start("web", "--network", network, "-p", "80", command=SERVE)
    assert "mtu 1390" in place.inside(web, "ip", "link", "show", "lan0")
    assert place.daemon.docker("port", web, "80").stdout.startswith("127.0.0.1:")
    assert dict(inspected(place, network)["Options"])["unknown"] == "x"  # type: ignore[call-overload]


def test_an_isolated_gateway_leaves_the_host_out(place: Place) -> None:
    mode = f"{BRIDGE}.gateway_mode_ipv4=isolated"
    assert "internal network" in place.refused("network", "create", "-o", mode, f"bad-{place.suffix}")
    network = place.network("iso", "--internal", "-o", mode)
    pool = inspected(place, network)["IPAM"]["Config"][0]  # type: ignore[index]
    one, two = (place.start(name, "--network", network) for name in ("one", "two"))
    assert "1 packets received" not in place.inside(one, "ping", "-c1", "-W1", pool["Gateway"], check=False)
    address = place.inside(two, "ip", "-o", "-4", "addr", "show", "eth0").split()[3].partition("/")[0]
    assert "1 packets received" in place.inside(one, "ping", "-c1", "-W5", address)


@pytest.mark.parametrize("wall", ["runc", "vm"])
def test_published_ports_on_the_hosts_ipv6_loopback(place: Place, wall: str, tmp_path: Path) -> None:
    run("musl-gcc", "-static", "-o", str(tmp_path / "echo"), str(Path(__file__).with_name("echo.c")))
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        port = probe.getsockname()[1]
    for _ in range(2):  # the second start finds the remains of the first one's connections
        options = ("-p", f"{port}:80", "-p", f"{port}:80/udp", "-v", f"{tmp_path}:/programs:ro")
        web = place.start("web", "--runtime", wall, *options, command=SERVE)
        published = [f"0.0.0.0:{port}", f"[::]:{port}"]
        assert place.daemon.docker("port", web, "80").stdout.split() == published
        assert place.daemon.docker("port", web, "80/udp").stdout.split() == published
        wait = "until wget -qO- localhost/passwd || nc -z localhost 80; do sleep 0.1; done"
        place.inside(web, "sh", "-c", wait)
        assert "root:" in fetch(f"http://[::1]:{port}/passwd")
        assert "root:" in fetch(f"http://127.0.0.1:{port}/passwd")
        place.daemon.docker("exec", "-d", web, "/programs/echo")
        assert echoed("::1", port) == b"hello"
        place.daemon.docker("rm", "-f", place.instances.pop())


def test_relayed_ports_follow_to_another_network(place: Place) -> None:
    six = place.network("six", "--ipv6")
    web = place.start("web", "-p", "127.0.0.1::80", "-p", "[::1]::80", command=SERVE)
    ports = place.daemon.docker("port", web, "80").stdout.split()
    place.daemon.docker("network", "connect", six, web)
    place.daemon.docker("network", "disconnect", "bridge", web)
    for each in ports:
        assert "root:" in fetch(f"http://{each}/passwd")


def test_hundreds_of_ports(place: Place) -> None:
    web = place.start(
        "web", "-p", "127.0.0.1:21000-21299:21000-21299", command=("httpd", "-f", "-p", "21299", "-h", "/etc")
    )
    assert len(place.daemon.docker("port", web).stdout.splitlines()) == 300
    assert "root:" in fetch("http://127.0.0.1:21299/passwd")


def test_off_all_networks(place: Place) -> None:
    box = place.start("box")
    place.daemon.docker("network", "disconnect", "bridge", box)
    assert place.daemon.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", box).stdout.strip() == "{}"
    assert "eth0" not in place.inside(box, "ip", "-o", "link")
    place.daemon.docker("network", "connect", "bridge", box)
    assert "default via" in place.inside(box, "ip", "route")


def test_settings_of_the_daemon() -> None:
    settings = '[network]\nipv6 = true\naddress_pools = ["10.203.0.0/23 24"]\n'
    daemon = new_daemon(prefix="n", extra_config=settings)
    daemon.start()
    try:
        daemon.docker("load", "-q", "-i", str(image_archive("busybox")))
        assert "inet6 fd" in daemon.docker("run", "--rm", "busybox", "ip", "-o", "addr", "show", "eth0").stdout
        (default,) = json.loads(daemon.docker("network", "inspect", "bridge").stdout)
        assert default["EnableIPv6"] is True
        assert default["IPAM"]["Config"][0]["Subnet"] == "10.203.0.0/24"
        daemon.docker("network", "create", "second")
        failed = daemon.docker("network", "create", "third", check=False)
        assert "all predefined address pools have been fully subnetted" in failed.stderr
    finally:
        dispose(daemon)
