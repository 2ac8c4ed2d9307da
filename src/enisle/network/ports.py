"""Ports of the host, reserved by sockets that are bound and never listen.

The kernel's own bookkeeping thus decides what is free, for us, for other engines and for every other program. The
traffic never reaches these sockets, nftables sends it on before; but for TCP and UDP over IPv6 from the host itself,
and to instances without IPv6, which their keepers relay (:mod:`enisle.launcher.relay`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enisle.errors import Conflict, Denied, Invalid
from enisle.model.instance import BoundPort, Endpoint, PublishedPort
from enisle.network.addresses import parse_address

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_STREAM}
_RELAYED = frozenset({"tcp", "udp"})
_IPPROTO_SCTP = 132
_IPV6 = "/proc/net/if_inet6"
"""There on hosts that have IPv6."""

_RANDOM_ATTEMPTS = 64


class PortTaken(Exception):
    """Somebody has that port."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an instance's ports are published. ``label``: its name. ``default_ip``: the host's address for ports
    that name none, "" is every one. ``routed``: families (4, 6) whose addresses are reached themselves.
    """

    endpoint: Endpoint
    label: str
    default_ip: str = ""
    routed: frozenset[int] = frozenset()


def reserve(ports: Sequence[PublishedPort], place: Place) -> tuple[list[BoundPort], list[socket.socket]]:
    """Bind every port, on every host address it is to have; all of them or none.

    Conflict, Denied or Invalid in Docker's wording. The sockets are the caller's to close.
    """
    endpoint, label = place.endpoint, place.label
    failed = f"driver failed programming external connectivity on endpoint {label} ({endpoint.endpoint_id})"
    bound: list[BoundPort] = []
    with contextlib.ExitStack() as undo:
        sockets: list[socket.socket] = []
        for port in ports:
            addresses = host_addresses(port, place, failed)
            routed = [address for address in addresses if (6 if ":" in address else 4) in place.routed]
            bound += [_bound(port, address, 0) for address in routed]
            addresses = [address for address in addresses if address not in routed]
            if not addresses:
                continue
            number, opened = _bind_one_of(port, addresses, failed)
            for opened_socket in opened:
                undo.callback(opened_socket.close)
            sockets += opened
            bound += [_bound(port, address, number) for address in addresses]
        undo.pop_all()
        return bound, sockets


def _bound(port: PublishedPort, address: str, number: int) -> BoundPort:
    return BoundPort(container_port=port.container_port, protocol=port.protocol, host_ip=address, host_port=number)


def host_addresses(port: PublishedPort, place: Place, failed: str) -> list[str]:
    """The host addresses a port is published on; "" means all, of each family that reaches the instance."""
    endpoint = place.endpoint
    relayed = port.protocol in _RELAYED and bool(endpoint.ipv4) and os.path.exists(_IPV6)
    if port.protocol not in _KINDS:
        raise Invalid(f"invalid proto: {port.protocol}")
    if not port.host_ip and place.default_ip not in ("", "0.0.0.0"):
        return [place.default_ip] if endpoint.ipv4 else []
    if not port.host_ip:
        return [every for every, own in (("0.0.0.0", endpoint.ipv4), ("::", endpoint.ipv6 or relayed)) if own]
    host_ip = str(parse_address(port.host_ip.strip("[]"), "host IP address"))
    own = endpoint.ipv6 or relayed if ":" in host_ip else endpoint.ipv4
    if not own:
        family = "IPv6" if ":" in host_ip else "IPv4"
        raise Invalid(
            f"{failed}: cannot publish on {port.host_ip}: the instance has no {family} address on network "
            f"{endpoint.network}"
        )
    return [host_ip]


def _bind_one_of(port: PublishedPort, addresses: Sequence[str], failed: str) -> tuple[int, list[socket.socket]]:
    for number in _choices(port):
        try:
            opened = _bind(port.protocol, addresses, number, failed)
        except PortTaken:
            continue
        if not opened and not number:
            raise Invalid(f"{failed}: this kernel does not speak {port.protocol}: name the host's port")
        return opened[0].getsockname()[1] if opened else number, opened
    host_ip = addresses[0] if ":" not in addresses[0] else f"[{addresses[0]}]"
    if port.host_port_end > port.host_port or not port.host_port:
        words = f"Bind for {host_ip}:{port.host_port} failed: all ports are allocated"
    else:
        words = f"Bind for {host_ip}:{port.host_port} failed: port is already allocated"
    raise Conflict(f"{failed}: {words}")


def _choices(port: PublishedPort) -> Iterator[int]:
    """The port numbers to try; 0 lets the kernel choose one of its ephemeral range."""
    if port.host_port:
        yield from range(port.host_port, max(port.host_port, port.host_port_end) + 1)
    else:
        yield from [0] * _RANDOM_ATTEMPTS


def _bind(protocol: str, addresses: Sequence[str], number: int, failed: str) -> list[socket.socket]:
    """One socket per address, all with the same port number. PortTaken when one of them is not to be had."""
    with contextlib.ExitStack() as undo:
        opened: list[socket.socket] = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            one = _socket(family, protocol)
            if one is None:
                continue
            undo.enter_context(one)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol == "udp":
                one.setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, 0
                )  # nobody reads it, unless it is relayed: hold nothing
            try:
                _bind_to(one, address, number)
            except OSError as error:
                _refuse(error, protocol, address, number, failed)
            number = one.getsockname()[1]
            opened.append(one)
        undo.pop_all()
        return opened


def _bind_to(one: socket.socket, address: str, number: int) -> None:
    """Connections that were relayed keep a port for a minute after their end; whoever else has it keeps it."""
    try:
        one.bind((address, number))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or ":" not in address or one.type != socket.SOCK_STREAM:
            raise
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, number))


def _socket(family: int, protocol: str) -> socket.socket | None:
    """None for SCTP on a kernel that does not speak it itself: the port is sent on all the same, unreserved."""
    try:
        return socket.socket(family, _KINDS[protocol] | socket.SOCK_CLOEXEC, _IPPROTO_SCTP if protocol == "sctp" else 0)
    except OSError as error:
        if protocol == "sctp" and error.errno == errno.EPROTONOSUPPORT:
            return None
        raise


def _refuse(error: OSError, protocol: str, address: str, number: int, failed: str) -> None:
    if error.errno == errno.EADDRINUSE:
        raise PortTaken from error
    shown = f"[{address}]" if ":" in address else address
    message = f"{failed}: failed to bind host port for {shown}:{number}/{protocol}: {error.strerror}."
    if error.errno in (errno.EACCES, errno.EPERM):
        raise Denied(message) from error
    remedy = "Use an address that one of the host's interfaces has." if error.errno == errno.EADDRNOTAVAIL else ""
    raise Invalid(message, remedy=remedy) from error
