"""The host's interfaces that macvlan and ipvlan networks are on: given, or made for the network and removed with it."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

from enisle.errors import Conflict, Denied, EnisleError, Internal, Invalid, NotSupported
from enisle.linux.netlink import NetlinkError
from enisle.linux.route import IPVLAN_FLAGS, IPVLAN_MODES, MACVLAN_MODES, Route
from enisle.model.network import Network
from enisle.network.options import link_name

DRIVERS = frozenset({"macvlan", "ipvlan"})
PARENT = "parent"
MODE = "macvlan_mode"
IPVLAN_MODE, IPVLAN_FLAG = "ipvlan_mode", "ipvlan_flag"
_DUMMY = {"macvlan": "dm", "ipvlan": "di"}  # as Docker calls them
_VLAN = re.compile(r"(.+)\.([0-9]{1,4})")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentOptions:
    """``parent``: the interface. ``mode``: of MACVLAN_MODES; for ipvlan one of IPVLAN_MODES and one of IPVLAN_FLAGS."""

    parent: str
    mode: str

    @property
    def is_routed(self) -> bool:
        """Whether everything leaves by the link itself, without a gateway."""
        return self.mode.startswith("l3")


def is_on_parent(network: Network) -> bool:
    """Whether its NICs are on an interface of the host, rather than on a bridge."""
    return network.driver in DRIVERS and not network.config_only


def parent_options(network: Network) -> ParentOptions:
    """Invalid for what makes no sense."""
    mode = _ipvlan_mode(network) if network.driver == "ipvlan" else _macvlan_mode(network)
    parent = link_name(network.options.get(PARENT, ""), "parent interface")
    # Without a parent it is a segment of its own, as Docker makes it.
    return ParentOptions(parent=parent or f"{_DUMMY[network.driver]}-{network.id[:12]}", mode=mode)


def _macvlan_mode(network: Network) -> str:
    mode = network.options.get(MODE, "") or "bridge"
    if mode not in MACVLAN_MODES:
        raise Invalid(f"requested macvlan mode '{mode[:40]}' is not valid, 'bridge' mode is the macvlan driver default")
    return mode


def _ipvlan_mode(network: Network) -> str:
    mode = network.options.get(IPVLAN_MODE, "") or "l2"
    flag = network.options.get(IPVLAN_FLAG, "") or "bridge"
    if mode not in IPVLAN_MODES:
        raise Invalid(f"requested ipvlan mode '{mode[:40]}' is not valid, 'l2' mode is the ipvlan driver default")
    if flag not in IPVLAN_FLAGS:
        raise Invalid(f"requested ipvlan flag '{flag[:40]}' is not valid, 'bridge' is the ipvlan driver default")
    return f"{mode} {flag}"


def check(network: Network, others: Iterable[Network]) -> None:
    """Denied when another network has the parent for itself (Docker's rule: one network to an interface)."""
    wanted = parent_options(network).parent
    for other in others:
        if is_on_parent(other) and parent_options(other).parent == wanted:
            raise Denied(f"network {other.name} is already using parent interface {wanted}")


def mtu(route: Route, network: Network) -> int:
    """That of the parent: what is on it can send no more than it does."""
    return route.link(parent_options(network).parent).mtu


def make(route: Route, network: Network) -> bool:
    """See to it that the parent is there, and carries such NICs; whether it was made by this call.

    ``eth0.10`` that is not there becomes VLAN 10 on eth0. Invalid when the interface below is not there either.
    """
    made = _make_parent(route, network)
    if network.driver == "ipvlan":
        try:
            _try_ipvlan(route, network)
        except EnisleError:
            if made:
                route.delete_link(parent_options(network).parent)
            raise
    return made


def _try_ipvlan(route: Route, network: Network) -> None:
    """NICs are made when an instance starts: what the kernel cannot do is better told when the network is made."""
    options = parent_options(network)
    name = f"try-{network.id[:8]}"
    try:
        route.create_ipvlan(name, options.parent, mode=options.mode)
        route.delete_link(name)
    except NetlinkError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
            raise NotSupported(f"network {network.name}: this kernel has no ipvlan; macvlan may do instead") from error
        if error.errno == errno.EBUSY:
            raise Conflict(
                f"network {network.name}: interface {options.parent} is a port of a bridge or has macvlans on it"
            ) from error
        raise Invalid(f"network {network.name}: no ipvlan on {options.parent}: {error.strerror}") from error


def _make_parent(route: Route, network: Network) -> bool:
    parent = parent_options(network).parent
    if route.exists(parent):
        return False
    try:
        if not network.options.get(PARENT):
            route.create_dummy(parent)
        else:
            below, number = _vlan(parent)
            if not route.exists(below):
                raise Invalid(f"the requested parent interface {below} was not found on the host")
            route.create_vlan(parent, below, number)
        route.link_up(parent)
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            raise Conflict(f"network {network.name}: interface {parent} exists already") from error
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
            kind = "VLANs" if network.options.get(PARENT) else "dummy interfaces"
            raise NotSupported(
                f"network {network.name}: this kernel has no {kind}; name an interface that is there with -o parent="
            ) from error
        raise Internal(f"network {network.name}: interface {parent} could not be made: {error.strerror}") from error
    return True


def remove(route: Route, network: Network) -> None:
    """Remove the parent, if it was made for the network; one that is gone is no error."""
    if not network.parent_made:
        return
    parent = parent_options(network).parent
    try:
        route.delete_link(parent)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise Internal(f"interface {parent} could not be removed: {error.strerror}") from error


def remove_tap(name: str) -> None:
    """Remove a VM's macvtap, which stays when its keeper was killed; one that is gone, or never was, is no error."""
    with contextlib.suppress(NetlinkError), Route() as route:
        route.delete_link(name)


def remove_stray_taps(prefix: str, known: Container[str]) -> None:
    """Remove the macvtaps of VMs that ended while nobody looked."""
    with Route() as route:
        strays = [link.name for link in route.links() if link.kind == "macvtap" and link.name.startswith(prefix)]
    for name in strays:
        if name not in known:
            remove_tap(name)


def _vlan(name: str) -> tuple[str, int]:
    """The interface and the number of a VLAN's name. Invalid when it is none."""
    found = _VLAN.fullmatch(name)
    if not found:
        raise Invalid(f"the requested parent interface {name} was not found on the host")
    number = int(found[2])
    if not 0 < number < 4095:
        raise Invalid(f"invalid subinterface vlan name {name}: VLAN IDs are 1 to 4094")
    return found[1], number
