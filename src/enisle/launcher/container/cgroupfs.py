"""The /sys/fs/cgroup of a container: its own group and nothing above it, on v1 as on v2."""

from __future__ import annotations

import os
from collections.abc import Callable

from enisle.launcher.container.options import Options
from enisle.linux import mounts
from enisle.linux.cgroup.layout import Layout

Attach = Callable[[int], None]
"""Puts a mount at the target."""


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
    tree = mounts.new("tmpfs", {"mode": "0755", "size": "64k"}, attributes=attributes & ~mounts.ATTR_RDONLY)
    attach(tree)
    for mount_point in dict.fromkeys(layout.v1.values()):
        names = [name for name, place in layout.v1.items() if place == mount_point]
        if private:
            fd = mounts.new("cgroup", dict.fromkeys(names), attributes=attributes)
        else:
            fd = mounts.clone_tree(mounts.AT_FDCWD, f"{mount_point}/{path}")
            mounts.set_attributes(fd, add=attributes)
        _attach_below(tree, os.path.basename(mount_point), fd)
        for name in names:
            if name != os.path.basename(mount_point):
                os.symlink(os.path.basename(mount_point), name, dir_fd=tree)
    if options.read_only:
        mounts.set_attributes(tree, add=mounts.ATTR_RDONLY)
    os.close(tree)


def _attach_below(tree: int, name: str, fd: int) -> None:
    os.mkdir(name, 0o755, dir_fd=tree)
    target = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=tree)
    mounts.attach(fd, target)
    os.close(target)
    os.close(fd)
