"""Which address of a subnet goes to whom."""

from __future__ import annotations

import ipaddress

from enisle.errors import Conflict, Exhausted, Invalid
from enisle.model.network import AddressPool

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_subnet(text: str) -> IPNetwork:
    """The subnet, strict about its host bits. Invalid in Docker's wording."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise Invalid(f"invalid network config:\ninvalid subnet {text}: {error}") from error


def parse_address(text: str, what: str = "IP address") -> IPAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise Invalid(f"invalid {what}: {text}") from error


class Subnet:
    """The addresses of one pool and who holds them (an endpoint id, or a word for what is reserved).

    Addresses are given out in sequence, so that one that was just given back is not given out again at once: a
    client that still has it in a cache would reach the wrong instance.
    """

    def __init__(self, pool: AddressPool) -> None:
        self.network = parse_subnet(pool.subnet)
        spread = self.network
        if pool.ip_range:
            spread = parse_subnet(pool.ip_range)
            if spread.version != self.network.version or not _within(spread, self.network):
                raise Invalid(f"invalid network config:\nip-range {pool.ip_range} is not in subnet {pool.subnet}")
        self._low, self._high = int(spread[0]), int(spread[-1])
        if self.network.version == 4 and self.network.prefixlen < 31:
            self._low = max(self._low, int(self.network.network_address) + 1)
            self._high = min(self._high, int(self.network.broadcast_address) - 1)
        elif self.network.version == 6 and self.network.prefixlen < 127:
            self._low = max(self._low, int(self.network.network_address) + 1)  # the subnet-router anycast address
        self._holders: dict[int, str] = {}
        self._next = self._low
        if pool.gateway:
            self.reserve(pool.gateway, "gateway")
        for name, address in pool.reserved.items():
            self.reserve(address, f"reserved: {name}")
        self._fixed = len(self._holders)

    def __contains__(self, address: str) -> bool:
        parsed = parse_address(address)
        return parsed.version == self.network.version and parsed in self.network

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.network.version

    def in_use(self) -> bool:
        """Whether anybody but the gateway and the reserved addresses holds one."""
        return len(self._holders) > self._fixed

    def first(self) -> str:
        """The first address that can be given out, where a gateway lives when nobody says otherwise."""
        return self._text(self._low)

    def reserve(self, address: str, holder: str) -> None:
        """Note that an address is not to be given out. Invalid when it is of another subnet."""
        if address not in self:
            raise Invalid(f"invalid network config:\n{address} is not in subnet {self.network}")
        self._holders[int(ipaddress.ip_address(address))] = holder

    def take(self, holder: str, wanted: str = "") -> str:
        """An address in CIDR form: the one wanted, or the next free one.

        Conflict: the one wanted is taken. Exhausted: none is left. Invalid: the one wanted is of another subnet.
        """
        number = self._checked(wanted, holder) if wanted else self._free()
        self._holders[number] = holder
        if not wanted:
            self._next = number + 1 if number < self._high else self._low
        return f"{self._text(number)}/{self.network.prefixlen}"

    def restore(self, holder: str, cidr: str) -> None:
        """Note what was given out before a restart. One that went to somebody else since stays theirs."""
        number = int(ipaddress.ip_interface(cidr).ip)
        self._holders.setdefault(number, holder)
        if self._next <= number < self._high:
            self._next = number + 1

    def release(self, holder: str, cidr: str) -> None:
        """Give an address back; one that is not the holder's stays as it is."""
        number = int(ipaddress.ip_interface(cidr).ip)
        if self._holders.get(number) == holder:
            del self._holders[number]

    def _checked(self, wanted: str, holder: str) -> int:
        if wanted not in self:
            raise Invalid(f"no configured subnet or ip-range contain the IP address {wanted}")
        number = int(ipaddress.ip_address(wanted))
        edges = (int(self.network[0]), int(self.network[-1])) if self.network.num_addresses > 2 else ()
        if self._holders.get(number, holder) != holder or (self.version == 4 and number in edges):
            raise Conflict("Address already in use")
        return number

    def _free(self) -> int:
        size = self._high - self._low + 1
        for step in range(min(size, len(self._holders) + 1)):
            number = self._low + (self._next - self._low + step) % size
            if number not in self._holders:
                return number
        raise Exhausted(f"no available IPv{self.version} addresses on this network's address pools")

    def _text(self, number: int) -> str:
        return str(ipaddress.IPv4Address(number) if self.version == 4 else ipaddress.IPv6Address(number))


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return outer[0] <= inner[0] and inner[-1] <= outer[-1]  # type: ignore[operator]


def mac_of(cidr: str) -> str:
    """The MAC of a NIC with that IPv4 address: locally administered, so that neighbours' caches stay right."""
    return f"02:42:{ipaddress.ip_interface(cidr).ip.packed.hex(':')}"
