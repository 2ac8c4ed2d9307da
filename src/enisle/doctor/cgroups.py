"""Cgroups: which version, and each controller that a flag depends on."""

from __future__ import annotations

from enisle.contracts import HostCapability
from enisle.linux.cgroup.layout import Layout, detect

_USES = {
    "cpu": "--cpus, --cpu-shares",
    "cpuset": "--cpuset-cpus",
    "memory": "--memory",
    "pids": "--pids-limit",
    "io": "--blkio-weight, --device-read-bps",
}
_V1_NAMES = {"io": "blkio"}
_V1_ONLY = {"devices": "--device, and keeping devices away", "freezer": "pause"}


def probe() -> list[HostCapability]:
    """As this process sees them."""
    layout = detect()
    return [version(layout), *controllers(layout.version, layout.controllers())]


def version(layout: Layout) -> HostCapability:
    """Which version limits are set by."""
    found = layout.version
    hybrid = found == 1 and layout.unified
    text = {
        0: "none is mounted",
        1: "version 1" + (" (v2 beside it, without controllers)" if hybrid else ""),
        2: "version 2",
    }
    remedy = ""
    if not found:
        remedy = "Mount cgroup2 on /sys/fs/cgroup."
    elif found == 1:
        remedy = "Works; version 2 is better at memory and I/O: boot with systemd.unified_cgroup_hierarchy=1."
    return HostCapability(name="cgroups", ok=found > 0, detail=text[found], remedy=remedy, wall="both")


def controllers(generation: int, found: set[str]) -> list[HostCapability]:
    """A line for each controller."""
    uses = _USES | (_V1_ONLY if generation == 1 else {})
    lines = []
    for name, use in uses.items():
        known = (_V1_NAMES.get(name, name) if generation == 1 else name) in found
        lines.append(
            HostCapability(
                name=f"cgroup {name}",
                ok=known,
                detail=f"for {use}" if known else f"missing: {use} will not work",
                remedy="" if known else _remedy(name, generation),
            )
        )
    return lines


def _remedy(name: str, generation: int) -> str:
    if generation == 2:
        return f"Enable it: echo +{name} > /sys/fs/cgroup/cgroup.subtree_control"
    return f"Boot with cgroup_enable={name}, or mount the controller below /sys/fs/cgroup."
