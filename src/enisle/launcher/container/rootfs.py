"""Making the root of a container, in its own mount namespace: overlay, mounts, masks, pivot.

Sources of bind mounts are taken first, while the host's paths still mean the host's files; everything is attached by
descriptor, to targets found inside the new root (see root.Root). Nothing is ever mounted where the host could see it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable

from enisle.launcher.container import devices
from enisle.launcher.container.copyup import copy_up
from enisle.launcher.container.failure import ChildFailure, describe
from enisle.launcher.container.filesystems import EMPTY_DIRECTORY, planned
from enisle.launcher.container.options import Options, parse
from enisle.launcher.container.root import Root
from enisle.launcher.sources import take, take_image
from enisle.linux import mounts
from enisle.linux.syscalls import pivot_root
from enisle.wire.plans import MountPlan

_EMPTY = mounts.ATTR_RDONLY | mounts.ATTR_NOEXEC
_STRICT = frozenset({"proc", "sysfs", "devpts", "mqueue", "cgroup"})
TAKEN = frozenset({"bind", "volume"})
BINDS = TAKEN | {"image"}

_PLACE = "/tmp"  # where a root made by somebody else is attached: any directory that everybody can reach

MountCgroup = Callable[[Options, Callable[[int], None]], None]


class Rootfs:
    """The new root while it is made. ``proc_fd``, ``pts_fd`` and ``null_fd`` are -1 until those mounts were made."""

    def __init__(self, lower: list[str], upper: str, work: str) -> None:
        self._directories = (lower, upper, work)
        self._sources: dict[int, int] = {}
        self._dev_fd = -1
        self.root = Root(-1)
        self.proc_fd = -1
        self.pts_fd = -1
        self.null_fd = -1

    # --- before anything of the host is hidden ---------------------------------------------------------------------

    def take_sources(self, plans: Iterable[MountPlan]) -> None:
        """Take a copy of each bind source's mount, with its propagation; then cut this namespace off the host's."""
        plans = list(plans)
        for mount in plans:
            if mount.kind in TAKEN:
                self._sources[id(mount)] = take_source(mount)
        mounts.set_tree_propagation("/", mounts.MS_PRIVATE)
        for mount in plans:
            if mount.kind == "image":
                self._sources[id(mount)] = self._take_image(mount)

    def _take_image(self, plan: MountPlan) -> int:
        try:
            return take_image(plan.layers, self._directories[1], subpath=plan.subpath)
        except OSError as error:
            raise source_failure(plan, error) from error

    def mount_root(self) -> None:
        """The overlay of image layers and the instance's own directory, mounted over the latter."""
        lower, upper, work = self._directories
        if not lower:
            fd = mounts.clone_tree(mounts.AT_FDCWD, upper)
            self._attach_root(fd, upper)
            return
        mount_overlay(lower, upper, work, upper)
        self.root = Root(os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def adopt(self, plans: Iterable[MountPlan], made: list[int]) -> None:
        """Instead of ``take_sources`` and ``mount_root``: root, /dev and bind sources, made by userns.prepare."""
        root, self._dev_fd, *sources = made
        self._sources = dict(zip((id(mount) for mount in plans if mount.kind in BINDS), sources, strict=True))
        mounts.set_tree_propagation("/", mounts.MS_PRIVATE)
        self._attach_root(root, _PLACE)

    def _attach_root(self, mount_fd: int, place: str) -> None:
        target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.attach(mount_fd, target)
        os.close(target)
        self.root = Root(mount_fd)

    # --- mounts ----------------------------------------------------------------------------------------------------

    def mount(self, plan: MountPlan, mount_cgroup: MountCgroup) -> None:
        """Carry out one mount. ``mount_cgroup`` carries out those of kind cgroup."""
        options = parse(plan.options)
        try:
            if plan.kind in BINDS:
                self._bind(plan, options)
            elif plan.kind == "cgroup":
                mount_cgroup(options, lambda fd: self._attach(fd, plan))
            else:
                made = self._dev_fd if plan.target == "/dev" and plan.kind == "tmpfs" else -1
                fd = made if made >= 0 else planned(plan.kind, plan.target, options).mount(attributes=options.add)
                self._attach(fd, plan)
                self._keep(fd, plan)
        except OSError as error:
            source = plan.source or plan.kind
            raise ChildFailure(f'error mounting "{source}" to rootfs at "{plan.target}": {describe(error)}') from error

    def _attach(self, fd: int, plan: MountPlan) -> None:
        strict = is_strict(plan.kind, plan.target)
        try:
            target = self.root.target(plan.target, directory=True, links=not strict)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not strict:
                raise
            raise no_link(plan.target) from error
        mounts.attach(fd, target)
        os.close(target)

    def _keep(self, fd: int, plan: MountPlan) -> None:
        """Hold on to the mounts that we need ourselves."""
        if plan.kind == "proc" and plan.target == "/proc":
            self.proc_fd = fd
        elif plan.kind == "devpts":
            self.pts_fd = fd
        else:
            if plan.target == "/dev":
                self.null_fd = devices.open_null(fd) if fd == self._dev_fd else devices.make_standard_nodes(fd)
            os.close(fd)

    def _bind(self, plan: MountPlan, options: Options) -> None:
        fd = self.take_source(plan, options)
        target = self.root.target(plan.target, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
        mounts.attach(fd, target)
        os.close(target)
        os.close(fd)

    def take_source(self, plan: MountPlan, options: Options) -> int:
        """The mount to show for a bind, a volume or an image, with its attributes, still detached; the caller's."""
        fd = self._sources.pop(id(plan))
        if plan.copy_up and stat.S_ISDIR(os.fstat(fd).st_mode):
            self._copy_up(plan, fd)
        propagation, below = options.propagation_of_bind
        mounts.set_attributes(fd, propagation=propagation, recursive=below)
        add, remove, below = options.attributes_of_bind
        if add or remove:
            mounts.set_attributes(fd, add=add, remove=remove, recursive=below)
        return fd

    def _copy_up(self, plan: MountPlan, volume: int) -> None:
        try:
            source = self.root.open(plan.target, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return  # the image has no directory there
        target = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=volume)
        try:
            copy_up(source, target)
        except OSError as error:
            raise ChildFailure(f"volume for {plan.target} cannot be filled: {describe(error)}") from error
        finally:
            os.close(source)
            os.close(target)

    # --- the rest --------------------------------------------------------------------------------------------------

    def ensure_private_mounts(self) -> None:
        """Where the plan mounts no /proc, devpts or /dev of its own, have them detached, for our own use."""
        if self.proc_fd < 0:
            self.proc_fd = mounts.new("proc")
        if self.pts_fd < 0:
            self.pts_fd = mounts.new("devpts", {"ptmxmode": "0666", "mode": "0620"})
        if self.null_fd < 0:
            host = os.open("/dev", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.null_fd = devices.open_null(host)
            os.close(host)

    def mask(self, paths: Iterable[str]) -> None:
        """Hide each path that is there: files behind the null device, directories behind an empty one."""
        empty = -1
        for path in paths:
            target = self._existing(path)
            if target < 0:
                continue
            if stat.S_ISDIR(os.fstat(target).st_mode):
                cover = EMPTY_DIRECTORY.mount(attributes=_EMPTY) if empty < 0 else mounts.clone_tree(empty)
            else:
                cover = mounts.clone_tree(self.null_fd)
            mounts.attach(cover, target)
            os.close(target)
            if empty < 0 and stat.S_ISDIR(os.fstat(cover).st_mode):
                empty = cover
            else:
                os.close(cover)
        if empty >= 0:
            os.close(empty)

    def make_read_only(self, paths: Iterable[str]) -> None:
        """Cover each path that is there by a read-only copy of itself."""
        for path in paths:
            target = self._existing(path)
            if target < 0:
                continue
            copy = mounts.clone_tree(target, recursive=True)
            mounts.set_attributes(copy, add=mounts.ATTR_RDONLY, recursive=True)
            mounts.attach(copy, target)
            os.close(copy)
            os.close(target)

    def _existing(self, path: str) -> int:
        try:
            return self.root.open(path, links=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                return -1
            raise

    def write_sysctls(self, values: dict[str, str]) -> None:
        """Write through a /proc that we have mounted ourselves, never through what the image calls /proc."""
        for key, value in values.items():
            path = sysctl_path(key)
            try:
                fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.proc_fd)
                try:
                    os.write(fd, value.encode())
                finally:
                    os.close(fd)
            except OSError as error:
                raise ChildFailure(f"sysctl {key}={value}: {os.strerror(error.errno or 0).lower()}") from error

    def enter(self, *, read_only: bool) -> None:
        """Make it the root of this process and let go of the host's."""
        if read_only:
            mounts.set_attributes(self.root.fd, add=mounts.ATTR_RDONLY)
        os.fchdir(self.root.fd)
        pivot_root(".", ".")
        mounts.unmount(".", mounts.MNT_DETACH)  # the old root lies on top of the new one (pivot_root(2), NOTES)
        os.chdir("/")


def mount_overlay(lower: list[str], upper: str, work: str, target: str) -> None:
    """Mount it, named by descriptors, because mount(2) takes 4096 bytes of options at most, and paths are long."""
    opened: list[int] = []
    try:
        for path in (*lower, upper, work):
            opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        names = [f"/proc/self/fd/{fd}" for fd in opened]
        data = f"lowerdir={':'.join(names[:-2])},upperdir={names[-2]},workdir={names[-1]}"
        mounts.mount("overlay", target, "overlay", 0, f"{data},redirect_dir=off,metacopy=off,index=off")
    except OSError as error:
        raise ChildFailure(f"the root file system cannot be mounted: {describe(error)}") from error
    finally:
        for fd in opened:
            os.close(fd)


def take_source(plan: MountPlan) -> int:
    """A detached copy of the mount that a bind or volume is to show. ChildFailure."""
    options = parse(plan.options)
    try:
        return take(plan.source, subpath=plan.subpath, recursive=options.recursive or plan.kind == "volume")
    except OSError as error:
        raise source_failure(plan, error) from error


def is_strict(kind: str, target: str) -> bool:
    """Whether such a mount follows no link of the image's."""
    return kind in _STRICT or target == "/dev"


def sysctl_path(key: str) -> str:
    """Where it is in /proc; dots and slashes change places in its name (sysctl(8)). ChildFailure for what is none."""
    path = key.replace("/", "\0").replace(".", "/").replace("\0", ".")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ChildFailure(f"sysctl {key!r} is none")
    return f"sys/{path}"


def no_link(target: str) -> ChildFailure:
    """What to say where a mount of the kernel's would follow a link of the image's."""
    return ChildFailure(f"{target} in the image is no directory but a link: nothing is mounted there")


def source_failure(plan: MountPlan, error: OSError) -> ChildFailure:
    """What to say when the source of a mount cannot be had."""
    source = plan.name or plan.source
    return ChildFailure(f'error mounting "{source}" to rootfs at "{plan.target}": {describe(error)}')
