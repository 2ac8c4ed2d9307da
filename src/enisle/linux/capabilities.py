"""Capabilities (capabilities(7)): names, and what a process keeps."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from enisle.linux.syscalls import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    c_function,
    fail,
    prctl,
)

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
"""Index is the capability's number."""

_NUMBERS = {name: number for number, name in enumerate(NAMES)}
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_capset = c_function("capset", ctypes.POINTER(_Header), ctypes.POINTER(_Data * 2))


def last_capability() -> int:
    """The highest capability this kernel knows."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
            return int(file.read())
    except OSError:
        return len(NAMES) - 1


LAST = last_capability()  # read when imported: a process inside an instance must not trust its /proc


def mask(names: Iterable[str]) -> int:
    """The bit set of those names; a name this kernel does not know is left out. KeyError for one that is none."""
    return sum(1 << _NUMBERS[name] for name in set(names) if _NUMBERS[name] <= LAST)


def effective() -> int:
    """The bit set this process has now."""
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapEff:"):
                return int(line.split()[1], 16)
    return 0


_OWN = effective()


def held(wanted: int) -> int:
    """What of a bit set this process could give on."""
    return wanted & _OWN


def limit_bounding(keep: int) -> None:
    """Drop from the bounding set all that is not in ``keep``, and clear the ambient set. Needs CAP_SETPCAP."""
    for number in range(LAST + 1):
        if not keep & 1 << number:
            prctl(PR_CAPBSET_DROP, number)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def set_current(keep: int) -> None:
    """Permitted and effective become ``keep`` as far as we have it, inheritable none (CVE-2022-24769)."""
    keep = held(keep)
    header = _Header(_VERSION_3, 0)
    low, high = keep & 0xFFFFFFFF, keep >> 32
    data = (_Data * 2)(_Data(low, low, 0), _Data(high, high, 0))
    if _capset(ctypes.byref(header), ctypes.byref(data)) < 0:
        raise fail("capset")
