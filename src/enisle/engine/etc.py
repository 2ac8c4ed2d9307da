"""The contents of /etc/hosts, /etc/hostname and the like. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enisle.errors import Invalid
from enisle.model.instance import Endpoint, InstanceSpec

_LOOPBACK = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def hosts_file(
    spec: InstanceSpec, endpoints: Iterable[Endpoint], linked: Iterable[tuple[str, str]], gateways: Sequence[str]
) -> str:
    """Loopback, then --add-host, then ``linked`` (address, names), then the instance's own addresses.

    ``gateways`` are what "host-gateway" in --add-host stands for, one line each.
    """
    lines = [_LOOPBACK]
    for entry in spec.extra_hosts:
        name, address = split_extra_host(entry)
        for each in gateways if address == "host-gateway" else [address]:
            lines.append(f"{each}\t{name}\n")
    lines += [f"{address}\t{names}\n" for address, names in linked]
    own = spec.hostname if not spec.domainname else f"{spec.hostname}.{spec.domainname} {spec.hostname}"
    for endpoint in endpoints:
        lines += [f"{cidr.partition('/')[0]}\t{own}\n" for cidr in (endpoint.ipv4, endpoint.ipv6) if cidr]
    return "".join(lines)


def split_extra_host(entry: str) -> tuple[str, str]:
    """ "name:address" or "name=address"; the address may be IPv6, in brackets or not. Invalid otherwise."""
    name, separator, address = entry.partition("=")
    if not separator:
        name, separator, address = entry.partition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not separator or not name or not address or any(char.isspace() for char in entry):
        raise Invalid(f'bad format for add-host: "{entry}"')
    return name, address


def hostname_file(spec: InstanceSpec) -> str:
    return f"{spec.hostname}\n"
