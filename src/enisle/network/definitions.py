"""Networks as they are asked for, checked and completed. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from enisle.errors import Conflict, Denied, Invalid, NotFound, NotSupported
from enisle.model.ids import NetworkId, check_network_name, new_id
from enisle.model.network import AddressPool, Network
from enisle.network import devices
from enisle.network.addresses import IPNetwork, Subnet, parse_address, parse_subnet
from enisle.network.subnets import choose_ipv4, choose_ipv6, overlapping

BRIDGE_NAME = "com.docker.network.bridge.name"
MTU = "com.docker.network.driver.mtu"
_BUILTIN_DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}


def builtins(engine: str, stored: Mapping[str, Network]) -> list[Network]:
    """The networks every engine has: as they were stored, or new."""
    return [
        stored.get(name)
        or Network(
            id=NetworkId(new_id()),
            name=name,
            driver=driver,
            created_at=time.time_ns(),
            bridge=devices.default_bridge(engine) if name == "bridge" else "",
            builtin=True,
        )
        for name, driver in _BUILTIN_DRIVERS.items()
    ]


def check(network: Network, others: Iterable[Network]) -> None:
    """Raises unless the network could be made beside the others."""
    check_network_name(network.name)
    if network.driver in ("host", "null"):
        raise Denied(f'only one instance of "{network.driver}" network is allowed')
    if network.driver != "bridge":
        raise NotFound(f"could not find plugin {network.driver} in v1 plugin registry: plugin not found")
    if network.ipam_driver not in ("", "default"):
        raise NotFound(f"could not find plugin {network.ipam_driver} in v1 plugin registry: plugin not found")
    if network.ingress:
        raise NotSupported(f"network {network.name}: the ingress network is Swarm's, which Enisle does not have")
    bridge = bridge_option(network)
    for other in others:
        if other.name == network.name:
            raise Conflict(f"network with name {network.name} already exists")
        if bridge and other.bridge == bridge:
            raise Conflict(f"network {network.name}: bridge {bridge} is that of network {other.name}")
    for pool in network.pools:
        _complete_pool(pool)
    if any(":" in pool.subnet for pool in network.pools) and not network.ipv6:
        raise Invalid(f"network {network.name}: an IPv6 subnet needs IPv6 enabled", remedy="Add --ipv6.")


def bridge_option(network: Network) -> str:
    """The bridge name the user chose, or ""."""
    name = network.options.get(BRIDGE_NAME, "")
    return devices.check_name(name) if name else ""


def mtu_option(network: Network) -> int:
    """The MTU the user chose, bytes, or 0."""
    text = network.options.get(MTU, "")
    if not text:
        return 0
    if not text.isdecimal() or not 68 <= int(text) <= 65535:
        raise Invalid(f"network {network.name}: invalid MTU {text!r}: 68 to 65535 bytes")
    return int(text)


def clash(network: Network, used: Sequence[IPNetwork]) -> IPNetwork | None:
    """The subnet in use that one of the network's own overlaps."""
    return next((found for pool in network.pools if (found := overlapping(parse_subnet(pool.subnet), used))), None)


def complete(network: Network, used: Sequence[IPNetwork], *, wanted: str = "", mtu: int = 0) -> Network:
    """The network with a subnet of each family it has, and a gateway in each.

    ``wanted``: the IPv4 subnet to take if none was named, whoever uses it. ``mtu``: where it is not the default.
    """
    pools = list(network.pools)
    if not any(":" not in pool.subnet for pool in pools):
        pools.insert(0, AddressPool(subnet=wanted or choose_ipv4(used)))
    if network.ipv6 and not any(":" in pool.subnet for pool in pools):
        pools.append(AddressPool(subnet=choose_ipv6(network.id, used)))
    return replace(network, pools=tuple(_complete_pool(pool) for pool in pools), mtu=mtu or network.mtu)


def _complete_pool(pool: AddressPool) -> AddressPool:
    subnet = Subnet(pool)
    if not pool.gateway:
        return replace(pool, gateway=subnet.first())
    return replace(pool, gateway=str(parse_address(pool.gateway, "gateway address")))
