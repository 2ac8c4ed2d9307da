"""Answers made from names, and messages that are none."""

from __future__ import annotations

import pytest
from dnslib import RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from enisle.network import zone
from enisle.network.resolver import Refusals
from enisle.network.upstream import _answers
from enisle.network.zone import Known, Zone


def known(names: list[str], addresses: list[str], owner: str = "", links: dict[str, str] | None = None) -> Known:
    return Known(names=tuple(names), addresses=tuple(addresses), owner=owner, links=links or {})


def ask(names: Zone, name: str, kind: str = "A", owner: str = "") -> DNSRecord | None:
    query = zone.parse(DNSRecord.question(name, kind).pack())
    assert query is not None
    reply = names.answer(query, owner)
    return DNSRecord.parse(reply) if reply else None


def data(names: Zone, name: str, kind: str = "A", owner: str = "") -> list[str] | None:
    reply = ask(names, name, kind, owner)
    return sorted(str(record.rdata) for record in reply.rr) if reply else None


@pytest.fixture
def names() -> Zone:
    made = Zone("App", ["10.1.0.0/16", "fd00::/64"], answers=True)
    made.tell("e1", known(["web", "www"], ["10.1.0.2", "fd00::2"]))
    made.tell("e2", known(["db", "www"], ["10.1.0.3"]))
    return made


def test_names(names: Zone) -> None:
    assert data(names, "web") == ["10.1.0.2"]
    assert data(names, "Web.app") == ["10.1.0.2"]
    assert data(names, "web", "AAAA") == ["fd00::2"]
    assert data(names, "db", "AAAA") == []
    assert data(names, "db", "MX") == []
    assert data(names, "www") == ["10.1.0.2", "10.1.0.3"]
    assert data(names, "web.example.com") is None


def test_addresses(names: Zone) -> None:
    assert data(names, "3.0.1.10.in-addr.arpa", "PTR") == ["db.app."]
    assert data(names, "2" + ".0" * 28 + ".d.f.ip6.arpa", "PTR") is None  # not a whole address
    nibbles = ".".join(reversed("fd00" + "0" * 27 + "2"))
    assert data(names, nibbles + ".ip6.arpa", "PTR") == ["web.app."]
    unknown = ask(names, "99.0.1.10.in-addr.arpa", "PTR")
    assert unknown is not None
    assert unknown.header.rcode == RCODE.NXDOMAIN
    assert data(names, "8.8.8.8.in-addr.arpa", "PTR") is None


def test_forgotten_and_told_anew(names: Zone) -> None:
    names.forget("e1")
    assert data(names, "web") is None
    assert data(names, "www") == ["10.1.0.3"]
    names.tell("e2", known(["db2"], ["10.1.0.9"]))
    assert data(names, "db") is None
    assert data(names, "db2") == ["10.1.0.9"]
    names.forget("nobody")


def test_links_are_names_of_the_one_who_asks(names: Zone) -> None:
    names.tell("e3", known(["app"], ["10.1.0.4"], "i3", {"store": "DB", "web": "db"}))
    assert names.owner_of("10.1.0.4") == "i3"
    assert data(names, "Store", owner="i3") == ["10.1.0.3"]
    assert data(names, "store.app", owner="i3") == ["10.1.0.3"]
    assert data(names, "web", owner="i3") == ["10.1.0.3"], "a link goes before a name"
    assert data(names, "store") is None
    assert data(names, "store", owner="i9") is None
    names.forget("e2")
    assert data(names, "store", owner="i3") is None, "whom it stands for is not there"
    names.forget("e3")
    assert not names.has("i3")
    assert names.owner_of("10.1.0.4") == ""


def test_a_network_without_names() -> None:
    quiet = Zone("bridge", ["10.1.0.0/16"], answers=False)
    quiet.tell("e1", known(["web"], ["10.1.0.2"]))
    assert data(quiet, "web") is None


def test_an_answer_fits_a_datagram(names: Zone) -> None:
    for number in range(200):
        names.tell(f"many{number}", known(["many"], [f"10.1.2.{number}"]))
    reply = ask(names, "many")
    assert reply is not None
    assert len(reply.pack()) <= 512
    assert reply.rr


@given(st.binary(max_size=200))
def test_rubbish_is_no_query(rubbish: bytes) -> None:
    zone.parse(rubbish)


def test_what_is_no_question() -> None:
    query = DNSRecord.question("web")
    assert zone.parse(query.reply().pack()) is None
    assert zone.parse(b"") is None
    assert zone.parse(query.pack()[:12] + b"\xc0\x0c\0\1\0\1") is None
    query.header.set_opcode(5)  # UPDATE
    assert zone.parse(query.pack()) is None


def test_a_reply_has_to_fit_its_question() -> None:
    query = DNSRecord.question("example.com")
    sent = query.pack()
    assert _answers(query.reply().pack(), sent)
    assert not _answers(sent, sent)
    other = DNSRecord.question("example.org")
    other.header.id = query.header.id
    assert not _answers(other.reply().pack(), sent)
    other = query.reply()
    other.header.id ^= 1
    assert not _answers(other.pack(), sent)
    assert not _answers(b"\0" * 5, sent)


def test_refusals() -> None:
    held = Refusals(3, 2)
    assert [held.enter("a") for _ in range(3)] == [True, True, False]
    assert [held.enter(client) for client in "bc"] == [True, False]
    held.leave("a")
    assert held.enter("c")
