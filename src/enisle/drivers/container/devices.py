"""Devices of the host shown inside, and the cgroup rules that go with them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress

from enisle.errors import Invalid, NotSupported
from enisle.model.instance import InstanceSpec
from enisle.model.resources import Device
from enisle.wire.plans import DevicePlan

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
_ACCESS = re.compile(r"[rwm]{1,3}")
_EVERYTHING = "a *:* rwm"
# Never shown by --privileged: these belong to the container's own terminals and shared memory.
_SKIPPED = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "core"})


def check(spec: InstanceSpec) -> None:
    """Refuse what cannot be a device or a rule, before anything is made."""
    for request in spec.devices.requests:
        words = "[" + " ".join("[" + " ".join(group) + "]" for group in request.capabilities) + "]"
        raise NotSupported(f'could not select device driver "{request.driver}" with capabilities: {words}')
    for rule in spec.devices.cgroup_rules:
        if not _RULE.fullmatch(rule):
            raise Invalid(f"invalid device cgroup rule format: '{rule[:200]}'")
    for device in spec.devices.devices:
        if not _ACCESS.fullmatch(device.access) or len(set(device.access)) != len(device.access):
            raise Invalid(f'invalid device mode: "{device.access[:40]}"')
        for path in (device.host_path, device.path):
            if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
                raise Invalid(f'invalid device path: "{path[:200]}"')


def device_plans(spec: InstanceSpec) -> list[DevicePlan]:
    """The nodes to make besides the standard ones. Looks the devices up on the host."""
    planned: dict[str, DevicePlan] = {}
    if spec.privileged:
        planned |= {plan.path: plan for plan in _below("/dev", "/dev", "rwm")}
    for device in spec.devices.devices:
        planned |= {plan.path: plan for plan in _lookup(device)}
    return list(planned.values())


def device_rules(spec: InstanceSpec) -> list[str]:
    """Cgroup rules besides those that follow from the nodes."""
    return [_EVERYTHING] if spec.privileged else list(spec.devices.cgroup_rules)


def _lookup(device: Device) -> list[DevicePlan]:
    where = f'error gathering device information while adding custom device "{device.host_path}"'
    try:
        resolved = os.path.realpath(device.host_path, strict=True)
        status = os.stat(resolved)
    except OSError as error:
        raise Invalid(f"{where}: {(error.strerror or str(error)).lower()}") from error
    if stat.S_ISDIR(status.st_mode):
        found = list(_below(resolved, device.path, device.access))
    else:
        found = [plan] if (plan := _plan(resolved, device.path, status, device.access)) else []
    if not found:
        raise Invalid(f"{where}: not a device node")
    return found


def _below(directory: str, target: str, access: str) -> Iterator[DevicePlan]:
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in _SKIPPED or entry.is_symlink():
                continue
            inside = f"{target.rstrip('/')}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, inside, access)
                continue
            with suppress(OSError):
                plan = _plan(entry.path, inside, entry.stat(follow_symlinks=False), access)
                if plan is not None:
                    yield plan


def _plan(host_path: str, path: str, status: os.stat_result, access: str) -> DevicePlan | None:
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return DevicePlan(
        host_path=host_path,
        path=path,
        kind=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        access=access,
    )
