"""Docker's tag Network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker import older
from enisle.api.docker.create_body import endpoint_request
from enisle.api.docker.create_checks import check_endpoint
from enisle.api.docker.ipam_body import pools as _pools
from enisle.api.docker.list_filters import until
from enisle.api.docker.request_types import NetworkConnectBody, NetworkCreateBody, NetworkDisconnectBody
from enisle.api.query import Filters, flag_filter, labels_match
from enisle.api.reply import empty, json_response
from enisle.api.router import Route
from enisle.api.times import rfc3339
from enisle.errors import Denied, Invalid, Unavailable
from enisle.model.ids import NetworkId, check_network_name
from enisle.model.instance import Endpoint, Instance
from enisle.model.network import AddressPool, Network

_LIST_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
_PRUNE_FILTERS = frozenset({"label", "label!", "until"})


def network_json(network: Network, members: list[tuple[Instance, Endpoint]]) -> dict[str, Any]:
    """Inspect; the list shows no members."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_at),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": network.ipam_driver,
            "Options": network.ipam_options or None,
            "Config": [_pool_json(pool) for pool in network.pools],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": network.ingress,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": {instance.id: _member_json(instance, endpoint) for instance, endpoint in members},
        "Options": network.options,
        "Labels": network.labels,
    }


def _pool_json(pool: AddressPool) -> dict[str, Any]:
    result: dict[str, Any] = {"Subnet": pool.subnet}
    if pool.ip_range:
        result["IPRange"] = pool.ip_range
    if pool.gateway:
        result["Gateway"] = pool.gateway
    if pool.reserved:
        result["AuxiliaryAddresses"] = pool.reserved
    return result


def _member_json(instance: Instance, endpoint: Endpoint) -> dict[str, str]:
    return {
        "Name": instance.name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac,
        "IPv4Address": endpoint.ipv4,
        "IPv6Address": endpoint.ipv6,
    }


async def list_all(call: Call) -> web.StreamResponse:
    filters = call.query.filters(_LIST_FILTERS)
    dangling = flag_filter(filters, "dangling")
    match = _matcher(filters)
    with_members = older.lists_members(call.version)
    networks = [
        network_json(network, call.engine.networks.members(network.id) if with_members else [])
        for network in await call.engine.networks.all()
        if match(network)
        and (dangling is None or dangling is (not network.builtin and not call.engine.networks.members(network.id)))
    ]
    return json_response(networks)


def _matcher(filters: Filters) -> Callable[[Network], bool]:
    for value in filters.get("type", []):
        if value not in ("builtin", "custom"):
            raise Invalid(f"invalid filter: 'type'='{value[:40]}'")
    names, ids = filters.get("name", []), filters.get("id", [])
    drivers, scopes, kinds = filters.get("driver", []), filters.get("scope", []), filters.get("type", [])

    def match(network: Network) -> bool:
        return (
            (not names or any(name in network.name for name in names))
            and (not ids or any(network.id.startswith(value) for value in ids))
            and (not drivers or network.driver in drivers)
            and (not scopes or "local" in scopes)
            and (not kinds or ("builtin" if network.builtin else "custom") in kinds)
            and labels_match(filters.get("label", []), network.labels)
        )

    return match


async def inspect(call: Call) -> web.StreamResponse:
    if call.query.text("scope", "local") != "local":
        raise Invalid("only networks of scope local are offered")
    network = await call.engine.networks.get(call.name)
    return json_response(network_json(network, call.engine.networks.members(network.id)))


async def create(call: Call) -> web.StreamResponse:
    body = await call.body(NetworkCreateBody)
    wanted = _network(body)
    network = await call.engine.networks.create(wanted)
    ignored = any(":" in each.subnet for each in body.ipam.config) and not wanted.ipv6
    warning = f"network {network.name} has no IPv6 (no --ipv6): its IPv6 subnets are left out" if ignored else ""
    return json_response({"Id": network.id, "Warning": warning}, status=201)


def _network(body: NetworkCreateBody) -> Network:
    """The network that is asked for. Raises Invalid."""
    check_network_name(body.name)
    config_from = body.config_from.get("Network", "")
    if config_from and body.config_only:
        raise Denied("configuration only network cannot depend on another configuration only network")
    if body.ingress or body.scope not in ("", "local"):
        raise Unavailable("This node is not a swarm manager: Enisle has networks of scope local only, and no ingress.")
    if body.enable_ipv4 is False:
        raise Invalid(f"cannot create network {body.name}: networks without IPv4 are not offered")
    if body.ipam.driver not in ("", "default"):
        raise Invalid(f'invalid ipam driver: "{body.ipam.driver[:60]}"')
    options = {key: value or "" for key, value in body.options.items()}
    return Network(
        id=NetworkId(""),
        name=body.name,
        driver=body.driver or "bridge",
        pools=_pools(body.ipam, ipv6=body.enable_ipv6),
        ipv6=body.enable_ipv6,
        internal=body.internal,
        attachable=body.attachable,
        options=options,
        ipam_options={key: value or "" for key, value in body.ipam.options.items()},
        labels={key: value or "" for key, value in body.labels.items()},
        config_only=body.config_only,
        config_from=config_from,
    )


async def connect(call: Call) -> web.StreamResponse:
    body = await call.body(NetworkConnectBody)
    if not body.container:
        raise Invalid("bad parameter: missing Container")
    check_endpoint(body.endpoint_config)
    request = endpoint_request(call.name, body.endpoint_config)
    await call.engine.networks.connect(call.name, body.container, request)
    return empty(200)


async def disconnect(call: Call) -> web.StreamResponse:
    body = await call.body(NetworkDisconnectBody)
    if not body.container:
        raise Invalid("bad parameter: missing Container")
    await call.engine.networks.disconnect(call.name, body.container, force=body.force)
    return empty(200)


async def remove(call: Call) -> web.StreamResponse:
    await call.engine.networks.remove(call.name)
    return empty()


async def prune(call: Call) -> web.StreamResponse:
    filters = call.query.filters(_PRUNE_FILTERS)
    until_ns = until(filters)
    wanted, unwanted = filters.get("label", []), filters.get("label!", [])

    def match(network: Network) -> bool:
        return (
            (not until_ns or network.created_at < until_ns)
            and labels_match(wanted, network.labels)
            and not (unwanted and labels_match(unwanted, network.labels))
        )

    return json_response({"NetworksDeleted": await call.engine.networks.prune(match)})


ROUTES = [
    Route("GET", "networks", list_all),
    Route("POST", "networks/create", create),
    Route("POST", "networks/prune", prune),
    Route("GET", "networks/*", inspect),
    Route("POST", "networks/*/connect", connect),
    Route("POST", "networks/*/disconnect", disconnect),
    Route("DELETE", "networks/*", remove),
]
