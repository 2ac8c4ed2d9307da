"""The host's own network: what it uses already, and the settings that forwarding needs."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

from enisle.linux.route import Route
from enisle.network.addresses import IPNetwork

_SYSCTLS = Path("/proc/sys/net")


def read_sysctl(name: str) -> str:
    """The value of net/<name>, "" where this kernel has none."""
    try:
        return (_SYSCTLS / name).read_text().strip()
    except OSError:
        return ""


def write_sysctl(name: str, value: str) -> bool:
    """Set net/<name> unless it is so already; whether it is now. Never raises: what needs it is checked by doctor."""
    if read_sysctl(name) == value:
        return True
    try:
        (_SYSCTLS / name).write_text(value)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def choosing_alone() -> Iterator[None]:
    """Hold off other engines of this network namespace while a subnet is chosen and taken (blocks, milliseconds)."""
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def used_subnets(route: Route, *, besides: str = "") -> list[IPNetwork]:
    """What the host's addresses and routes cover, apart from those of one link."""
    skip = route.index_of(besides) if besides and route.exists(besides) else 0
    texts = {address.cidr for address in route.addresses() if address.index != skip}
    texts |= {entry.destination for entry in route.routes() if entry.index != skip}
    found = (ipaddress.ip_network(text, strict=False) for text in texts)
    return [network for network in found if network.prefixlen > 0 and not network.is_multicast]


def uplink_mtu(route: Route) -> int:
    """The MTU of the link that the default route goes by, at most 1500; 1500 where there is no default route."""
    uplinks = {entry.index for entry in route.routes() if entry.destination == "0.0.0.0/0" and entry.index}
    mtus = [link.mtu for link in route.links() if link.index in uplinks and link.mtu >= 576]
    return min([1500, *mtus])


def allow_forwarding(*, ipv6: bool) -> bool:
    """Let the host forward packets, in this network namespace; whether it does now.

    It is never turned off again: nobody can know who else relies on it by then. A host that forwards IPv6 no longer
    listens to router advertisements, by which it may have its own default route, unless it is told to (accept_ra=2).
    """
    allowed = write_sysctl("ipv4/ip_forward", "1")
    if ipv6 and read_sysctl("ipv6/conf/all/forwarding") == "0":
        for link in sorted((_SYSCTLS / "ipv6/conf").iterdir()):
            if link.name != "all" and read_sysctl(f"ipv6/conf/{link.name}/accept_ra") == "1":
                write_sysctl(f"ipv6/conf/{link.name}/accept_ra", "2")
        allowed = write_sysctl("ipv6/conf/all/forwarding", "1") and allowed
    return allowed


def set_up_bridge(name: str, *, ipv6: bool) -> None:
    """Settings of a bridge of ours, before it is up: listen to no router, let ports on 127.0.0.1 be sent on."""
    write_sysctl(f"ipv6/conf/{name}/accept_ra", "0")
    write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "0" if ipv6 else "1")
    write_sysctl(f"ipv4/conf/{name}/route_localnet", "1")
    write_sysctl(f"ipv4/conf/{name}/rp_filter", "1")
