"""When a resolver without an engine goes on, and when it ends."""

from __future__ import annotations

import socket
from pathlib import Path

from enisle.network.resolver import IDLE_LOOKS_AT_MOST, Listener, Resolver
from enisle.network.upstream import Upstreams
from enisle.network.zone import Zone


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
