"""Names on networks without a bridge: a keeper's listener inside, and the real resolver behind it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from dnslib import DNSRecord

from enisle.linux.nftables.connection import Nftables
from enisle.model.instance import InstanceSpec
from enisle.model.network import AddressPool, Network
from tests.linux.hosts import Host, Instance, Lan
from tests.linux.names_inside import SERVER, listening
from tests.linux.nameserver import LONG, Nameserver, ask, asking_host

SEGMENT = (AddressPool(subnet="198.51.100.0/24", gateway="198.51.100.2", ip_range="198.51.100.128/25"),)


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
def network(host: Host, lan: Lan) -> Network:
    assert lan
    return host.create_network("segment", driver="macvlan", pools=SEGMENT, options={"parent": "lan0"})


def test_names_of_neighbours_and_of_the_world(host: Host, network: Network, nameserver: Nameserver) -> None:
    with Instance(host, "web", network, aliases=("www",)) as web, Instance(host, "db", network) as db, listening(db):
        assert db.run(ask, SERVER, "web") == ("NOERROR", [web.ipv4])
        assert db.run(ask, SERVER, "www.segment") == ("NOERROR", [web.ipv4])
        assert db.run(ask, SERVER, web.id[:12], tcp=True) == ("NOERROR", [web.ipv4])
        assert db.run(ask, SERVER, "example.com") == ("NOERROR", ["192.0.2.77"])
        assert db.run(ask, SERVER, "long.example.com", "TXT", tcp=True) == ("NOERROR", [f'"{LONG}"'] * 5)
        assert db.run(ask, SERVER, "nowhere") == ("NXDOMAIN", [])
    assert "web." not in nameserver.asked


def test_names_of_every_network_it_is_on(host: Host, network: Network) -> None:
    app = host.create_network("app")
    with Instance(host, "web", app) as web, Instance(host, "db", network) as db, listening(db):
        assert db.run(ask, SERVER, "web")[1] == []
        db.connect(app)
        assert db.run(ask, SERVER, "web")[1] == [web.ipv4]
    with Instance(host, "web", app) as web, Instance(host, "db", network) as db:
        web.connect(network)
        assert web.run(ask, app.pools[0].gateway, "db")[1] == [db.ipv4]


def test_the_workload_may_have_every_port_for_itself(host: Host, network: Network, nameserver: Nameserver) -> None:
    def bind_all() -> list[socket.socket]:
        found = []
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            found.append(socket.socket(socket.AF_INET, kind))
            found[-1].bind(("0.0.0.0", 53))
        found[-1].listen()
        return found

    with Instance(host, "db", network) as db, listening(db):
        for each in db.run(bind_all):
            db.keep(each)
        assert db.run(ask, SERVER, "example.com")[0] == "NOERROR"
        assert db.run(ask, SERVER, "example.com", tcp=True)[0] == "NOERROR"


def test_without_nftables_it_has_the_port_itself(
    host: Host, network: Network, nameserver: Nameserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Nftables, *_changes: object) -> None:
        from enisle.linux.nftables.connection import NftablesMissing

        raise NftablesMissing(95, "not here")

    with Instance(host, "db", network) as db:
        with monkeypatch.context() as patched:
            patched.setattr(Nftables, "commit", refuse)
            serving = listening(db)
            serving.__enter__()
        try:
            assert db.run(ask, SERVER, "db") == ("NOERROR", [db.ipv4])
            assert db.run(ask, SERVER, "example.com", tcp=True)[0] == "NOERROR"
        finally:
            serving.__exit__(None, None, None)


def test_an_internal_network_asks_nobody_outside(host: Host, lan: Lan, nameserver: Nameserver) -> None:
    closed = host.create_network("closed", driver="macvlan", options={"parent": "lan0"}, internal=True)
    with Instance(host, "db", closed) as db, listening(db):
        assert db.run(ask, SERVER, "db") == ("NOERROR", [db.ipv4])
        assert db.run(ask, SERVER, "example.com") == ("NXDOMAIN", [])
    assert nameserver.asked == []


def test_nameservers_on_the_segment_are_asked_from_inside(host: Host, network: Network, nameserver: Nameserver) -> None:
    dns = (Lan.address, "192.0.2.1")
    spec = InstanceSpec(image="i", image_id="i", network_mode="segment", dns=dns)
    told = host.do(host.networks.resolv_conf(network, spec))
    assert [line for line in told.splitlines() if line.startswith("nameserver")] == [
        f"nameserver {SERVER}",
        f"nameserver {Lan.address}",
    ]
    with Instance(host, "db", network, dns=dns[:1]) as db, listening(db):
        assert db.run(ask, SERVER, "db") == ("NOERROR", [db.ipv4])
        assert db.run(ask, SERVER, "example.com") == ("REFUSED", [])
        assert nameserver.asked == []
        assert db.run(ask, Lan.address, "example.com")[0] == "NOERROR"


def test_the_resolver_may_die_and_the_engine_be_replaced(host: Host, network: Network) -> None:
    with Instance(host, "web", network) as web, Instance(host, "db", network) as db, listening(db):
        assert db.run(ask, SERVER, "web")[1] == [web.ipv4]
        web.store()
        db.store()
        pid = host.resolver_pid()
        host.restart()
        assert host.resolver_pid() == pid
        assert db.run(ask, SERVER, "web")[1] == [web.ipv4]
        os.kill(pid, signal.SIGKILL)
        host.wait_until(lambda: host.resolver_pid() not in (0, pid))
        assert db.run(ask, SERVER, "web")[1] == [web.ipv4]


def test_many_and_senseless_questions_leave_it_answering(host: Host, network: Network, nameserver: Nameserver) -> None:
    def pester() -> None:
        whole = DNSRecord.question("example.com").pack()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((SERVER, 53))
            for length in range(len(whole)):
                client.send(whole[:length])
            client.send(b"\xff" * 4000)
            for _ in range(500):
                client.send(whole)
        held = [socket.create_connection((SERVER, 53), timeout=5) for _ in range(30)]
        for one in held:
            one.close()

    def patiently() -> None:
        """As a C library: what is dropped for being too much is asked again."""
        for _ in range(10):
            with suppress(TimeoutError):
                ask(SERVER, "example.com", patience_s=1)
                return

    def many() -> list[str]:
        with ThreadPoolExecutor(16) as pool:
            return [code for code, _ in pool.map(lambda _: ask(SERVER, "db"), range(100))]

    with Instance(host, "db", network) as db, listening(db):
        assert db.run(many) == ["NOERROR"] * 100
        db.run(pester)
        db.run(patiently)
        assert db.run(ask, SERVER, "example.com") == ("NOERROR", ["192.0.2.77"])
        assert db.run(ask, SERVER, "example.com", tcp=True) == ("NOERROR", ["192.0.2.77"])


def test_who_is_not_known_is_told_nothing(host: Host, network: Network) -> None:
    with Instance(host, "web", network), Instance(host, "db", network) as db, listening(db):
        host.do(host.networks.detach(network, db.endpoint))
        assert db.run(ask, SERVER, "web") == ("SERVFAIL", [])
