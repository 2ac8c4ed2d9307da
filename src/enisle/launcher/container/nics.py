"""The host's side of a container's NICs: one veth pair each, its far end born inside."""

from __future__ import annotations

import errno

from enisle.launcher.wall import WallError
from enisle.linux import nics
from enisle.linux.netlink import NetlinkError
from enisle.linux.route import Route
from enisle.wire.plans import NicPlan


def make(route: Route, nic: NicPlan, pid: int) -> None:
    """Make the pair, with ``nic.name`` in the network namespace of ``pid``; a leftover of the same name goes first."""
    for attempt in range(2):
        try:
            nics.make(route, nic, pid)
            return
        except NetlinkError as error:
            if error.errno != errno.EEXIST or attempt or nic.parent:
                raise WallError("internal", f"network interface {nic.name}: {error.strerror}", 128) from error
            remove(route, nic, pid)


def remove(route: Route, nic: NicPlan, pid: int) -> None:
    """Idempotent; both ends go."""
    try:
        if nic.parent:
            nics.delete_inside(nic.name, pid)
        else:
            route.delete_link(nic.host_ifname)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise WallError("internal", f"network interface {nic.name}: {error.strerror}") from error


def counters(pid: int) -> dict[str, dict[str, int]]:
    """What each NIC in the network namespace of ``pid`` has carried since it was made (proc_net(5)); lo left out."""
    found: dict[str, dict[str, int]] = {}
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as file:
            lines = file.readlines()[2:]
    except OSError:
        return found
    names = ("bytes", "packets", "errors", "dropped")
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = [int(word) for word in rest.split()]
        if name.strip() == "lo" or len(numbers) < 16:
            continue
        found[name.strip()] = {
            **{f"rx_{key}": numbers[index] for index, key in enumerate(names)},
            **{f"tx_{key}": numbers[8 + index] for index, key in enumerate(names)},
        }
    return found
