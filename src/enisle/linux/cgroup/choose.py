"""The group of a path on this host, by whichever version its controllers are mounted."""

from __future__ import annotations

from enisle.linux.cgroup.group import Group
from enisle.linux.cgroup.layout import Layout, detect
from enisle.linux.cgroup.v1 import V1Group
from enisle.linux.cgroup.v2 import V2Group


def group(path: str, layout: Layout | None = None) -> Group:
    """The group, made or not. OSError when no cgroups are mounted."""
    layout = layout or detect()
    if layout.version == 0:
        raise OSError("no cgroup hierarchy is mounted: mount one, for example cgroup2 on /sys/fs/cgroup")
    return V1Group(layout, path) if layout.version == 1 else V2Group(layout, path)
