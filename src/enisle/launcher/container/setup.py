"""How the root of a container is to be made, as steps for the program in C (program/steps.c), which decides nothing.

child.py and rootfs.py do the same where that cannot be: in user namespaces, for a volume to be filled, without a
compiler. What each step is for is said there.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from enisle.launcher.container import cgroupfs, userns
from enisle.launcher.container.failure import MAX_PACKET_BYTES, ChildFailure
from enisle.launcher.container.filesystems import CGROUP_TREE, EMPTY_DIRECTORY, Filesystem, planned, usual
from enisle.launcher.container.options import parse
from enisle.launcher.container.packing import number, text, texts
from enisle.launcher.container.rootfs import TAKEN, is_strict, no_link, sysctl_path
from enisle.launcher.sources import other_root
from enisle.linux.cgroup.layout import Layout
from enisle.wire.plans import ContainerPlan, DevicePlan, MountPlan

_NO_USUAL = 0xFFFFFFFF
_USUAL = {filesystem: index for index, filesystem in enumerate(usual())}


class _Code(IntEnum):
    """enum step in program/steps.c."""

    SOURCE = 1
    PRIVATE = 2
    OVERLAY = 3
    ROOT = 4
    BIND = 5
    MOUNT = 6
    READY = 7
    CGROUPS = 8
    DEVICE = 9
    TERMINAL = 10
    NAMES = 11
    SYSCTL = 12
    READ_ONLY = 13
    MASK = 14
    DIRECTORY = 15
    NULL_STDIN = 16
    PIVOT = 17


_WITHOUT_LINKS, _IS_PROC, _IS_PTS, _IS_DEV = 1, 2, 4, 8
_PROPAGATION_BELOW, _ATTRIBUTES_BELOW = 1, 2


@dataclass(frozen=True, slots=True)
class Step:
    """``what``: it cannot be done, before the reason. ``parts``: names of what it consists of, for the same sentence.

    ``strict_target``: where nothing is mounted if a link is there.
    """

    code: _Code
    data: bytes
    what: str
    parts: Sequence[str] = ()
    strict_target: str = ""

    def failure(self, error: int, part: int) -> ChildFailure:
        """For that errno; ``part`` counts from 1, 0 is the whole."""
        if self.strict_target and error in (errno.ENOTDIR, errno.ELOOP):
            return no_link(self.strict_target)
        name = f"{self.parts[part - 1]}: " if 0 < part <= len(self.parts) else ""
        return ChildFailure(f"{self.what}: {name}{os.strerror(error).lower()}")


def packed(steps: Iterable[Step]) -> bytes:
    """As one packet."""
    return b"".join(number(step.code) + step.data for step in steps)


def birth_request(flags: int, joined: int, *, in_cgroup: bool, ahead: bool) -> bytes:
    """What the program reads first: how it is to be born (clone3's flags), and the file systems that steps number.

    ``ahead``: they are to be created before it knows which of them are wanted.
    """
    filesystems = [text(each.kind) + texts(_options(each)) for each in _USUAL]
    return number(flags, joined, in_cgroup, ahead, len(filesystems)) + b"".join(filesystems)


def suits(plan: ContainerPlan) -> bool:
    """Whether steps can make that container."""
    return not userns.is_wanted(plan) and not any(mount.copy_up or len(mount.layers) > 1 for mount in plan.mounts)


def steps_of(plan: ContainerPlan, layout: Layout) -> list[Step] | None:
    """All of them, in order. None when they are too long for one packet. ChildFailure for what can never be. Pure."""
    steps = list(_steps(plan, layout))
    return steps if sum(4 + len(step.data) for step in steps) <= MAX_PACKET_BYTES else None


def _steps(plan: ContainerPlan, layout: Layout) -> Iterator[Step]:
    bound = [mount for mount in plan.mounts if mount.kind in TAKEN]
    images = [mount for mount in plan.mounts if mount.kind == "image"]
    sources = {id(mount): index for index, mount in enumerate([*bound, *images])}
    yield from (_source(mount, mount.source) for mount in bound)
    yield Step(_Code.PRIVATE, b"", "/")
    yield from (_source(mount, mount.layers[0]) for mount in images)
    yield _root(plan)
    early, late = _around_cgroups(plan.mounts)
    yield from (_mount(mount, sources) for mount in early)
    yield from (_device(device) for device in plan.devices)
    if plan.process.terminal:
        yield Step(_Code.TERMINAL, b"", "/dev/console cannot be made")
    if plan.namespaces.uts == "private":
        yield Step(_Code.NAMES, text(plan.hostname) + text(plan.domainname), plan.hostname)
    covers = [*map(_read_only, plan.read_only_paths), *map(_mask, plan.masked_paths)]
    cover_early = not plan.sysctls and not any(
        _is_near(path, late) for path in plan.masked_paths + plan.read_only_paths
    )
    if cover_early:
        yield from covers
    yield Step(_Code.READY, number(plan.namespaces.cgroup == "private"), "cgroup namespace")
    for mount in late:
        yield _cgroup(mount, plan, layout) if mount.kind == "cgroup" else _mount(mount, sources)
    yield from (_sysctl(key, value) for key, value in plan.sysctls.items())
    if not cover_early:
        yield from covers
    yield Step(_Code.DIRECTORY, text(plan.process.cwd or "/"), "")
    if not plan.process.terminal and not plan.process.stdin:
        yield Step(_Code.NULL_STDIN, b"", "/dev/null")
    yield Step(_Code.PIVOT, number(plan.read_only_root), "pivot_root")


def _around_cgroups(plans: list[MountPlan]) -> tuple[list[MountPlan], list[MountPlan]]:
    """What can be mounted before the cgroup is there, and what then: the hierarchies, and what is near them after."""
    places = [index for index, mount in enumerate(plans) if mount.kind == "cgroup"]
    if not places:
        return plans, []
    first = places[0]
    late = plans[first : first + 1]
    if len(places) > 1 or any(_is_near(mount.target, late) for mount in plans[first + 1 :]):
        return plans[:first], plans[first:]
    return plans[:first] + plans[first + 1 :], late


def _is_near(path: str, plans: Iterable[MountPlan]) -> bool:
    """Whether one of these is mounted below that path, or at it, or above it."""
    place = f"{path.rstrip('/')}/"
    return any(
        place.startswith(target) or target.startswith(place) for target in (f"{mount.target}/" for mount in plans)
    )


def _source(plan: MountPlan, source: str) -> Step:
    namespace, path = other_root(source)
    options = parse(plan.options)
    below = (options.recursive or plan.kind == "volume") and plan.kind != "image"
    data = text(namespace) + text(path) + text(plan.subpath) + number(below)
    shown = plan.name or plan.source
    return Step(_Code.SOURCE, data, f'error mounting "{shown}" to rootfs at "{plan.target}": {plan.subpath or path}')


def _root(plan: ContainerPlan) -> Step:
    if not plan.lower:
        return Step(_Code.ROOT, text(plan.upper), plan.upper)
    data = texts(plan.lower) + text(plan.upper) + text(plan.work)
    parts = (*plan.lower, plan.upper, plan.work)
    return Step(_Code.OVERLAY, data, "the root file system cannot be mounted", parts)


def _mount(plan: MountPlan, sources: dict[int, int]) -> Step:
    if id(plan) in sources:
        return _bind(plan, sources[id(plan)])
    return _new(plan.kind, plan.target, plan.source, tuple(plan.options))


def _bind(plan: MountPlan, source: int) -> Step:
    options = parse(plan.options)
    propagation, propagates_below = options.propagation_of_bind
    add, remove, changes_below = options.attributes_of_bind
    flags = (_PROPAGATION_BELOW if propagates_below else 0) | (_ATTRIBUTES_BELOW if changes_below else 0)
    data = number(source, flags, propagation, add, remove) + text(plan.target)
    return Step(_Code.BIND, data, _failed(plan.source or plan.kind, plan.target))


@functools.cache  # the launcher asks for those that every container has
def _new(kind: str, target: str, source: str, words: tuple[str, ...]) -> Step:
    options = parse(words)
    filesystem = planned(kind, target, options)
    strict = is_strict(kind, target)
    flags = _WITHOUT_LINKS if strict else 0
    flags |= _IS_PROC if kind == "proc" and target == "/proc" else 0
    flags |= _IS_PTS if kind == "devpts" else 0
    flags |= _IS_DEV if target == "/dev" and kind != "devpts" else 0
    data = _filesystem(filesystem) + number(flags, options.add) + text(target)
    parts = [f"{kind} option {key}" for key, _value in filesystem.data]
    return Step(_Code.MOUNT, data, _failed(source or kind, target), parts, target if strict else "")


def _failed(source: str, target: str) -> str:
    return f'error mounting "{source}" to rootfs at "{target}"'


def _filesystem(wanted: Filesystem) -> bytes:
    index = _USUAL.get(wanted, _NO_USUAL)
    return number(index) if index != _NO_USUAL else number(index) + text(wanted.kind) + texts(_options(wanted))


def _options(wanted: Filesystem) -> list[str]:
    return [key if value is None else f"{key}={value}" for key, value in wanted.data]


def _cgroup(plan: MountPlan, container: ContainerPlan, layout: Layout) -> Step:
    """As cgroupfs.mount_tree."""
    options = parse(plan.options)
    failed = _failed(plan.source or plan.kind, plan.target)
    if layout.version == 2:
        data = _filesystem(Filesystem("cgroup2")) + number(_WITHOUT_LINKS, options.add) + text(plan.target)
        return Step(_Code.MOUNT, data, failed, (), plan.target)
    private = container.namespaces.cgroup == "private"
    data = _filesystem(CGROUP_TREE) + number(options.add & cgroupfs.PLAIN, private) + text(plan.target)
    data += _hierarchies(layout, f"{container.cgroup_parent}/{container.id}", private=private)
    return Step(_Code.CGROUPS, data, failed, (), plan.target)


def _hierarchies(layout: Layout, path: str, *, private: bool) -> bytes:
    mounted = cgroupfs.hierarchies(layout)
    data = [number(len(mounted))]
    for mount_point, directory, names in mounted:
        group = "" if private else f"{mount_point}/{path}"
        data += [
            text(",".join(names)),
            text(group),
            text(directory),
            texts(name for name in names if name != directory),
        ]
    return b"".join(data)


def _device(device: DevicePlan) -> Step:
    directory, _, name = device.path.rpartition("/")
    mode = (stat.S_IFCHR if device.kind == "c" else stat.S_IFBLK) | device.mode
    data = text(directory or "/") + text(name) + number(mode, device.major, device.minor, device.uid, device.gid)
    return Step(_Code.DEVICE, data, f"device {device.path} cannot be made")


def _sysctl(key: str, value: str) -> Step:
    return Step(_Code.SYSCTL, text(sysctl_path(key)) + text(value), f"sysctl {key}={value}")


@functools.cache
def _read_only(path: str) -> Step:
    return Step(_Code.READ_ONLY, text(path), path)


@functools.cache
def _mask(path: str) -> Step:
    return Step(_Code.MASK, _filesystem(EMPTY_DIRECTORY) + text(path), path)
