"""New file systems, and those that nearly every container wants made ahead of need."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from enisle.launcher.container.failure import ChildFailure
from enisle.launcher.container.options import Options, parse
from enisle.linux import mounts
from enisle.wire.frames import close_all
from enisle.wire.mounts import USUAL_SHM_BYTES, kernel_mounts, shared_memory
from enisle.wire.plans import MountPlan

_KINDS = frozenset({"proc", "sysfs", "devpts", "mqueue", "tmpfs"})


@dataclass(slots=True, frozen=True)
class Filesystem:
    """What a file system is to be. ``data``: its own options, in order; None for a flag."""

    kind: str
    data: tuple[tuple[str, str | None], ...] = ()

    def create(self) -> int:
        """One that is not mounted yet, as of mounts.create. OSError."""
        return mounts.create(self.kind, dict(self.data))


EMPTY_DIRECTORY = Filesystem("tmpfs", (("size", "4k"), ("mode", "0555")))
"""What masked directories are covered by."""

CGROUP_TREE = Filesystem("tmpfs", (("mode", "0755"), ("size", "64k")))
"""What holds the hierarchies of cgroup v1."""


def planned(plan: MountPlan, options: Options) -> Filesystem:
    """What a mount of a plan asks for. ChildFailure when there is no such file system."""
    if plan.kind not in _KINDS:
        raise ChildFailure(f"mount at {plan.target}: no file system is called {plan.kind!r}")
    data = options.data
    if plan.kind == "devpts":
        data = {"mode": "0620", "gid": "5", **data}  # 5 is tty in every distribution
        data.pop("newinstance", None)  # always so since Linux 4.7
    return Filesystem(plan.kind, tuple(data.items()))


class Premade:
    """File systems made before anybody asked for them, by the process that may use them.

    They are new and empty, and mounted when they are asked for: what of the host has changed since does not matter, and
    /proc, /sys and the message queues are those of the namespaces that the process was in.
    """

    def __init__(self, wanted: Iterable[Filesystem] = ()) -> None:
        self._made: dict[Filesystem, int] = {}
        for each in wanted:
            try:
                self._made[each] = each.create()
            except OSError:
                pass  # whoever needs it tells why it cannot be had

    def mount(self, wanted: Filesystem, *, attributes: int = 0) -> int:
        """A detached mount of one that was made before, or of a new one; the descriptor is its root. OSError.

        ``attributes``: ATTR_* flags.
        """
        context = self._made.pop(wanted, -1)
        if context < 0:
            context = wanted.create()
        try:
            return mounts.mount_created(context, attributes=attributes)
        finally:
            os.close(context)

    def close(self) -> None:
        """Let go of what nobody wanted."""
        close_all(list(self._made.values()))
        self._made.clear()


def usual() -> list[Filesystem]:
    """What a container without special wishes has on cgroup v1: on v2 none is made ahead. Pure."""
    asked = [*kernel_mounts(read_only=True), shared_memory(USUAL_SHM_BYTES)]
    wanted = [planned(mount, parse(mount.options)) for mount in asked if mount.kind in _KINDS]
    return [*wanted, EMPTY_DIRECTORY, CGROUP_TREE]
