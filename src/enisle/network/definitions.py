"""Networks as they are asked for, checked and completed. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from enisle.errors import Conflict, Denied, Invalid, NotFound, NotSupported
from enisle.model.ids import NetworkId, check_network_name, new_id
from enisle.model.network import AddressPool, Network
from enisle.network import devices, parents
from enisle.network.addresses import IPNetwork, Subnet, parse_address, parse_subnet
from enisle.network.options import bridge_options
from enisle.network.subnets import Candidates, choose_ipv4, choose_ipv6, overlapping

DRIVERS = frozenset({"bridge"}) | parents.DRIVERS
"""Those that networks of a user's own can have."""

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
    if network.driver not in DRIVERS:
        raise NotFound(f"could not find plugin {network.driver} in v1 plugin registry: plugin not found")
    if network.ipam_driver not in ("", "default"):
        raise NotFound(f"could not find plugin {network.ipam_driver} in v1 plugin registry: plugin not found")
    if network.ingress:
        raise NotSupported(f"network {network.name}: the ingress network is Swarm's, which Enisle does not have")
    others = list(others)
    if any(other.name == network.name for other in others):
        raise Conflict(f"network with name {network.name} already exists")
    if not network.config_only:
        _check_place(network, others)
    for pool in network.pools:
        _complete_pool(pool)


def _check_place(network: Network, others: Sequence[Network]) -> None:
    """Whether what it would be on the host is nobody's yet."""
    if parents.is_on_parent(network):
        parents.check(network, others)
        return
    bridge = bridge_options(network).bridge
    for other in others:
        if bridge and other.bridge == bridge:
            raise Conflict(f"network {network.name}: bridge {bridge} is that of network {other.name}")


def from_config(network: Network, config: Network) -> Network:
    """A network with what a configuration-only one says. Denied for one that says the same things itself."""
    if not config.config_only:
        raise Denied(f"{config.name} is not a configuration only network")
    for what, given in (
        ("ipam", bool(network.pools) or bool(network.ipam_options)),
        ("driver options", bool(network.options)),
        ("labels", bool(network.labels)),
        ("internal", network.internal and not config.internal),
    ):
        if given:
            raise Invalid(
                f"user-specified configurations ({what}) are not supported if the network depends on a configuration "
                "network"
            )
    return replace(
        network,
        config_from=config.name,
        pools=config.pools,
        ipam_driver=config.ipam_driver,
        ipam_options=config.ipam_options,
        options=config.options,
        labels=config.labels,
        ipv6=config.ipv6,
        internal=config.internal,
    )


def clash(network: Network, used: Sequence[IPNetwork]) -> IPNetwork | None:
    """The subnet in use that one of the network's own overlaps."""
    return next((found for pool in network.pools if (found := overlapping(parse_subnet(pool.subnet), used))), None)


def complete(
    network: Network, used: Sequence[IPNetwork], *, choice: Candidates | None = None, wanted: str = "", mtu: int = 0
) -> Network:
    """The network with a subnet of each family it has, and a gateway in each.

    ``wanted``: the IPv4 subnet to take if none was named, whoever uses it. ``choice``: those to choose from else.
    ``mtu``: where it is not the default.
    """
    choice = choice or Candidates()
    pools = list(network.pools)
    if not any(":" not in pool.subnet for pool in pools):
        pools.insert(0, AddressPool(subnet=wanted or choose_ipv4(used, choice)))
    if network.ipv6 and not any(":" in pool.subnet for pool in pools):
        pools.append(AddressPool(subnet=choose_ipv6(network.id, used, choice)))
    return replace(network, pools=tuple(_complete_pool(pool) for pool in pools), mtu=mtu or network.mtu)


def _complete_pool(pool: AddressPool) -> AddressPool:
    subnet = Subnet(pool)
    if not pool.gateway:
        return replace(pool, gateway=subnet.first())
    return replace(pool, gateway=str(parse_address(pool.gateway, "gateway address")))
