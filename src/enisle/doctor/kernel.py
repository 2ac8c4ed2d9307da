"""What the kernel does for us: identity, namespaces, overlayfs, system call filters, limits."""

from __future__ import annotations

import os
import platform
import re
import resource
import time
from pathlib import Path

from enisle.contracts import HostCapability
from enisle.doctor.attempts import attempted
from enisle.linux import capabilities, seccomp

OLDEST_KERNEL = (5, 12)  # mount_setattr(2), clone3 into a cgroup, overlayfs as we mount it
_SYS_RESOURCE = 1 << capabilities.NAMES.index("SYS_RESOURCE")
_WANTED_FILES = 65536
_NAMESPACES_REMEDY = "Run on a kernel with CONFIG_NAMESPACES, and not inside a container without CAP_SYS_ADMIN."
_USER_REMEDY = (
    "Only --userns and volumes of VMs need them: raise user.max_user_namespaces (sysctl); "
    "in a chroot, or a container that forbids them, they cannot be had."
)
_EARLIEST_TIME = 1_700_000_000  # certificates of today are not valid before


def probe(trial: dict[str, str]) -> list[HostCapability]:
    """``trial`` is what :mod:`enisle.doctor.trial` found."""
    return [
        root(os.geteuid()),
        release(platform.release()),
        *namespaces(trial),
        overlay(trial),
        system_call_filters(),
        resource_limits(capabilities.effective(), resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        clock(time.time()),
    ]


def root(uid: int) -> HostCapability:
    """Whether we are root."""
    return HostCapability(
        name="root",
        ok=uid == 0,
        detail="running as root" if uid == 0 else f"running as user {uid}; what only root can try was not tried",
        remedy="" if uid == 0 else "Run enisled, and this check, as root (sudo enisle doctor).",
        wall="both",
    )


def release(text: str) -> HostCapability:
    """Whether the kernel is new enough."""
    match = re.match(r"(\d+)\.(\d+)", text)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    oldest = ".".join(map(str, OLDEST_KERNEL))
    return HostCapability(
        name="kernel",
        ok=version >= OLDEST_KERNEL,
        detail=text,
        remedy="" if version >= OLDEST_KERNEL else f"Install a kernel of at least {oldest}.",
        wall="container",
    )


def namespaces(trial: dict[str, str]) -> list[HostCapability]:
    """Namespaces, in one line where all work; user namespaces apart, because not everything needs them."""
    kinds = {name.partition(" ")[2]: reason for name, reason in trial.items() if name.startswith("namespace ")}
    kinds.pop("user", None)
    failed = {kind: reason for kind, reason in kinds.items() if reason}
    together = {"all": ", ".join(f"{kind}: {reason}" for kind, reason in failed.items())} if kinds else {}
    return [
        attempted(
            "all", together, name="namespaces", fine=" ".join(kinds), remedy=_NAMESPACES_REMEDY, wall="container"
        ),
        attempted("namespace user", trial, name="user namespaces", fine="can be made", remedy=_USER_REMEDY),
    ]


def overlay(trial: dict[str, str]) -> HostCapability:
    """Whether overlayfs can be mounted."""
    return attempted(
        "overlay",
        trial,
        name="overlayfs",
        fine="can be mounted",
        remedy="Load the module (modprobe overlay).",
        wall="container",
    )


def system_call_filters() -> HostCapability:
    """Whether seccomp filters can be made and used."""
    kernel = Path("/proc/sys/kernel/seccomp/actions_avail").exists()
    library = seccomp.available()
    if kernel and library:
        return HostCapability(name="seccomp", ok=True, detail="kernel filters and libseccomp.so.2", wall="container")
    return HostCapability(
        name="seccomp",
        ok=False,
        detail="libseccomp.so.2 cannot be loaded" if kernel else "this kernel has no filters",
        remedy="apt install libseccomp2" if kernel else "Run on a kernel with CONFIG_SECCOMP_FILTER.",
        wall="container",
    )


def resource_limits(effective: int, files: int) -> HostCapability:
    """Whether limits can be raised for workloads, and how many files enisled may open."""
    may_raise = bool(effective & _SYS_RESOURCE)
    text = "unlimited" if files == resource.RLIM_INFINITY else str(files)
    enough = may_raise or files == resource.RLIM_INFINITY or files >= _WANTED_FILES
    detail = f"{'can' if may_raise else 'cannot'} be raised (CAP_SYS_RESOURCE); open files at most {text}"
    remedy = "" if may_raise else "Give enisled CAP_SYS_RESOURCE, or --ulimit is capped at the inherited hard limit."
    if not enough:
        remedy = f"Raise the limit of open files to {_WANTED_FILES} or more (LimitNOFILE= of the unit). {remedy}"
    return HostCapability(name="ulimits", ok=may_raise and enough, detail=detail, remedy=remedy)


def clock(seconds: float) -> HostCapability:
    """Whether the clock is plausible: registries' certificates depend on it."""
    ok = seconds > _EARLIEST_TIME
    return HostCapability(
        name="clock",
        ok=ok,
        detail=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds)),
        remedy="" if ok else "Set the clock (timedatectl set-ntp true): no certificate is valid at that time.",
    )
