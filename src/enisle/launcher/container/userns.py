"""A container in a user namespace of its own: its root is nobody on the host.

What needs the host's root is done outside, in a task of the keeper's: the overlay, /dev and copies of the bind sources
are made as detached mounts, whose owners are shown as the namespace maps them, and sent to the first process. Nothing
on the disk is ever changed for it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.launcher.container import devices
from enisle.launcher.container.failure import MAX_FDS, ChildFailure, describe
from enisle.launcher.container.options import parse
from enisle.launcher.container.root import Root
from enisle.launcher.container.rootfs import BINDS, TAKEN, mount_overlay, source_failure, take_source
from enisle.launcher.container.task import Answer, Task
from enisle.launcher.sources import take_image
from enisle.launcher.wall import WallError
from enisle.linux import mounts
from enisle.linux.namespaces import CLONE_NEWNS, open_namespace, unshare
from enisle.linux.syscalls import PR_SET_SECUREBITS, prctl
from enisle.wire.plans import ContainerPlan, DevicePlan, MountPlan, NamespacePlan

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop

_SECBIT_NO_SETUID_FIXUP = 1 << 2  # capabilities(7)
_BUILDING_SITE = "/tmp"  # any directory: what is mounted there is seen by the task alone


def is_wanted(plan: ContainerPlan) -> bool:
    """Whether the container has a user namespace of its own."""
    return plan.namespaces.user == "private"


def own_stdio(stdio: list[int], plan: NamespacePlan) -> None:
    """Let the container's root open its own /dev/stdout anew."""
    for fd in stdio:
        os.fchown(fd, plan.uid_map[0][1], plan.gid_map[0][1])


def prepare(loop: EpollLoop, plan: ContainerPlan, pid: int, done: Callable[[list[int] | WallError], None]) -> Task:
    """Make the mounts for the container of that first process; ``done`` gets them: root, /dev, bind sources."""

    def work() -> Answer:
        try:
            return {"fds": _make(plan, pid)}
        except ChildFailure as error:
            raise WallError(error.kind, error.message, error.exit_code) from error

    def made(answer: Answer | WallError) -> None:
        done(answer if isinstance(answer, WallError) else answer["fds"])

    return Task(loop, work, [], made)


def _make(plan: ContainerPlan, pid: int) -> list[int]:
    shown = [mount for mount in plan.mounts if mount.kind in BINDS]
    if len(shown) + 2 > MAX_FDS:
        raise ChildFailure(f"a container in a user namespace can have {MAX_FDS - 2} mounts, this one has {len(shown)}")
    unshare(CLONE_NEWNS)
    os.umask(0)
    userns = open_namespace(pid, "user")
    taken = {id(mount): _source(mount, userns) for mount in shown if mount.kind in TAKEN}
    mounts.set_tree_propagation("/", mounts.MS_PRIVATE)
    site = _Site(userns)
    sources = [taken[id(mount)] if mount.kind in TAKEN else site.image(mount) for mount in shown]
    dev = _make_dev(plan)
    return [site.root(plan), dev, *sources]


def _source(plan: MountPlan, userns: int) -> int:
    fd = take_source(plan)
    if plan.map_ids:
        _map(fd, userns, plan.name or plan.source, recursive=True)
    return fd


class _Site:
    """A place where layers are mounted with their owners mapped, to be the layers of overlays."""

    def __init__(self, userns: int) -> None:
        self._userns = userns
        self._count = 0
        self._fd = mounts.new("tmpfs", {"size": "1m", "mode": "0700"})
        target = os.open(_BUILDING_SITE, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.attach(self._fd, target)
        os.close(target)

    def root(self, plan: ContainerPlan) -> int:
        """The root file system of the container. What is made after it is made in the name of the container's root."""
        # The instance's directory as one mount: overlayfs wants upper and work directory on the same.
        own, *lower = [self._mapped(path) for path in (os.path.dirname(plan.upper), *plan.lower)]
        upper, work = (f"{own}/{os.path.basename(path)}" for path in (plan.upper, plan.work))
        merged = self._directory()
        _take_ids(plan.namespaces)
        mount_overlay(lower, upper, work, merged)
        return mounts.clone_tree(mounts.AT_FDCWD, merged)

    def image(self, plan: MountPlan) -> int:
        """The files of an image."""
        layers = [self._mapped(path) for path in plan.layers]
        try:
            return take_image(layers, self._directory(), subpath=plan.subpath)
        except OSError as error:
            raise source_failure(plan, error) from error

    def _mapped(self, path: str) -> str:
        fd = mounts.clone_tree(mounts.AT_FDCWD, path)
        _map(fd, self._userns, path)
        place = self._directory()
        target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.attach(fd, target)
        os.close(target)
        os.close(fd)
        return place

    def _directory(self) -> str:
        self._count += 1
        os.mkdir(str(self._count), dir_fd=self._fd)
        return f"{_BUILDING_SITE}/{self._count}"


def _take_ids(plan: NamespacePlan) -> None:
    """Be the container's root in name, with all our rights: whoever mounts an overlay owns what it makes by itself."""
    prctl(PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    os.setresgid(*[plan.gid_map[0][1]] * 3)
    os.setresuid(*[plan.uid_map[0][1]] * 3)


def _map(fd: int, userns: int, path: str, *, recursive: bool = False) -> None:
    try:
        mounts.map_ids(fd, userns, recursive=recursive)
    except OSError as error:
        reason = f"its file system cannot show owners as a user namespace maps them: {describe(error)}"
        raise ChildFailure(f"{path}: {reason}", kind="not_supported") from error


def _make_dev(plan: ContainerPlan) -> int:
    """A /dev with all its nodes, which nobody in a user namespace can make; owned by the container's root."""
    options = next((mount.options for mount in plan.mounts if mount.target == "/dev" and mount.kind == "tmpfs"), [])
    parsed = parse(options)
    uid, gid = plan.namespaces.uid_map[0][1], plan.namespaces.gid_map[0][1]
    data = {**parsed.data, "uid": str(uid), "gid": str(gid)}
    dev = mounts.new("tmpfs", data, attributes=parsed.add)
    os.close(devices.make_standard_nodes(dev))
    for name in devices.STANDARD_NAMES:
        os.chown(name, uid, gid, dir_fd=dev, follow_symlinks=False)
    devices.make_nodes(Root(dev), [_below_dev(device, uid, gid) for device in plan.devices])
    return dev


def _below_dev(device: DevicePlan, uid: int, gid: int) -> DevicePlan:
    if not device.path.startswith("/dev/"):
        raise ChildFailure(f"device {device.path}: in a user namespace devices can be had below /dev only")
    path = device.path.removeprefix("/dev")
    return dataclasses.replace(device, path=path, uid=device.uid + uid, gid=device.gid + gid)
