"""An instance's place on one network, put together from what it was given; what it publishes, as forwards. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from enisle.errors import EnisleError, Exhausted, Invalid
from enisle.linux.route import pack_mac
from enisle.model.instance import BoundPort, Endpoint, EndpointRequest, publisher
from enisle.model.network import Network
from enisle.network.addresses import Subnet, mac_of
from enisle.network.names import addresses_of
from enisle.network.options import ENDPOINT_IFNAME, bridge_options, link_name
from enisle.network.parents import is_on_parent, parent_options
from enisle.network.records import Holding
from enisle.network.resolv_conf import is_loopback
from enisle.network.ruleset import Forward


def take_addresses(
    network: Network, subnets: Sequence[Subnet], endpoint_id: str, request: EndpointRequest
) -> tuple[str, str]:
    """Addresses of both families, or none of either; errors as of ``Subnet.take``."""
    if request.mac_address:
        _check_mac(request.mac_address)
        if network.driver == "ipvlan":
            raise Invalid("ipvlan interfaces do not support custom mac address assignment")
    if network.builtin and (request.ipv4_address or request.ipv6_address):
        raise Invalid("user specified IP address is supported on user defined networks only")
    taken = {4: "", 6: ""}
    try:
        for version, wanted in ((4, request.ipv4_address), (6, request.ipv6_address)):
            taken[version] = _take_one([each for each in subnets if each.version == version], endpoint_id, wanted)
    except EnisleError as error:
        for subnet in subnets:
            if taken[subnet.version]:
                subnet.release(endpoint_id, taken[subnet.version])
        if isinstance(error, Exhausted):
            raise Exhausted(f"{error.message}: {network.name} ({network.id})") from error
        raise
    return taken[4], taken[6]


def _take_one(subnets: Sequence[Subnet], endpoint_id: str, wanted: str) -> str:
    """An address of the first subnet that has (or holds) one; "" where there is no subnet of that family."""
    if wanted:
        subnets = [subnet for subnet in subnets if wanted in subnet]
        if not subnets:
            raise Invalid(f"no configured subnet or ip-range contain the IP address {wanted}")
    for position, subnet in enumerate(subnets):
        try:
            return subnet.take(endpoint_id, wanted)
        except Exhausted:
            if position == len(subnets) - 1:
                raise
    return ""


def put_together(
    network: Network,
    request: EndpointRequest,
    *,
    endpoint_id: str,
    index: int,
    host_ifname: str,
    ipv4: str,
    ipv6: str,
    names: Sequence[str],
    dns: Sequence[str],
) -> Endpoint:
    """The endpoint of what was given out for it. Invalid for options that make no sense."""
    options = bridge_options(network)
    given_name = link_name(request.driver_options.get(ENDPOINT_IFNAME, ""), "interface name")
    on_parent = parent_options(network) if is_on_parent(network) else None
    routed = on_parent is not None and on_parent.is_routed
    return Endpoint(
        network=network.name,
        network_id=network.id,
        endpoint_id=endpoint_id,
        name=given_name or f"{options.iface_prefix}{index}",
        host_ifname=host_ifname,
        bridge=network.bridge,
        parent=on_parent.parent if on_parent else "",
        mode=on_parent.mode if on_parent else "",
        mac=request.mac_address or _mac(network, ipv4),
        ipv4=ipv4,
        ipv6=ipv6,
        gateway4="" if routed else _gateway(network, 4),
        gateway6="" if routed else _gateway(network, 6),
        on_link=routed and not network.internal,
        mtu=network.mtu,
        isolated=bool(network.bridge) and not options.icc,
        aliases=tuple(request.aliases),
        dns_names=tuple(dict.fromkeys(names)),
        dns=tuple(each for each in dns if not is_loopback(each)),
        request=request,
    )


def _mac(network: Network, ipv4: str) -> str:
    """ "" where it is that of the parent."""
    if network.driver == "ipvlan":
        return ""
    return mac_of(ipv4) if ipv4 and not is_on_parent(network) else random_mac()


def _gateway(network: Network, version: int) -> str:
    """Where its default route goes by; "" for a network without a way out."""
    if network.internal:
        return ""
    return next((pool.gateway for pool in network.pools if (":" in pool.subnet) == (version == 6)), "")


def forwards_of(endpoint: Endpoint, bound: Sequence[BoundPort]) -> tuple[Forward, ...]:
    """What sends the ports on to the endpoint; none for a host address of a family it does not have (relayed)."""
    targets = {":" in address: address for address in addresses_of(endpoint)}
    return tuple(
        Forward(
            protocol=port.protocol,
            host_ip=port.host_ip,
            host_port=port.host_port,
            target_ip=targets[":" in port.host_ip],
            target_port=port.container_port,
        )
        for port in bound
        if (":" in port.host_ip) in targets
    )


def stored_forwards(held: Holding) -> tuple[Forward, ...]:
    """What a stored instance has published; republish and unpublish make it right where this guess was wrong."""
    endpoint = publisher(held.endpoints)
    return forwards_of(endpoint, held.bound_ports) if endpoint else ()


def random_mac() -> str:
    """A locally administered MAC. Not from the address, where that may be another machine's on the same segment."""
    return "02:42:" + secrets.token_bytes(4).hex(":")


def _check_mac(mac: str) -> None:
    try:
        valid = not pack_mac(mac)[0] & 1
    except ValueError:
        valid = False
    if not valid:
        raise Invalid(f"invalid MAC address: {mac}")
