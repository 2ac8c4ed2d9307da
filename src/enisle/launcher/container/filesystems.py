"""New file systems, and those of them that nearly every container wants."""

from __future__ import annotations

from dataclasses import dataclass

from enisle.launcher.container.failure import ChildFailure
from enisle.launcher.container.options import Options, parse
from enisle.linux import mounts
from enisle.wire.mounts import USUAL_SHM_BYTES, kernel_mounts, shared_memory

_KINDS = frozenset({"proc", "sysfs", "devpts", "mqueue", "tmpfs"})


@dataclass(slots=True, frozen=True)
class Filesystem:
    """What a file system is to be. ``data``: its own options, in order; None for a flag."""

    kind: str
    data: tuple[tuple[str, str | None], ...] = ()

    def mount(self, *, attributes: int = 0) -> int:
        """A detached mount of a new one; the descriptor is its root. ``attributes``: ATTR_* flags. OSError."""
        return mounts.new(self.kind, dict(self.data), attributes=attributes)


EMPTY_DIRECTORY = Filesystem("tmpfs", (("size", "4k"), ("mode", "0555")))
"""What masked directories are covered by."""

CGROUP_TREE = Filesystem("tmpfs", (("mode", "0755"), ("size", "64k")))
"""What holds the hierarchies of cgroup v1."""


def planned(kind: str, target: str, options: Options) -> Filesystem:
    """What a mount of a plan asks for. ChildFailure when there is no such file system."""
    if kind not in _KINDS:
        raise ChildFailure(f"mount at {target}: no file system is called {kind!r}")
    data = options.data
    if kind == "devpts":
        data = {"mode": "0620", "gid": "5", **data}  # 5 is tty in every distribution
        data.pop("newinstance", None)  # always so since Linux 4.7
    return Filesystem(kind, tuple(data.items()))


def usual() -> list[Filesystem]:
    """What a container without special wishes has on cgroup v1; made ahead of need there (program/birth.c). Pure."""
    asked = [*kernel_mounts(read_only=True), shared_memory(USUAL_SHM_BYTES)]
    wanted = [planned(mount.kind, mount.target, parse(mount.options)) for mount in asked if mount.kind in _KINDS]
    return [*wanted, EMPTY_DIRECTORY, CGROUP_TREE]
