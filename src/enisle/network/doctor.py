"""What this host can and cannot do for networks."""

from __future__ import annotations

import re

from enisle.contracts import HostCapability
from enisle.linux.nftables import Nftables, NftablesError
from enisle.linux.route import Route
from enisle.network import host

_BASE_CHAIN = re.compile(r"hook (?P<hook>\w+) priority [^;]+; policy (?P<policy>\w+);")


def capabilities(table: str) -> list[HostCapability]:
    """Lines for ``enisle doctor``; ``table`` is our own. Changes nothing."""
    lines = [_forwarding(), _uplink()]
    try:
        with Nftables() as nft:
            chains = nft.run("list chains")
    except NftablesError as error:
        remedy = "Install the package libnftables1; the kernel needs CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET."
        return [HostCapability(name="nftables", ok=False, detail=str(error), remedy=remedy), *lines]
    lines.insert(0, HostCapability(name="nftables", ok=True, detail="bridge networks and published ports"))
    droppers = foreign_droppers(chains, table)
    if droppers:
        remedy = (
            "Accept there what comes from and goes to Enisle's bridges: a packet has to pass every table's chains. "
            f'For one: nft add rule {droppers[0]} iifname "{table}*" accept, and the same with oifname.'
        )
        detail = f"packets that are forwarded are dropped by default in: {', '.join(droppers)}"
        lines.append(HostCapability(name="forwarding firewall", ok=False, detail=detail, remedy=remedy))
    return lines


def foreign_droppers(chains: str, table: str) -> list[str]:
    """The chains ("family table chain") with policy drop for forwarded packets, in nft's listing; ours left out."""
    found = []
    place, chain = "", ""
    for line in chains.splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            place = " ".join(words[1:3])
        elif words[:1] == ["chain"]:
            chain = words[1]
        match = _BASE_CHAIN.search(line)
        if match and match["hook"] == "forward" and match["policy"] == "drop" and place.split()[-1] != table:
            found.append(f"{place} {chain}")
    return found


def _forwarding() -> HostCapability:
    on = host.read_sysctl("ipv4/ip_forward") == "1"
    detail = "this host forwards IPv4 packets" if on else "this host does not forward IPv4 packets; enisled turns it on"
    return HostCapability(name="IP forwarding", ok=True, detail=detail)


def _uplink() -> HostCapability:
    with Route() as route:
        found = any(entry.destination == "0.0.0.0/0" for entry in route.routes())
    detail = "there is a default route" if found else "there is no default route: instances reach this host only"
    remedy = "" if found else "Connect the host to a network."
    return HostCapability(name="uplink", ok=found, detail=detail, remedy=remedy)
