"""Bridges on the host."""

from __future__ import annotations

import errno
import hashlib

from enisle.errors import Conflict, Internal
from enisle.linux.netlink import NetlinkError
from enisle.linux.route import Route
from enisle.model.network import Network
from enisle.network import host
from enisle.network.options import GatewayMode, bridge_options
from enisle.network.senders import bridge_mac

IFNAMSIZ = 15  # without the terminating NUL


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
    options = bridge_options(network)
    found = []
    for pool in network.pools:
        version = 6 if ":" in pool.subnet else 4
        inhibited = options.gateway_mode(version) is GatewayMode.ISOLATED or (version == 4 and options.inhibit_ipv4)
        if pool.gateway and not inhibited:
            found.append(f"{pool.gateway}/{pool.subnet.rpartition('/')[2]}")
    return found


def make(route: Route, network: Network) -> None:
    """Make a network's bridge what it should be, whether it is there already or not.

    Conflict: an interface of that name is there and is no bridge.
    """
    name = network.bridge
    try:
        if not route.exists(name):
            route.create_bridge(name, mac=bridge_mac(network.id))
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
