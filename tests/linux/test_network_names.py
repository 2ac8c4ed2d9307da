"""Name resolution: a real resolver process on real bridges, asked as instances ask."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dnslib import DNSRecord

from enisle.model.network import Network
from tests.linux.hosts import Host, Instance, Lan
from tests.linux.nameserver import Nameserver, ask, asking_host


@pytest.fixture
def host() -> Iterator[Host]:
    with asking_host() as running:
        yield running


@pytest.fixture
def lan(host: Host) -> Iterator[Lan]:
    with Lan(host) as machine:
        yield machine


@pytest.fixture
def nameserver(lan: Lan) -> Nameserver:
    return Nameserver(lan)


@pytest.fixture
def network(host: Host) -> Network:
    return host.create_network("app")


def test_names_aliases_and_ids_of_the_own_network(host: Host, network: Network) -> None:
    with (
        Instance(host, "web", network, aliases=("www",)) as web,
        Instance(host, "db", network, aliases=("www",)) as db,
        Instance(host, "other") as other,
    ):
        server = network.pools[0].gateway
        assert db.run(ask, server, "web") == ("NOERROR", [web.ipv4])
        assert db.run(ask, server, "WEB.app.") == ("NOERROR", [web.ipv4])
        assert db.run(ask, server, web.id[:12]) == ("NOERROR", [web.ipv4])
        assert db.run(ask, server, "www") == ("NOERROR", sorted([web.ipv4, db.ipv4]))
        assert db.run(ask, server, "web", "AAAA") == ("NOERROR", [])
        reverse = ".".join(reversed(web.ipv4.split("."))) + ".in-addr.arpa"
        assert db.run(ask, server, reverse, "PTR") == ("NOERROR", ["web.app."])
        assert web.run(ask, server, "db", tcp=True) == ("NOERROR", [db.ipv4])
        assert other.run(ask, other.endpoint.gateway4, "web")[1] == []


def test_a_name_ends_with_its_endpoint(host: Host, network: Network) -> None:
    server = network.pools[0].gateway
    with Instance(host, "web", network) as web:
        with Instance(host, "db", network):
            assert web.run(ask, server, "db")[1]
        assert web.run(ask, server, "db")[1] == []


def test_other_names_are_asked_of_the_hosts_nameservers(host: Host, nameserver: Nameserver) -> None:
    with Instance(host, "one") as one:
        server = one.endpoint.gateway4
        assert one.run(ask, server, "example.com") == ("NOERROR", ["192.0.2.77"])
        assert one.run(ask, server, "nothing.example.com")[0] == "NXDOMAIN"
        assert one.run(ask, server, "example.com", tcp=True) == ("NOERROR", ["192.0.2.77"])
        assert len(one.run(ask, server, "long.example.com", "TXT", tcp=True)[1]) == 5


def test_nameservers_of_the_instances_choice(host: Host, lan: Lan, nameserver: Nameserver, network: Network) -> None:
    host.resolv_conf.write_text("nameserver 198.51.100.1\n")  # the host itself: nobody there
    with (
        Instance(host, "web", network, dns=(lan.address,)) as web,
        Instance(host, "db", network) as db,
        Instance(host, "odd", network, dns=("127.0.0.1",)) as odd,
    ):
        server = network.pools[0].gateway
        assert web.run(ask, server, "example.com") == ("NOERROR", ["192.0.2.77"])
        assert web.run(ask, server, "db") == ("NOERROR", [db.ipv4])
        assert db.run(ask, server, "example.com")[0] == "SERVFAIL"
        assert odd.run(ask, server, "example.com")[0] == "SERVFAIL", "not the host's own"
        for each in (web, db, odd):
            each.store()
        host.restart()
        assert web.run(ask, server, "example.com") == ("NOERROR", ["192.0.2.77"])


def test_an_instance_that_is_its_own_nameserver_does_not_ask_itself_for_ever(host: Host, network: Network) -> None:
    server = network.pools[0].gateway
    with Instance(host, "web", network, dns=(server,)) as web, Instance(host, "db", network) as db:
        assert web.run(ask, server, "example.com")[0] == "SERVFAIL"
        assert web.run(ask, server, "db") == ("NOERROR", [db.ipv4])


def test_a_name_of_many_addresses_answers_in_varying_order(host: Host, network: Network) -> None:
    with ExitStack() as stack:
        web = [stack.enter_context(Instance(host, f"web{n}", network, aliases=("web",))) for n in range(6)]
        server = network.pools[0].gateway

        def first() -> str:
            reply = DNSRecord.parse(DNSRecord.question("web").send(server, 53, timeout=5))
            assert len(reply.rr) == len(web)
            return str(reply.rr[0].rdata)

        assert len({web[0].run(first) for _ in range(40)}) > 1


def test_a_changed_resolv_conf_is_read(host: Host, lan: Lan) -> None:
    host.resolv_conf.write_text("nameserver 198.51.100.1\n")  # the host itself: nobody there
    with Instance(host, "one") as one:
        server = one.endpoint.gateway4
        assert one.run(ask, server, "example.com")[0] == "SERVFAIL"
        nameserver = Nameserver(lan)
        host.resolv_conf.write_text(f"nameserver {lan.address}\n")
        host.wait_until(lambda: one.run(ask, server, "example.com") == ("NOERROR", ["192.0.2.77"]))
        assert nameserver.asked


def test_an_internal_network_asks_nobody(host: Host, nameserver: Nameserver) -> None:
    inner = host.create_network("inner", internal=True)
    with Instance(host, "one", inner) as one, Instance(host, "two", inner) as two:
        server = inner.pools[0].gateway
        assert one.run(ask, server, "two") == ("NOERROR", [two.ipv4])
        assert one.run(ask, server, "example.com")[0] == "NXDOMAIN"
        assert one.run(ask, server, "example.com", tcp=True)[0] == "NXDOMAIN"
    assert nameserver.asked == []


def test_nobody_else_is_answered(host: Host, lan: Lan, nameserver: Nameserver) -> None:
    other = host.create_network("other")
    with Instance(host, "one") as one, Instance(host, "two", other) as two:
        server = one.endpoint.gateway4
        assert one.run(ask, server, "example.com")[0] == "NOERROR"
        lan.route(f"{server}/32", lan.host_address)
        for outsider in (lan, two):
            with pytest.raises(OSError):
                outsider.run(ask, server, "example.com", patience_s=0.5)


def test_it_survives_the_engine_and_is_found_again(host: Host, network: Network) -> None:
    server = network.pools[0].gateway
    with Instance(host, "web", network) as web, Instance(host, "db", network) as db:
        assert web.run(ask, server, "db")[1] == [db.ipv4]
        web.store()
        db.store()
        pid = host.resolver_pid()
        host.close(keep=True)
        assert web.run(ask, server, "db")[1] == [db.ipv4]
        host.open()
        assert host.resolver_pid() == pid
        assert web.run(ask, server, "db")[1] == [db.ipv4]
        with Instance(host, "late", network) as late:
            assert web.run(ask, server, "late")[1] == [late.ipv4]


def test_it_is_started_again_when_it_dies(host: Host, network: Network) -> None:
    server = network.pools[0].gateway
    with Instance(host, "web", network) as web, Instance(host, "db", network) as db:
        assert web.run(ask, server, "db")[1] == [db.ipv4]
        pid = host.resolver_pid()
        os.kill(pid, signal.SIGKILL)
        host.wait_until(lambda: host.resolver_pid() not in (0, pid))
        assert web.run(ask, server, "db")[1] == [db.ipv4]


def test_it_has_no_rights_and_ends_with_the_engine(host: Host) -> None:
    with Instance(host, "one") as one:
        assert one.run(ask, one.endpoint.gateway4, "example.com")[0] == "SERVFAIL"
        pid = host.resolver_pid()
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert status["Uid"].split() == ["65534"] * 4
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    host.close(keep=False)
    assert not Path(f"/proc/{pid}").exists()


def test_rubbish_does_not_stop_it(host: Host, nameserver: Nameserver) -> None:
    def pester(server: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((server, 53))
            whole = DNSRecord.question("example.com").pack()
            for length in range(len(whole)):
                client.send(whole[:length])
            client.send(whole[:12] + b"\xc0\x0c\0\1\0\1")  # a name that points to itself
            client.send(b"\xff" * 4000)
            client.send(bytes(12))

    with Instance(host, "one") as one:
        server = one.endpoint.gateway4
        one.run(pester, server)
        assert one.run(ask, server, "example.com") == ("NOERROR", ["192.0.2.77"])
