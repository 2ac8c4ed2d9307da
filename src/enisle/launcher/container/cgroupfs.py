"""The /sys/fs/cgroup of a container: its own group and nothing above it, on v1 as on v2."""

from __future__ import annotations

import os
from collections.abc import Callable

from enisle.launcher.container.filesystems import CGROUP_TREE
from enisle.launcher.container.options import Options
from enisle.linux import mounts
from enisle.linux.cgroup.layout import Layout

PLAIN = mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC  # the same bits as ATTR_*

Attach = Callable[[int], None]
"""Puts a mount at the target."""


def hierarchies(layout: Layout) -> list[tuple[str, str, list[str]]]:
    """Of cgroup v1: where each is mounted on the host, the directory that it has in a container, its controllers."""
    return [
        (
            mount_point,
            os.path.basename(mount_point),
            [name for name, place in layout.v1.items() if place == mount_point],
        )
        for mount_point in dict.fromkeys(layout.v1.values())
    ]


def mount_tree(layout: Layout, path: str, options: Options, attach: Attach, *, private: bool) -> None:
    """Mount it. ``private``: our cgroup namespace is rooted at ``path``.

    On v1 the outer mount is attached before the inner ones: below a detached one nothing can be mounted before
    Linux 6.15.
    """
    if layout.version == 2:
        fd = mounts.new("cgroup2", attributes=options.add)
        attach(fd)
        os.close(fd)
        return
    attributes = options.add & ~mounts.ATTR_ATIME_MASK
    tree = CGROUP_TREE.mount(attributes=attributes & ~mounts.ATTR_RDONLY)
    attach(tree)
    for mount_point, directory, names in hierarchies(layout):
        os.mkdir(directory, 0o755, dir_fd=tree)
        place = f"/proc/self/fd/{tree}/{directory}"  # in a tree that nobody else can write
        if private:
            mounts.mount("cgroup", place, "cgroup", attributes & PLAIN, ",".join(names))
        else:
            mounts.mount(f"{mount_point}/{path}", place, "", mounts.MS_BIND)
            mounts.mount("", place, "", mounts.MS_BIND | mounts.MS_REMOUNT | attributes & PLAIN)
        for name in names:
            if name != directory:
                os.symlink(directory, name, dir_fd=tree)
    if options.read_only:
        mounts.set_attributes(tree, add=mounts.ATTR_RDONLY)
    os.close(tree)
