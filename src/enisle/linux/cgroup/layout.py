"""Which cgroup hierarchies this host has mounted, and where (cgroups(7))."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

V1_CONTROLLERS = ("cpuset", "memory", "cpu", "cpuacct", "devices", "freezer", "blkio", "pids", "perf_event", "hugetlb")
"""In the order in which a new group is made; cpuset first, because it must be filled before a process may join."""


@dataclass(frozen=True, slots=True)
class Layout:
    """``v1``: controller -> mount point, in V1_CONTROLLERS' order; ``unified``: mount point of cgroup v2, "" if none.

    A hybrid host has both: its controllers are v1, and v2 is there without any.
    """

    v1: dict[str, str] = field(default_factory=dict)
    unified: str = ""

    @property
    def version(self) -> int:
        """The version that limits are set by: 1 or 2; 0 where no cgroups are mounted at all."""
        if self.v1:
            return 1
        return 2 if self.unified else 0

    def controllers(self) -> set[str]:
        """The names of the controllers that can be used, by their v1 names on v1 and v2 names on v2."""
        if self.version == 1:
            return set(self.v1)
        if not self.unified:
            return set()
        with open(f"{self.unified}/cgroup.controllers", encoding="ascii") as file:
            return set(file.read().split())


def parse_mountinfo(text: str) -> Layout:
    """The layout that the content of /proc/PID/mountinfo shows (proc(5))."""
    found: dict[str, str] = {}
    unified = ""
    for line in text.splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, rest = tail.partition(" ")
        if kind not in ("cgroup", "cgroup2"):
            continue
        mount_point = fields.split(" ")[4].replace("\\040", " ")
        if kind == "cgroup2":
            unified = unified or mount_point
            continue
        for option in rest.split(" ")[-1].split(","):
            if option in V1_CONTROLLERS:
                found.setdefault(option, mount_point)
    return Layout({name: found[name] for name in V1_CONTROLLERS if name in found}, unified)


def detect() -> Layout:
    """The layout as this process sees it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse_mountinfo(file.read())


@functools.cache
def host_layout() -> Layout:
    """The same, asked for once: the launcher does, so that all it forks know it from birth."""
    return detect()
