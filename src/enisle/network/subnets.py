"""Choosing subnets that nobody on this host uses."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from enisle.errors import Exhausted, Invalid
from enisle.network.addresses import IPNetwork

# The same choice as Docker's, in its order, so that nothing surprises who comes from there.
_LOOKED_AT_MOST = 1 << 16
_DEFAULT_POOLS = (
    "172.17.0.0/16 16",
    "172.18.0.0/15 16",
    "172.20.0.0/14 16",
    "172.24.0.0/13 16",
    "192.168.0.0/16 20",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """Subnets for networks whose user named none: address pools and the prefix length of what is cut from each."""

    ipv4: tuple[tuple[ipaddress.IPv4Network, int], ...] = ()
    ipv6: tuple[tuple[ipaddress.IPv6Network, int], ...] = ()

    @classmethod
    def parse(cls, pools: Sequence[str]) -> Candidates:
        """From "BASE/LENGTH SIZE" each, as in "10.64.0.0/12 24". Invalid otherwise."""
        four, six = [], []
        for text in pools:
            base, _, size = text.partition(" ")
            try:
                network, length = ipaddress.ip_network(base), int(size)
            except ValueError as error:
                raise Invalid(f'invalid address pool "{text[:80]}": write "10.64.0.0/12 24"') from error
            if not network.prefixlen <= length <= network.max_prefixlen - 2:
                raise Invalid(f'invalid address pool "{text[:80]}": no subnets of that size are in it')
            if isinstance(network, ipaddress.IPv4Network):
                four.append((network, length))
            else:
                six.append((network, length))
        return cls(ipv4=tuple(four), ipv6=tuple(six))

    def subnets4(self) -> Iterator[ipaddress.IPv4Network]:
        """Best first; Docker's own choice where nothing was set."""
        for pool, length in self.ipv4 or _DEFAULT.ipv4:
            yield from pool.subnets(new_prefix=length)


_DEFAULT = Candidates.parse(_DEFAULT_POOLS)


def choose_ipv4(used: Iterable[IPNetwork], choice: Candidates = _DEFAULT) -> str:
    """The first candidate that overlaps nothing in ``used``. Exhausted when there is none."""
    taken = [network for network in used if isinstance(network, ipaddress.IPv4Network) and network.prefixlen > 0]
    found = _first_free(choice.subnets4(), taken)
    if found is None:
        raise Exhausted(
            "all predefined address pools have been fully subnetted", remedy="Name a subnet, or remove unused networks."
        )
    return found


def choose_ipv6(seed: str, used: Iterable[IPNetwork], choice: Candidates = _DEFAULT) -> str:
    """The first candidate, or where there are none a unique local /64 (RFC 4193) that follows from ``seed``."""
    taken = [network for network in used if isinstance(network, ipaddress.IPv6Network) and network.prefixlen > 0]
    for pool, length in choice.ipv6:
        found = _first_free(pool.subnets(new_prefix=length), taken)
        if found is not None:
            return found
    if choice.ipv6:
        raise Exhausted("all predefined address pools have been fully subnetted", remedy="Name an IPv6 subnet.")
    for attempt in range(256):
        digest = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
        candidate = ipaddress.IPv6Network((b"\xfd" + digest[:7] + bytes(8), 64))
        if not any(candidate.overlaps(network) for network in taken):
            return str(candidate)
    raise Exhausted("no unique local IPv6 subnet is free on this host", remedy="Name a subnet.")


def _first_free(candidates: Iterable[IPNetwork], taken: Sequence[IPNetwork]) -> str | None:
    """The first that overlaps nothing; a pool may have more candidates than can be looked at."""
    for looked_at, candidate in enumerate(candidates):
        if looked_at > _LOOKED_AT_MOST:
            break
        if not any(candidate.overlaps(network) for network in taken):
            return str(candidate)
    return None


def overlapping(subnet: IPNetwork, used: Iterable[IPNetwork]) -> IPNetwork | None:
    """The first of ``used`` that shares addresses with the subnet; default routes do not count."""
    for network in used:
        if network.version == subnet.version and network.prefixlen > 0 and network.overlaps(subnet):
            return network
    return None
