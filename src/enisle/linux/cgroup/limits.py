"""What limits are, and which file gets which value on either version. Pure: nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Limits(Protocol):
    """Bytes, microseconds and counts; 0 or None: leave as it is. Swap counts memory too, -1: unlimited.

    Block device limits are sequences of [path, major, minor, rate or weight].
    """

    memory_bytes: int
    memory_swap_bytes: int
    memory_reservation_bytes: int
    memory_swappiness: int | None
    kernel_memory_tcp_bytes: int
    oom_kill_disable: bool
    cpu_shares: int
    cpu_quota_us: int
    cpu_period_us: int
    cpuset_cpus: str
    cpuset_mems: str
    pids: int
    blkio_weight: int
    blkio_weight_devices: list[list[Any]]
    blkio_read_bps: list[list[Any]]
    blkio_write_bps: list[list[Any]]
    blkio_read_iops: list[list[Any]]
    blkio_write_iops: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Setting:
    """One file of a group and what goes into it. ``optional``: kernels without that file are fine."""

    controller: str
    file: str
    value: str
    optional: bool = False


def v1_settings(limits: Limits) -> list[Setting]:
    """Writes in the order in which a fresh group takes them."""
    found: list[Setting] = []

    def add(controller: str, file: str, value: object, *, optional: bool = False) -> None:
        found.append(Setting(controller, f"{controller}.{file}", str(value), optional))

    if limits.memory_bytes:
        add("memory", "limit_in_bytes", limits.memory_bytes)
    if limits.memory_swap_bytes:
        add("memory", "memsw.limit_in_bytes", limits.memory_swap_bytes, optional=True)
    if limits.memory_reservation_bytes:
        add("memory", "soft_limit_in_bytes", limits.memory_reservation_bytes)
    if limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
        add("memory", "swappiness", limits.memory_swappiness)
    if limits.kernel_memory_tcp_bytes:
        add("memory", "kmem.tcp.limit_in_bytes", limits.kernel_memory_tcp_bytes, optional=True)
    if limits.oom_kill_disable:
        add("memory", "oom_control", 1)
    if limits.cpu_shares:
        add("cpu", "shares", limits.cpu_shares)
    if limits.cpu_period_us:
        add("cpu", "cfs_period_us", limits.cpu_period_us)
    if limits.cpu_quota_us:
        add("cpu", "cfs_quota_us", limits.cpu_quota_us)
    if limits.cpuset_cpus:
        add("cpuset", "cpus", limits.cpuset_cpus)
    if limits.cpuset_mems:
        add("cpuset", "mems", limits.cpuset_mems)
    if limits.pids:
        add("pids", "max", limits.pids if limits.pids > 0 else "max")
    if limits.blkio_weight:
        add("blkio", "weight", limits.blkio_weight, optional=True)
        add("blkio", "bfq.weight", limits.blkio_weight, optional=True)
    for _path, major, minor, weight in limits.blkio_weight_devices:
        add("blkio", "weight_device", f"{major}:{minor} {weight}", optional=True)
        add("blkio", "bfq.weight_device", f"{major}:{minor} {weight}", optional=True)
    for file, rates in _throttles(limits, "throttle.{}_{}_device"):
        for _path, major, minor, rate in rates:
            add("blkio", file, f"{major}:{minor} {rate}")
    return found


def v2_settings(limits: Limits) -> list[Setting]:
    """Writes in the order in which a fresh group takes them."""
    found: list[Setting] = []

    def add(controller: str, file: str, value: object, *, optional: bool = False) -> None:
        found.append(Setting(controller, f"{controller}.{file}", str(value), optional))

    if limits.memory_bytes:
        add("memory", "max", limits.memory_bytes)
    if limits.memory_swap_bytes:
        add("memory", "swap.max", _swap_alone(limits), optional=True)
    if limits.memory_reservation_bytes:
        add("memory", "low", limits.memory_reservation_bytes)
    if limits.cpu_shares:
        add("cpu", "weight", weight_of_shares(limits.cpu_shares))
    if limits.cpu_quota_us or limits.cpu_period_us:
        quota = limits.cpu_quota_us if limits.cpu_quota_us > 0 else "max"
        add("cpu", "max", f"{quota} {limits.cpu_period_us or 100_000}")
    if limits.cpuset_cpus:
        add("cpuset", "cpus", limits.cpuset_cpus)
    if limits.cpuset_mems:
        add("cpuset", "mems", limits.cpuset_mems)
    if limits.pids:
        add("pids", "max", limits.pids if limits.pids > 0 else "max")
    if limits.blkio_weight:
        add("io", "bfq.weight", limits.blkio_weight, optional=True)
        add("io", "weight", io_weight(limits.blkio_weight), optional=True)
    for _path, major, minor, weight in limits.blkio_weight_devices:
        add("io", "bfq.weight", f"{major}:{minor} {weight}", optional=True)
        add("io", "weight", f"{major}:{minor} {io_weight(weight)}", optional=True)
    for file, rates in _throttles(limits, "{0}{1}"):
        key = {"readbps": "rbps", "writebps": "wbps", "readiops": "riops", "writeiops": "wiops"}[file]
        for _path, major, minor, rate in rates:
            add("io", "max", f"{major}:{minor} {key}={rate}")
    return found


def _throttles(limits: Limits, pattern: str) -> Sequence[tuple[str, list[list[Any]]]]:
    return (
        (pattern.format("read", "bps"), limits.blkio_read_bps),
        (pattern.format("write", "bps"), limits.blkio_write_bps),
        (pattern.format("read", "iops"), limits.blkio_read_iops),
        (pattern.format("write", "iops"), limits.blkio_write_iops),
    )


def _swap_alone(limits: Limits) -> int | str:
    """v2 counts swap without memory."""
    if limits.memory_swap_bytes < 0:
        return "max"
    return max(0, limits.memory_swap_bytes - limits.memory_bytes)


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1 to 10000) for cpu.shares (2 to 262144), linearly, as OCI runtimes do."""
    shares = min(max(shares, 2), 262_144)
    return 1 + (shares - 2) * 9999 // 262_142


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) for blkio.weight (10 to 1000), linearly."""
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990
