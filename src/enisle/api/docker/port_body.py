"""Exposed and published ports, between Docker's JSON and the model."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from enisle.api.docker import request_types as body
from enisle.errors import Invalid
from enisle.model.instance import BoundPort, PublishedPort

_PROTOCOLS = ("tcp", "udp", "sctp")


def exposed(specs: Iterable[str]) -> tuple[str, ...]:
    """ "80/tcp" of every port in "80", "80/tcp", "8000-8010/udp"."""
    ports: dict[str, None] = {}
    for spec in specs:
        first, last, protocol = _container_ports(spec)
        for port in range(first, last + 1):
            ports[f"{port}/{protocol}"] = None
    return tuple(ports)


def published(bindings: dict[str, list[body.PortBinding] | None]) -> tuple[PublishedPort, ...]:
    """The ports to publish. Raises Invalid."""
    ports = []
    for spec, wanted in bindings.items():
        first, last, protocol = _container_ports(spec)
        for binding in wanted or [body.PortBinding()]:
            host_ip = _host_ip(binding.host_ip)
            low, high = _range(str(binding.host_port), empty_allowed=True)
            if last > first:
                if low and high - low != last - first:
                    raise Invalid(f'invalid port specification: "{spec}"')
                offsets = range(last - first + 1)
                ports += [
                    PublishedPort(
                        container_port=first + offset,
                        protocol=protocol,
                        host_ip=host_ip,
                        host_port=low + offset if low else 0,
                    )
                    for offset in offsets
                ]
                continue
            ports.append(
                PublishedPort(
                    container_port=first,
                    protocol=protocol,
                    host_ip=host_ip,
                    host_port=low,
                    host_port_end=high if high > low else 0,
                )
            )
    return tuple(ports)


def bindings_json(ports: Iterable[PublishedPort]) -> dict[str, list[dict[str, str]]]:
    """HostConfig.PortBindings as they were asked for."""
    result: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        host_port = str(port.host_port) if port.host_port else ""
        if port.host_port_end:
            host_port = f"{port.host_port}-{port.host_port_end}"
        result.setdefault(f"{port.container_port}/{port.protocol}", []).append(
            {"HostIp": port.host_ip, "HostPort": host_port}
        )
    return result


def bound_json(bound: Iterable[BoundPort], exposed_ports: Iterable[str]) -> dict[str, list[dict[str, str]] | None]:
    """NetworkSettings.Ports: what is bound; null for ports that are only exposed."""
    result: dict[str, list[dict[str, str]] | None] = dict.fromkeys(exposed_ports)
    for port in bound:
        key = f"{port.container_port}/{port.protocol}"
        entries = result.get(key) or []
        entries.append({"HostIp": port.host_ip, "HostPort": str(port.host_port)})
        result[key] = entries
    return result


def _container_ports(spec: str) -> tuple[int, int, str]:
    ports, slash, protocol = spec.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise Invalid(f"invalid proto: {protocol[:40]}")
    first, last = _range(ports, empty_allowed=False)
    return first, last, protocol


def _range(text: str, *, empty_allowed: bool) -> tuple[int, int]:
    """(0, 0) for "" and "0"."""
    if empty_allowed and text in ("", "0"):
        return 0, 0
    low, dash, high = text.partition("-")
    numbers = [low, high] if dash else [low]
    if not all(number.isascii() and number.isdigit() and len(number) <= 5 for number in numbers):
        raise Invalid(f'invalid port specification: "{text[:100]}"')
    first, last = int(numbers[0]), int(numbers[-1])
    if not 0 < first <= last < 65536:
        raise Invalid(f'invalid port specification: "{text[:100]}"')
    return first, last


def _host_ip(text: str) -> str:
    if not text:
        return ""
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise Invalid(f"invalid IP address: {text[:100]}") from None
    return text.strip("[]")
