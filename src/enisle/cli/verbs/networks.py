"""Verbs on networks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from enisle.cli import values
from enisle.cli.command import Command, Context
from enisle.cli.each import each
from enisle.cli.flags import Options, UsageError, many, option, switch
from enisle.cli.listing import LIST_FLAGS, Listing, Row, filters, label_method, labels_text
from enisle.cli.table import Column
from enisle.errors import NotFound

if TYPE_CHECKING:
    from enisle.sdk.types import NetworkDetails

_LISTING = Listing(
    (
        ("ID", Column("NETWORK ID", drop=-1)),
        ("Name", Column("NAME", shrink=1)),
        ("Driver", Column("DRIVER")),
        ("Scope", Column("SCOPE", drop=1)),
        ("Subnet", Column("SUBNET", shrink=2)),
    )
)


def list_networks(context: Context, options: Options, arguments: list[str]) -> None:
    """List networks."""
    found = sorted(context.client.networks.list(filters=filters(options.filter)), key=lambda item: item["Name"])
    _LISTING.show(context, options, found, lambda item: _row(item, full=options.no_trunc))


def _row(item: NetworkDetails, *, full: bool) -> Row:
    pools = (item.get("IPAM") or {}).get("Config") or []
    return {
        "ID": item["Id"] if full else item["Id"][:12],
        "Name": item["Name"],
        "Driver": item.get("Driver", ""),
        "Scope": item.get("Scope", ""),
        "Subnet": ", ".join(pool.get("Subnet", "") for pool in pools),
        "IPv6": str(bool(item.get("EnableIPv6"))).lower(),
        "Internal": str(bool(item.get("Internal"))).lower(),
        "CreatedAt": item.get("Created", ""),
        "Labels": labels_text(item.get("Labels")),
        "Label": label_method(item.get("Labels")),
    }


def create(context: Context, options: Options, arguments: list[str]) -> None:
    """Make a network, and print its id."""
    body = {
        "Name": arguments[0],
        "Driver": options.driver,
        "Internal": options.internal,
        "Attachable": options.attachable,
        "Ingress": options.ingress,
        "EnableIPv6": options.ipv6,
        "ConfigOnly": options.config_only,
        "IPAM": {
            "Driver": options.ipam_driver,
            "Options": values.pairs(options.ipam_opt),
            "Config": _pools(options),
        },
        "Options": values.pairs(options.opt),
        "Labels": values.pairs(options.label),
    }
    if options.config_from:
        body["ConfigFrom"] = {"Network": options.config_from}
    if not options.ipv4:
        body["EnableIPv4"] = False
    if options.scope:
        body["Scope"] = options.scope
    print(context.client.networks.create(body)["Id"])


def _pools(options: Options) -> list[dict[str, Any]]:
    """One pool per subnet; gateways, ranges and reserved addresses go to the subnet that holds them."""
    try:
        subnets = {text: ip_network(text, strict=False) for text in options.subnet}
        pools: dict[str, dict[str, Any]] = {text: {"Subnet": text} for text in subnets}

        def holder(address: str) -> dict[str, Any]:
            inside = ip_address(address.partition("/")[0])
            for text, subnet in subnets.items():
                if inside in subnet:
                    return pools[text]
            raise UsageError(f"no matching subnet for {address}")

        for gateway in options.gateway:
            holder(gateway)["Gateway"] = gateway
        for part in options.ip_range:
            holder(part)["IPRange"] = part
        for name, address in values.pairs(options.aux_address).items():
            holder(address).setdefault("AuxiliaryAddresses", {})[name] = address
    except ValueError as error:
        raise UsageError(str(error)) from error
    return list(pools.values())


def connect(context: Context, options: Options, arguments: list[str]) -> None:
    """Put an instance on a network."""
    addresses = {"IPv4Address": options.ip, "IPv6Address": options.ip6, "LinkLocalIPs": options.link_local_ip}
    endpoint = {
        "IPAMConfig": {name: value for name, value in addresses.items() if value},
        "Aliases": options.alias,
        "Links": options.link,
        "DriverOpts": values.pairs(options.driver_opt),
    }
    context.client.networks.connect(
        arguments[0], arguments[1], endpoint={name: value for name, value in endpoint.items() if value}
    )


def disconnect(context: Context, options: Options, arguments: list[str]) -> None:
    """Take an instance off a network."""
    context.client.networks.disconnect(arguments[0], arguments[1], force=options.force)


def remove(context: Context, options: Options, names: list[str]) -> int:
    """Remove networks."""

    def one(name: str) -> None:
        try:
            context.client.networks.remove(name)
        except NotFound:
            if not options.force:
                raise

    return each(names, one)


LS = Command(
    summary="List networks",
    usage="[OPTIONS]",
    run=list_networks,
    flags=(
        many(
            "filter",
            "f",
            "NAME=VALUE",
            "Show those that match (driver=, id=, label=, name=, type=)",
            choices=("dangling=", "driver=", "id=", "label=", "name=", "scope=", "type=builtin", "type=custom"),
        ),
        *LIST_FLAGS,
    ),
    most=0,
)
CREATE = Command(
    summary="Make a network",
    usage="[OPTIONS] NAME",
    run=create,
    flags=(
        switch("attachable", "", "Instances may join it by hand"),
        many("aux-address", "", "NAME=ADDRESS", "Addresses that are not given out"),
        option(
            "config-from",
            "",
            "network",
            "Take over the settings of a network made with --config-only",
            completes="network",
        ),
        switch("config-only", "", "Settings for other networks, no network itself"),
        option("driver", "d", "string", "Driver", default="bridge", choices=("bridge", "macvlan")),
        many("gateway", "", "address", "Gateway of a subnet"),
        switch("ingress", "", "Make it the routing mesh's network"),
        switch("internal", "", "No way out of it"),
        many("ip-range", "", "CIDR", "Part of a subnet that addresses are given out from"),
        option("ipam-driver", "", "string", "Driver of address management", default="default"),
        many("ipam-opt", "", "KEY=VALUE", "Options of address management"),
        switch("ipv4", "", "With IPv4", default=True),
        switch("ipv6", "", "With IPv6"),
        many("label", "", "KEY=VALUE", "Set a label"),
        many("opt", "o", "KEY=VALUE", "Options of the driver"),
        option("scope", "", "string", "Scope of the network", hidden=True),
        many("subnet", "", "CIDR", "Subnet"),
    ),
    least=1,
    most=1,
)
CONNECT = Command(
    summary="Put an instance on a network",
    usage="[OPTIONS] NETWORK INSTANCE",
    run=connect,
    flags=(
        many("alias", "", "string", "Further name on the network"),
        many("driver-opt", "", "KEY=VALUE", "Options of the driver"),
        option("ip", "", "address", "IPv4 address"),
        option("ip6", "", "address", "IPv6 address"),
        many("link", "", "NAME[:ALIAS]", "Add a link to another instance"),
        many("link-local-ip", "", "address", "Link-local addresses"),
    ),
    least=2,
    most=2,
    completes="network instance",
)
DISCONNECT = Command(
    summary="Take an instance off a network",
    usage="[OPTIONS] NETWORK INSTANCE",
    run=disconnect,
    flags=(switch("force", "f", "Even if it is not there"),),
    least=2,
    most=2,
    completes="network instance",
)
RM = Command(
    summary="Remove networks",
    usage="[OPTIONS] NETWORK [NETWORK...]",
    run=remove,
    flags=(switch("force", "f", "It is no error when one is not there"),),
    least=1,
    completes="network",
)
