"""Choosing subnets that nobody on this host uses."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator

from enisle.errors import Exhausted
from enisle.network.addresses import IPNetwork

# The same choice as Docker's, in its order, so that nothing surprises who comes from there.
_POOLS = (("172.17.0.0/16", 16), ("172.18.0.0/15", 16), ("172.20.0.0/14", 16), ("172.24.0.0/13", 16))
_POOLS_LATER = (("192.168.0.0/16", 20),)


def candidates() -> Iterator[ipaddress.IPv4Network]:
    """IPv4 subnets for networks whose user named none, best first."""
    for pool, length in (*_POOLS, *_POOLS_LATER):
        yield from ipaddress.IPv4Network(pool).subnets(new_prefix=length)


def choose_ipv4(used: Iterable[IPNetwork]) -> str:
    """The first candidate that overlaps nothing in ``used``. Exhausted when there is none."""
    taken = [network for network in used if isinstance(network, ipaddress.IPv4Network) and network.prefixlen > 0]
    for candidate in candidates():
        if not any(candidate.overlaps(network) for network in taken):
            return str(candidate)
    raise Exhausted(
        "all predefined address pools have been fully subnetted", remedy="Name a subnet, or remove unused networks."
    )


def choose_ipv6(seed: str, used: Iterable[IPNetwork]) -> str:
    """A unique local /64 (RFC 4193) that follows from ``seed``, so that it stays the same."""
    taken = [network for network in used if isinstance(network, ipaddress.IPv6Network) and network.prefixlen > 0]
    for attempt in range(256):
        digest = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
        candidate = ipaddress.IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))
        if not any(candidate.overlaps(network) for network in taken):
            return str(candidate)
    raise Exhausted("no unique local IPv6 subnet is free on this host", remedy="Name a subnet.")


def overlapping(subnet: IPNetwork, used: Iterable[IPNetwork]) -> IPNetwork | None:
    """The first of ``used`` that shares addresses with the subnet; default routes do not count."""
    for network in used:
        if network.version == subnet.version and network.prefixlen > 0 and network.overlaps(subnet):
            return network
    return None
