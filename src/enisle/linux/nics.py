"""The NIC of an instance in a network namespace of its own, made whole from the host's side. Standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from enisle.linux.namespaces import CLONE_NEWNET, setns
from enisle.linux.route import MACVLAN_MODES, Route


class Nic(Protocol):
    """What a NIC is to be; fields as of wire.plans.NicPlan."""

    name: str
    host_ifname: str
    bridge: str
    mac: str
    addresses: list[str]
    gateway4: str
    gateway6: str
    mtu: int
    routes: list[list[str]]
    hairpin: bool
    isolated: bool
    parent: str
    mode: str


@contextlib.contextmanager
def visiting(namespace: int) -> Iterator[None]:
    """Have the calling thread in that network namespace, and back in its own after."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(namespace, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


@contextlib.contextmanager
def _namespace_of(pid: int) -> Iterator[int]:
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def visiting_process(pid: int) -> Iterator[None]:
    """``visiting`` the network namespace of a process."""
    with _namespace_of(pid) as namespace, visiting(namespace):
        yield


def set_up(nics: Sequence[Nic], pid: int) -> None:
    """Bring up the loopback and the NICs, whose host ends are there, in the network namespace of a process.

    Returns when the links carry traffic, so that the first packet of whoever runs inside is not lost. For the
    namespace's creator, before the program inside is let go. OSError names what failed.
    """
    with visiting_process(pid), Route() as inside:
        inside.link_up("lo")
        for nic in nics:
            inside.configure(
                nic.name,
                addresses=nic.addresses,
                gateway4=nic.gateway4,
                gateway6=nic.gateway6,
                routes=nic.routes,
            )
    with Route() as route:
        for nic in nics:
            if nic.parent:
                continue  # it carries what its parent carries
            route.wait_carrier(nic.host_ifname)
            route.wait_carrier(nic.bridge)  # it was without one if this is its first port


def restore_default_routes(nics: Sequence[Nic], pid: int) -> None:
    """Give the network namespace of a process the default routes that went with a NIC, by the first that has one."""
    with visiting_process(pid), Route() as inside:
        for nic in nics:
            for gateway in filter(None, (nic.gateway4, nic.gateway6)):
                inside.add_default_route(gateway, link=nic.name)


def delete_inside(name: str, pid: int) -> None:
    """Delete a NIC that has no other end. ENODEV when there is none of that name."""
    with visiting_process(pid), Route() as inside:
        inside.delete_link(name)


def make(route: Route, nic: Nic, pid: int) -> None:
    """Make a veth pair between the NIC's bridge and the network namespace of a process, or a macvlan or an ipvlan on
    its parent there; nothing is up inside yet."""
    if nic.parent and nic.mode not in MACVLAN_MODES:
        route.create_ipvlan(nic.name, nic.parent, mode=nic.mode, peer_pid=pid, mtu=nic.mtu)
        return
    if nic.parent:
        route.create_macvlan(nic.name, nic.parent, mode=nic.mode, peer_pid=pid, mac=nic.mac, mtu=nic.mtu)
        return
    route.create_veth(
        nic.host_ifname,
        nic.name,
        peer_pid=pid,
        master=nic.bridge,
        peer_mac=nic.mac,
        mtu=nic.mtu,
        up=True,
    )
    if nic.hairpin or nic.isolated:
        route.set_port(nic.host_ifname, hairpin=nic.hairpin, isolated=nic.isolated)


def plug(nics: Sequence[Nic], pid: int) -> None:
    """``make`` and ``set_up`` for all NICs; what was made before a failure goes with the namespace."""
    with Route() as route:
        for nic in nics:
            make(route, nic, pid)
    set_up(nics, pid)
