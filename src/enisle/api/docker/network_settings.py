"""An instance's networks as Docker shows them."""

from __future__ import annotations

from typing import Any

from enisle.api.docker.port_body import bound_json
from enisle.model.instance import Endpoint, EndpointRequest, Instance, InstanceSpec

SPECIAL_MODES = ("none", "host")


def network_mode(spec: InstanceSpec) -> str:
    """HostConfig.NetworkMode: since API 1.44 "bridge" stands for "default"."""
    return "bridge" if spec.network_mode == "default" else spec.network_mode


def endpoints_json(instance: Instance) -> dict[str, Any]:
    """NetworkSettings.Networks: where it is connected, or, when it does not run, where it will be."""
    networks = {endpoint.network: _endpoint_json(endpoint) for endpoint in instance.endpoints}
    mode = network_mode(instance.spec)
    for request in instance.spec.endpoints:
        name = mode if request.network == "default" else request.network
        if name not in networks:
            networks[name] = _requested_json(request)
    if not networks and mode in SPECIAL_MODES:
        networks[mode] = _requested_json(EndpointRequest(network=mode))
    return networks


def settings_json(instance: Instance) -> dict[str, Any]:
    """NetworkSettings of inspect; the old members repeat the default network's."""
    networks = endpoints_json(instance)
    first: dict[str, Any] = networks.get("bridge") or {}
    alive = bool(instance.endpoints)
    exposed = instance.spec.exposed_ports if alive else ()
    return {
        "Bridge": "",
        "SandboxID": instance.id if instance.state.pid else "",
        "SandboxKey": f"/proc/{instance.state.pid}/ns/net" if instance.state.pid else "",
        "Ports": bound_json(instance.bound_ports, exposed),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.get("EndpointID", ""),
        "Gateway": first.get("Gateway", ""),
        "GlobalIPv6Address": first.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": first.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": first.get("IPAddress", ""),
        "IPPrefixLen": first.get("IPPrefixLen", 0),
        "IPv6Gateway": first.get("IPv6Gateway", ""),
        "MacAddress": first.get("MacAddress", ""),
        "Networks": networks,
    }


def _endpoint_json(endpoint: Endpoint) -> dict[str, Any]:
    ipv4, _, prefix4 = endpoint.ipv4.partition("/")
    ipv6, _, prefix6 = endpoint.ipv6.partition("/")
    request = endpoint.request
    return {
        "IPAMConfig": _ipam_json(request),
        "Links": list(request.links) if request and request.links else None,
        "Aliases": list(endpoint.aliases) or None,
        "MacAddress": endpoint.mac,
        "DriverOpts": (request.driver_options or None) if request else None,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway4,
        "IPAddress": ipv4,
        "IPPrefixLen": int(prefix4 or 0),
        "IPv6Gateway": endpoint.gateway6,
        "GlobalIPv6Address": ipv6,
        "GlobalIPv6PrefixLen": int(prefix6 or 0),
        "DNSNames": list(endpoint.dns_names) or None,
    }


def _requested_json(request: EndpointRequest) -> dict[str, Any]:
    """An endpoint that has no addresses, because the instance does not run or the network has none."""
    return {
        "IPAMConfig": _ipam_json(request),
        "Links": list(request.links) or None,
        "Aliases": list(request.aliases) or None,
        "MacAddress": request.mac_address,
        "DriverOpts": request.driver_options or None,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def _ipam_json(request: EndpointRequest | None) -> dict[str, Any] | None:
    if request is None or not (request.ipv4_address or request.ipv6_address or request.link_local_ips):
        return None
    return {
        "IPv4Address": request.ipv4_address,
        "IPv6Address": request.ipv6_address,
        "LinkLocalIPs": list(request.link_local_ips),
    }
