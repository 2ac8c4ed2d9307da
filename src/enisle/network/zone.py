"""The names of one network's instances, and the answers made from them. No I/O."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, A, DNSBuffer, DNSHeader, DNSQuestion, DNSRecord

TTL_S = 5  # an instance that is started again may have another address
_ADDRESSES_AT_MOST = 20  # so that any answer fits the 512 bytes of plain DNS over UDP
_IN = 1
_A, _PTR, _AAAA, _ANY = 1, 12, 28, 255
_REVERSE4 = ".in-addr.arpa"
_REVERSE6 = ".ip6.arpa"

Query = tuple[int, DNSQuestion]
"""The id of a query and what it asks."""


def parse(data: bytes) -> Query | None:
    """The query in a message, or None for what is no plain question. Never raises, whatever the bytes."""
    try:
        buffer = DNSBuffer(data)
        header = DNSHeader.parse(buffer)
        if header.qr or header.opcode or header.q != 1:
            return None
        return header.id, DNSQuestion.parse(buffer)  # what follows the question is not ours to read
    except Exception:  # dnslib lets through what struct, int and bytes raise; all of it means that this is no query
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of an endpoint. ``owner``: the instance it belongs to. ``links``: names that only its owner may
    use (lower case) and the names they stand for. ``upstreams``: nameservers to ask for it instead of the host's; None
    for the host's."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    owner: str = ""
    upstreams: Sequence[str] | None = None
    links: Mapping[str, str] = field(default_factory=dict)


class Zone:
    """Endpoints of one network with their names and addresses.

    ``answers``: whether names are answered at all (Docker's default bridge has none). Names are found with and
    without the network's name behind them.
    """

    def __init__(self, name: str, subnets: Sequence[str], *, answers: bool) -> None:
        self._suffix = f".{name.lower()}"
        self._subnets = [ipaddress.ip_network(subnet) for subnet in subnets]
        self._answers = answers
        self._endpoints: dict[str, Known] = {}
        self._by_name: dict[str, set[str]] = {}
        self._by_address: dict[str, str] = {}
        self._by_owner: dict[str, str] = {}

    def tell(self, endpoint: str, known: Known) -> None:
        """What is known of an endpoint, in place of what was."""
        self.forget(endpoint)
        self._endpoints[endpoint] = known
        self._by_owner[known.owner] = endpoint
        for name in known.names:
            self._by_name.setdefault(name.lower(), set()).add(endpoint)
        for address in known.addresses:
            self._by_address[address] = endpoint

    def clear(self) -> None:
        for endpoint in list(self._endpoints):
            self.forget(endpoint)

    def forget(self, endpoint: str) -> None:
        known = self._endpoints.pop(endpoint, None)
        if known is None:
            return
        for name in {name.lower() for name in known.names}:
            holders = self._by_name.get(name, set())
            holders.discard(endpoint)
            if not holders:
                self._by_name.pop(name, None)
        for address in known.addresses:
            if self._by_address.get(address) == endpoint:
                del self._by_address[address]
        if self._by_owner.get(known.owner) == endpoint:
            del self._by_owner[known.owner]

    def owner_of(self, address: str) -> str:
        """The instance that has an address, "" for none."""
        endpoint = self._by_address.get(address)
        return self._endpoints[endpoint].owner if endpoint else ""

    def upstreams_of(self, owner: str) -> Sequence[str] | None:
        """The nameservers that an instance has asked for; None for the host's."""
        endpoint = self._by_owner.get(owner)
        return self._endpoints[endpoint].upstreams if endpoint else None

    def has(self, owner: str) -> bool:
        """Whether an instance is on this network."""
        return owner in self._by_owner

    def answer(self, query: Query, owner: str = "") -> bytes | None:
        """The reply to an instance, if the question is about this network; None: ask elsewhere."""
        number, question = query
        if not self._answers or question.qclass != _IN:
            return None
        name = str(question.qname).rstrip(".").lower()
        if question.qtype == _PTR and name.endswith((_REVERSE4, _REVERSE6)):
            return self._reverse(number, question, name)
        endpoints = self._find(name, owner) or self._find(name.removesuffix(self._suffix), owner)
        if not endpoints:
            return None
        addresses = [address for endpoint in endpoints for address in self._endpoints[endpoint].addresses]
        random.shuffle(addresses)
        return _reply(number, question, [_address_record(question, address) for address in addresses])

    def _find(self, name: str, owner: str) -> set[str]:
        """The endpoints a name stands for when that instance uses it."""
        own = self._by_owner.get(owner)
        linked = self._endpoints[own].links.get(name) if own else None
        return self._by_name.get(linked.lower() if linked else name, set())

    def _reverse(self, number: int, question: DNSQuestion, name: str) -> bytes | None:
        address = _address_of(name)
        if address is None or not any(address in subnet for subnet in self._subnets):
            return None
        endpoint = self._by_address.get(str(address))
        if endpoint is None:
            return failure(number, question, RCODE.NXDOMAIN)
        target = f"{self._endpoints[endpoint].names[0].lower()}{self._suffix}."
        return _reply(number, question, [RR(question.qname, QTYPE.PTR, ttl=TTL_S, rdata=PTR(target))])


def failure(number: int, question: DNSQuestion, code: int) -> bytes:
    """A reply without an answer; ``code`` as of RFC 1035, 4.1.1."""
    header = DNSHeader(id=number, qr=1, ra=1, rd=1, rcode=code)
    return bytes(DNSRecord(header, q=question).pack())


def _reply(number: int, question: DNSQuestion, records: Sequence[RR | None]) -> bytes:
    """A reply that nobody doubts: an empty one says that the name exists, but has no such record."""
    found = [record for record in records if record is not None][:_ADDRESSES_AT_MOST]
    header = DNSHeader(id=number, qr=1, aa=1, ra=1, rd=1)
    return bytes(DNSRecord(header, q=question, rr=found).pack())


def _address_record(question: DNSQuestion, address: str) -> RR | None:
    if ":" in address:
        wanted, kind, data = _AAAA, QTYPE.AAAA, AAAA
    else:
        wanted, kind, data = _A, QTYPE.A, A
    if question.qtype not in (wanted, _ANY):
        return None
    return RR(question.qname, kind, ttl=TTL_S, rdata=data(address))


def _address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a reverse name stands for."""
    try:
        if name.endswith(_REVERSE4):
            return ipaddress.IPv4Address(".".join(reversed(name.removesuffix(_REVERSE4).split("."))))
        nibbles = "".join(reversed(name.removesuffix(_REVERSE6).split(".")))
        return ipaddress.IPv6Address(bytes.fromhex(nibbles))
    except ValueError:
        return None
