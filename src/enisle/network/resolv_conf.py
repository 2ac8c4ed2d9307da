"""resolv.conf(5): reading the host's, writing an instance's. Pure text."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_NAMESERVERS = 3  # MAXNS of glibc; musl has the same limit


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvConf:
    """What a resolv.conf says. ``search`` of the last search or domain line, as resolv.conf(5) has it."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse(text: str) -> ResolvConf:
    """Read a resolv.conf; lines that make no sense are passed over, as the C library does."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _is_address(words[1]):
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return ResolvConf(nameservers=tuple(nameservers), search=search, options=tuple(options))


def render(nameservers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    """A resolv.conf. A search list of just "." means none, as with docker run --dns-search."""
    lines = [f"nameserver {address}" for address in nameservers]
    if search and tuple(search) != (".",):
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)


def outside(host: ResolvConf) -> tuple[str, ...]:
    """The host's nameservers that can be reached from elsewhere: not those on its loopback or of one link only."""
    return tuple(address for address in host.nameservers if _is_reachable(address))


def is_loopback(text: str) -> bool:
    """Whether a nameserver is meant to be the asking instance itself."""
    return _is_address(text) and ipaddress.ip_address(text).is_loopback


def is_within(text: str, subnets: Iterable[str]) -> bool:
    """Whether a nameserver is in one of these subnets; addresses with their prefix length will do for them."""
    address = ipaddress.ip_address(text) if _is_address(text) else None
    return address is not None and any(address in ipaddress.ip_network(each, strict=False) for each in subnets)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_reachable(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)
