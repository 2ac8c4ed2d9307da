"""Bridges on the host."""

from __future__ import annotations

import errno
import hashlib
import re

from enisle.errors import Conflict, Internal, Invalid
from enisle.linux.netlink import NetlinkError
from enisle.linux.route import Route
from enisle.model.network import Network
from enisle.network import host

IFNAMSIZ = 15  # without the terminating NUL
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")


def check_name(name: str) -> str:
    """The name of an interface, if it is one that may also stand in a rule."""
    if not _NAME.fullmatch(name):
        raise Invalid(f"invalid bridge name {name!r}: up to {IFNAMSIZ} of [a-zA-Z0-9_.-]")
    return name


def default_bridge(engine: str) -> str:
    """The default network's bridge of the engine of that name."""
    if len(engine) < IFNAMSIZ:
        return f"{engine}0"
    return f"{engine[:8]}{hashlib.sha256(engine.encode()).hexdigest()[:6]}0"


def port_prefix(engine: str) -> str:
    """What the names of an engine's host interfaces begin with; six hexadecimal digits follow."""
    return f"{engine[:8]}-"


def bridge_of(engine: str, network_id: str) -> str:
    """The bridge of a network that has no name of its own for it."""
    return f"{engine[:8]}.{network_id[:6]}"


def gateway_cidrs(network: Network) -> list[str]:
    """The addresses its bridge has."""
    return [f"{pool.gateway}/{pool.subnet.rpartition('/')[2]}" for pool in network.pools if pool.gateway]


def make(route: Route, network: Network) -> None:
    """Make a network's bridge what it should be, whether it is there already or not.

    Conflict: an interface of that name is there and is no bridge.
    """
    name = network.bridge
    try:
        if not route.exists(name):
            route.create_bridge(
                name, mac=f"02:42:{network.id[:2]}:{network.id[2:4]}:{network.id[4:6]}:{network.id[6:8]}"
            )
        elif (kind := route.link(name).kind) != "bridge":
            raise Conflict(f"network {network.name}: interface {name} exists and is no bridge but {kind or 'hardware'}")
        host.set_up_bridge(name, ipv6=any(":" in pool.subnet for pool in network.pools))
        if route.link(name).mtu != network.mtu:
            route.set_mtu(name, network.mtu)
        wanted = gateway_cidrs(network)
        for address in route.addresses(name):
            if address.cidr not in wanted and not address.cidr.startswith("fe80:"):
                route.delete_address(name, address.cidr)
        for cidr in wanted:
            route.add_address(name, cidr)
        route.link_up(name)
    except NetlinkError as error:
        raise Internal(f"network {network.name}: bridge {name} could not be set up: {error.strerror}") from error


def remove(route: Route, name: str) -> None:
    """Remove a bridge; one that is gone is no error."""
    try:
        route.delete_link(name)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise Internal(f"bridge {name} could not be removed: {error.strerror}") from error
