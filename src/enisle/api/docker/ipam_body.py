"""The addresses a network is to have: Docker's IPAM, checked with all that is wrong with it told at once."""

from __future__ import annotations

import ipaddress

from enisle.api.docker.request_types import Ipam, IpamPool
from enisle.errors import Invalid
from enisle.model.network import AddressPool

_Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


def pools(ipam: Ipam, *, ipv6: bool) -> tuple[AddressPool, ...]:
    """The pools. Those of IPv6 are left out where it is not enabled, as dockerd does. Invalid names every mistake."""
    found, problems = [], list[str]()
    for wanted in ipam.config:
        if not wanted.subnet:
            if wanted.gateway or wanted.ip_range:
                raise Invalid("invalid IPAM configuration: a gateway or range needs a subnet")
            continue
        subnet = _network(wanted.subnet)
        if subnet is None:
            problems.append(f"invalid subnet {wanted.subnet[:60]}: invalid CIDR block notation")
        elif subnet.version == 4 or ipv6:
            problems += _problems(wanted, subnet)
            found.append(_pool(wanted, subnet))
    if problems:
        raise Invalid("\n".join(["invalid network config:", *problems]))
    return tuple(found)


def _pool(wanted: IpamPool, subnet: _Subnet) -> AddressPool:
    return AddressPool(
        subnet=str(subnet),
        gateway=wanted.gateway.partition("/")[0],
        ip_range=wanted.ip_range,
        reserved={name: address or "" for name, address in _reserved(wanted).items()},
    )


def _reserved(wanted: IpamPool) -> dict[str, str | None]:
    return {**wanted.auxiliary_addresses, **wanted.aux_address}


def _problems(wanted: IpamPool, subnet: _Subnet) -> list[str]:
    found = []
    if ipaddress.ip_interface(wanted.subnet).ip != subnet.network_address:
        found.append(f"invalid subnet {wanted.subnet}: it should be {subnet}")
    if wanted.ip_range:
        found += _range_problems(wanted.ip_range, subnet)
    if wanted.gateway and (problem := _address_problem(wanted.gateway, subnet)):
        found.append(f"invalid gateway {wanted.gateway[:60]}: {problem}")
    for name, address in _reserved(wanted).items():
        if problem := _address_problem(address or "", subnet):
            found.append(f"invalid auxiliary address {name[:60]}: {problem}")
    return found


def _range_problems(text: str, subnet: _Subnet) -> list[str]:
    start = f"invalid ip-range {text[:60]}:"
    given = _network(text)
    if given is None:
        return [f"{start} invalid CIDR block notation"]
    if given.version != subnet.version:
        return [f"{start} parent subnet is an IPv{subnet.version} block"]
    found = []
    if given.prefixlen < subnet.prefixlen:
        found.append(f"{start} CIDR block is bigger than its parent subnet {subnet}")
    if ipaddress.ip_interface(text).ip != given.network_address:
        found.append(f"{start} it should be {given}")
    if given.network_address not in subnet:
        found.append(f"{start} parent subnet {subnet} doesn't contain ip-range")
    return found


def _address_problem(text: str, subnet: _Subnet) -> str:
    try:
        address = ipaddress.ip_address(text.partition("/")[0])
    except ValueError:
        return "invalid address"
    if address.version != subnet.version:
        return f"parent subnet is an IPv{subnet.version} block"
    return "" if address in subnet else f"parent subnet {subnet} doesn't contain this address"


def _network(text: str) -> _Subnet | None:
    """The subnet that a CIDR is of, whatever its host bits."""
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None
