"""What a container's plan has to know of the host, read once per enisled, so that plans are pure."""

from __future__ import annotations

import functools
import glob
import os
from dataclasses import dataclass, field

from enisle.drivers.limits import LimitFacts

# In the order of their numbers (linux/capability.h).
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()

# What tells of the host's hardware and kernel, or controls them: Docker's and Podman's lists together.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
)
_MASKED_PATTERN = "/sys/devices/system/cpu/cpu*/thermal_throttle"
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, kw_only=True, slots=True)
class HostFacts:
    """``capabilities``: those we hold and so can give. ``masked_paths``: those of the lists that are there."""

    capabilities: tuple[str, ...] = tuple(CAPABILITIES)
    known_capabilities: tuple[str, ...] = tuple(CAPABILITIES)
    masked_paths: tuple[str, ...] = MASKED_PATHS
    read_only_paths: tuple[str, ...] = READ_ONLY_PATHS
    limits: LimitFacts = field(default_factory=LimitFacts)
    apparmor: bool = False
    nodename: str = "localhost"


def read_facts(limits: LimitFacts) -> HostFacts:
    """The facts of this host."""
    last = int(_first_line("/proc/sys/kernel/cap_last_cap") or len(CAPABILITIES) - 1)
    known = CAPABILITIES[: last + 1]
    bounding = _bounding_set()
    return HostFacts(
        capabilities=tuple(name for number, name in enumerate(known) if bounding >> number & 1),
        known_capabilities=tuple(known),
        masked_paths=tuple(path for path in MASKED_PATHS if os.path.exists(path))
        + tuple(sorted(glob.glob(_MASKED_PATTERN))),
        read_only_paths=tuple(path for path in READ_ONLY_PATHS if os.path.exists(path)),
        limits=limits,
        apparmor=_first_line("/sys/module/apparmor/parameters/enabled") == "Y",
        nodename=os.uname().nodename,
    )


def _bounding_set() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapBnd:"):
                return int(line.split()[1], 16)
    return (1 << len(CAPABILITIES)) - 1


@functools.cache
def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""
