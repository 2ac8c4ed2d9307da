"""What an instance may use: limits, devices, ulimits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceRate:
    """A limit or weight of one block device: ``value`` is bytes/s, operations/s or a weight."""

    path: str
    value: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Limits. 0, "" and None mean none was set. Memory in bytes; ``memory_swap_bytes`` counts memory and swap, -1 is
    unlimited. ``nano_cpus``: billionths of a CPU, an alternative to quota and period."""

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    memory_reservation_bytes: int = 0
    memory_swappiness: int | None = None
    kernel_memory_tcp_bytes: int = 0
    oom_kill_disable: bool = False
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    cpu_realtime_period_us: int = 0
    cpu_realtime_runtime_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None  # None: the default; 0 or -1: unlimited
    blkio_weight: int = 0
    blkio_weight_devices: tuple[DeviceRate, ...] = ()
    blkio_read_bps: tuple[DeviceRate, ...] = ()
    blkio_write_bps: tuple[DeviceRate, ...] = ()
    blkio_read_iops: tuple[DeviceRate, ...] = ()
    blkio_write_iops: tuple[DeviceRate, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device of the host to show inside; ``access`` is a subset of rwm."""

    host_path: str
    path: str
    access: str = "rwm"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceRequest:
    """A request for devices by driver and capability (GPUs)."""

    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] = ()
    capabilities: tuple[tuple[str, ...], ...] = ()
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Devices:
    """Devices and the cgroup rules beside them ("c 42:* rmw")."""

    devices: tuple[Device, ...] = ()
    cgroup_rules: tuple[str, ...] = ()
    requests: tuple[DeviceRequest, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ulimit:
    """``name`` as in limits.conf (nofile, nproc, core...); -1 is unlimited."""

    name: str
    soft: int
    hard: int
