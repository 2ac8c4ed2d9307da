"""macvlan networks: instances behind either wall on an interface of the host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.places import Place
from tests.daemon import Daemon, run


@pytest.fixture
def parent(place: Place) -> Iterator[str]:
    """An interface of this test's own with carrier: one end of a veth pair."""
    name, peer = f"p{place.suffix}", f"q{place.suffix}"
    run("ip", "link", "add", name, "mtu", "1450", "type", "veth", "peer", "name", peer)
    run("ip", "link", "set", name, "up")
    run("ip", "link", "set", peer, "up")
    yield name
    run("ip", "link", "del", name)


@pytest.fixture
def lan(place: Place, parent: str) -> Iterator[str]:
    subnet = ("--subnet", "10.202.0.0/24", "--ip-range", "10.202.0.128/25", "--gateway", "10.202.0.1")
    name = place.network("lan", "-d", "macvlan", "-o", f"parent={parent}", *subnet)
    yield name
    if place.instances:
        place.daemon.docker("rm", "-f", "-v", *place.instances)
    place.instances.clear()
    place.daemon.docker("network", "rm", place.networks.pop())


def test_containers_and_vms_share_the_segment(place: Place, lan: str) -> None:
    box = place.start("box", "--network", lan, "--ip", "10.202.0.9", "--mac-address", "02:aa:bb:cc:dd:01")
    shown = place.inside(box, "ip", "addr", "show", "eth0")
    assert "02:aa:bb:cc:dd:01" in shown
    assert "10.202.0.9/24" in shown
    assert "mtu 1450" in shown, "that of its parent"
    assert "default via 10.202.0.1" in place.inside(box, "ip", "route")
    machine = place.start("machine", "--runtime", "vm", "--network", lan)
    assert "10.202.0.128/24" in place.inside(machine, "ip", "-o", "addr")
    assert "1 packets received" in place.inside(machine, "ping", "-c1", "-W10", "10.202.0.9")
    assert "1 packets received" in place.inside(box, "ping", "-c1", "-W10", "10.202.0.128")


def test_names_of_neighbours(place: Place, lan: str) -> None:
    web = place.start("web", "--network", lan, "--network-alias", "www")
    machine = place.start("machine", "--runtime", "vm", "--network", lan, "--network-alias", "virtual")
    for one, others in ((web, (machine, "virtual")), (machine, (web, "www"))):
        assert "nameserver 127.0.0.11" in place.inside(one, "cat", "/etc/resolv.conf")
        for other in (*others, one):
            assert "1 packets received" in place.inside(one, "ping", "-c1", "-W10", other)
        everywhere = "nc -l -p 53 -s 0.0.0.0 -e true & nslookup nowhere-at-all; kill $!"
        assert "NXDOMAIN" in place.inside(one, "sh", "-c", everywhere, check=False)
    assert "No such file" in place.daemon.docker("exec", machine, "ls", "/lib/modules", check=False).stderr


def test_names_however_the_wall_is_made(place: Place, lan: str) -> None:
    web = place.start("web", "--network", lan, "--ip", "10.202.0.9")
    daemon = place.daemon
    asked = ("busybox", "nslookup", web)
    for flags in (
        ("--runtime", "debian-runc"),
        ("--init",),
        ("--cap-add", "SYS_PTRACE"),
        ("--network", f"container:{web}"),
    ):
        network = () if flags[0] == "--network" else ("--network", lan)
        assert "Address: 10.202.0.9" in daemon.docker("run", "--rm", *network, *flags, *asked).stdout
    for wall in (("--userns", "private"), ("--vm",)):
        assert "Address: 10.202.0.9" in daemon.enisle("run", "--rm", *wall, "--network", lan, *asked).stdout
    own = ("--dns", "10.202.0.77", "--dns", "192.0.2.1")
    shown = daemon.docker("run", "--rm", "--network", lan, *own, "busybox", "cat", "/etc/resolv.conf").stdout
    assert shown.startswith("nameserver 127.0.0.11\nnameserver 10.202.0.77\n")
    assert "192.0.2.1" not in shown, "that one the resolver asks"


def test_names_when_the_bridge_has_gone(place: Place, lan: str) -> None:
    web = place.start("web", "--network", lan, "--ip", "10.202.0.9")
    moved = place.start("moved")
    place.daemon.docker("network", "connect", lan, moved)
    place.daemon.docker("network", "disconnect", "bridge", moved)
    assert "Address: 10.202.0.9" in place.inside(moved, "nslookup", web)


def test_questions_by_tcp(place: Place, lan: str) -> None:
    """As of a C library whose answer was too long for UDP; the end of what is asked is passed on, too."""
    place.start("web", "--network", lan, "--ip", "10.202.0.9", "--network-alias", "www")
    question = bytes.fromhex("abcd01000001000000000000") + b"\3www\0" + bytes.fromhex("00010001")
    asked = "".join(f"\\{byte:03o}" for byte in (len(question).to_bytes(2, "big") + question) * 2)
    script = f"printf '{asked}' | nc 127.0.0.11 53 | od -An -v -tx1 | tr -d ' \\n'"
    for wall in ("runc", "vm"):
        said = place.daemon.docker("run", "--rm", "--runtime", wall, "--network", lan, "busybox", "sh", "-c", script)
        assert said.stdout.count("0aca0009") == 2, said


def test_names_go_on_without_an_engine(own_daemon: Daemon, place: Place, parent: str) -> None:
    own_daemon.docker("network", "create", "-d", "macvlan", "-o", f"parent={parent}", "lan")
    for name, wall in (("box", "runc"), ("machine", "vm")):
        own_daemon.docker(
            "run", "-d", "--name", name, "--runtime", wall, "--network", "lan", "busybox", "sleep", "1000"
        )
    pid = own_daemon.docker("inspect", "-f", "{{.State.Pid}}", "box").stdout.strip()
    own_daemon.kill()
    inside = ("nsenter", "-t", pid, "-n", "-m", "nslookup", "machine")
    assert "Name:\tmachine" in run(*inside, check=False).stdout
    own_daemon.start()
    for one, other in (("box", "machine"), ("machine", "box")):
        assert "1 packets received" in own_daemon.docker("exec", one, "ping", "-c1", "-W10", other).stdout


@pytest.mark.parametrize("wall", ["runc", "vm"])
def test_coming_and_going_while_it_runs(place: Place, parent: str, lan: str, wall: str) -> None:
    box = place.start("box", "--network", lan, "--ip", "10.202.0.9")
    other = place.start("other", "--runtime", wall)
    place.daemon.docker("network", "connect", lan, other)
    assert "1 packets received" in place.inside(other, "ping", "-c1", "-W10", "10.202.0.9")
    assert "default via 10.202.0.1" not in place.inside(other, "ip", "route"), "the first network's stays"
    place.daemon.docker("network", "disconnect", lan, other)
    assert "eth1" not in place.inside(other, "ip", "-o", "link")
    place.daemon.docker("network", "connect", lan, other)
    place.daemon.docker("network", "disconnect", "bridge", other)
    wait = "until ip route | grep -q 'default via 10.202.0.1'; do sleep 0.1; done"
    place.inside(other, "sh", "-c", wait)
    place.daemon.docker("network", "disconnect", lan, other)
    links = run("ip", "-d", "-o", "link", "show").stdout.splitlines()
    assert not [link for link in links if "macvtap" in link and f"@{parent}:" in link]
    assert box


def test_one_network_to_an_interface(place: Place, lan: str, parent: str) -> None:
    options = ("-d", "macvlan", "-o", f"parent={parent}")
    said = place.refused("network", "create", *options, f"more-{place.suffix}")
    assert f"is already using parent interface {parent}" in said
    assert lan
    assert "'odd' is not valid" in place.refused("network", "create", *options, "-o", "macvlan_mode=odd", "odd")


@pytest.mark.parametrize("mode", ["private", "vepa", "passthru"])
def test_modes(place: Place, parent: str, mode: str) -> None:
    lan = place.network("lan", "-d", "macvlan", "-o", f"parent={parent}", "-o", f"macvlan_mode={mode}")
    box = place.start("box", "--network", lan)
    assert f"mode {mode}" in run("nsenter", "-t", pid_of(place, box), "-n", "ip", "-d", "link", "show", "eth0").stdout
    place.daemon.docker("rm", "-f", place.instances.pop())
    place.daemon.docker("network", "rm", place.networks.pop())


def test_an_interface_that_is_gone_takes_no_other_network_with_it(own_daemon: Daemon, place: Place) -> None:
    name = f"r{place.suffix}"
    run("ip", "link", "add", name, "type", "veth", "peer", "name", f"s{place.suffix}")
    try:
        own_daemon.docker("network", "create", "-d", "macvlan", "-o", f"parent={name}", "lan")
    finally:
        run("ip", "link", "del", name)
    own_daemon.kill()
    own_daemon.start()
    assert own_daemon.docker("run", "--rm", "busybox", "ip", "route").stdout.startswith("default via")
    failed = own_daemon.docker("run", "--rm", "--network", "lan", "busybox", "true", check=False)
    assert f"parent interface {name} was not found on the host" in failed.stderr
    own_daemon.docker("network", "rm", "lan")


def pid_of(place: Place, name: str) -> str:
    return place.daemon.docker("inspect", "-f", "{{.State.Pid}}", name).stdout.strip()
