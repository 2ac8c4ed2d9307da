"""When a resolver without an engine goes on, and when it ends."""

from __future__ import annotations

import socket
from pathlib import Path

from dnslib import RCODE, DNSRecord

from enisle.network.resolver import IDLE_LOOKS_AT_MOST, Listener, Resolver
from enisle.network.upstream import Upstreams
from enisle.network.zone import Known, Zone


def resolver_on(bridge: int) -> Resolver:
    resolver = Resolver(Upstreams(Path("/nonexistent")))
    listener = Listener(resolver, Zone("n", [], answers=True), internal=False)
    listener.facts = {"bridge": bridge}
    resolver._listeners["n"] = listener
    return resolver


async def test_it_goes_on_while_a_bridge_is_there() -> None:
    resolver = resolver_on(socket.if_nametoindex("lo"))
    assert not any(resolver._is_abandoned() for _ in range(10))


async def test_it_ends_some_time_after_engine_and_bridges_went() -> None:
    resolver = resolver_on(2**30)
    resolver._engines = 1
    assert not any(resolver._is_abandoned() for _ in range(10))
    resolver._engines = 0
    looks = [resolver._is_abandoned() for _ in range(IDLE_LOOKS_AT_MOST + 1)]
    assert looks == [False] * IDLE_LOOKS_AT_MOST + [True]


async def ask(listener: Listener, name: str, client: str) -> tuple[int, list[str]]:
    reply = await listener.reply(DNSRecord.question(name).pack(), client, tcp=False)
    assert reply is not None
    record = DNSRecord.parse(reply)
    return record.header.rcode, [str(each.rdata) for each in record.rr]


async def test_names_of_all_networks_of_the_one_who_asks() -> None:
    resolver = Resolver(Upstreams(Path("/nonexistent")))
    front = Listener(resolver, Zone("front", [], answers=True), internal=True)
    back = Listener(resolver, Zone("back", [], answers=True), internal=True)
    other = Listener(resolver, Zone("other", [], answers=True), internal=False)
    resolver._listeners = {"f": front, "b": back, "o": other}
    front.names.tell("f1", Known(names=("web",), addresses=("10.1.0.2",), owner="web"))
    front.names.tell("f2", Known(names=("proxy",), addresses=("10.1.0.3",), owner="proxy"))
    back.names.tell("b1", Known(names=("web",), addresses=("10.2.0.2",), owner="web"))
    back.names.tell("b2", Known(names=("db",), addresses=("10.2.0.3",), owner="db"))
    other.names.tell("o1", Known(names=("secret",), addresses=("10.3.0.2",), owner="secret"))
    assert await ask(front, "db", "10.1.0.2") == (RCODE.NOERROR, ["10.2.0.3"])
    assert await ask(front, "web", "10.1.0.2") == (RCODE.NOERROR, ["10.1.0.2"]), "the network it asks by comes first"
    assert await ask(front, "db", "10.1.0.3") == (RCODE.NXDOMAIN, []), "the proxy is not on that network"
    assert await ask(front, "secret", "10.1.0.2") == (RCODE.NXDOMAIN, [])
    assert await ask(front, "db", "10.1.0.99") == (RCODE.NXDOMAIN, []), "nobody of ours"
    back.names.forget("b1")
    assert await ask(front, "db", "10.1.0.2") == (RCODE.NXDOMAIN, [])
