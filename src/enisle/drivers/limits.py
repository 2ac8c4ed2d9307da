"""Limits: what the user asked for, checked in Docker's words and made into a plan. The same for both walls."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from enisle.errors import Invalid
from enisle.linux.cgroup.layout import detect
from enisle.model.resources import DeviceRate, Resources
from enisle.wire.plans import LimitsPlan

MINIMUM_MEMORY_BYTES = 6 << 20
DEFAULT_PIDS = 4096
CPU_PERIOD_US = 100_000
_CPU_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitFacts:
    """What this host can limit: cgroup controllers by their names, swap accounting, CPUs and memory nodes."""

    memory: bool = True
    swap: bool = True
    oom_control: bool = True  # v1 only: the OOM killer can be switched off
    swappiness: bool = True  # v1 only
    cpu: bool = True
    cpuset: bool = True
    pids: bool = True
    io: bool = True
    io_weight: bool = True
    cpus: frozenset[int] = frozenset({0})
    nodes: frozenset[int] = frozenset({0})


def read_limit_facts() -> LimitFacts:
    """The facts of this host."""
    layout = detect()
    controllers = layout.controllers()
    v1 = layout.version == 1

    def has(controller: str, *files: str) -> bool:
        mount = layout.v1.get(controller, "")
        return controller in controllers and (not v1 or any(os.path.exists(f"{mount}/{file}") for file in files))

    return LimitFacts(
        memory="memory" in controllers,
        swap=has("memory", "memory.memsw.limit_in_bytes"),
        oom_control=v1 and has("memory", "memory.oom_control"),
        swappiness=v1 and has("memory", "memory.swappiness"),
        cpu=has("cpu", "cpu.cfs_quota_us"),
        cpuset="cpuset" in controllers,
        pids="pids" in controllers,
        io="blkio" in controllers or "io" in controllers,
        io_weight="io" in controllers or ("blkio" in controllers and has_weights(layout.v1.get("blkio", ""))),
        cpus=_online("/sys/devices/system/cpu/online"),
        nodes=_online("/sys/devices/system/node/online"),
    )


def has_weights(mount: str) -> bool:
    """The top group of cgroup v1 has no weight of BFQ, those below it have; without any below it nobody knows."""
    below = [entry.path for entry in os.scandir(mount) if entry.is_dir()][:1]
    files = ("blkio.weight", "blkio.bfq.weight")
    return not below or any(os.path.exists(f"{group}/{file}") for group in (mount, *below) for file in files)


def _online(path: str) -> frozenset[int]:
    try:
        with open(path, encoding="ascii") as file:
            return cpu_set(file.read().strip())
    except (OSError, ValueError):
        return frozenset({0})


def cpu_set(text: str) -> frozenset[int]:
    """The members of a list such as ``0-2,7``. ValueError when it is none."""
    if not _CPU_LIST.fullmatch(text):
        raise ValueError(text)
    members: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if len(first) > 5 or len(last) > 5:
            raise ValueError(text)
        members |= set(range(int(first), int(last or first) + 1))
    return frozenset(members)


def limits_plan(resources: Resources) -> LimitsPlan:
    """The cgroup limits of an instance. Docker's defaults: twice the memory with swap; nano CPUs as quota."""
    period, quota = resources.cpu_period_us, resources.cpu_quota_us
    if resources.nano_cpus:
        period = CPU_PERIOD_US
        quota = resources.nano_cpus * CPU_PERIOD_US // 1_000_000_000
    swap = resources.memory_swap_bytes
    if resources.memory_bytes and not swap:
        swap = 2 * resources.memory_bytes
    pids = DEFAULT_PIDS if resources.pids_limit is None else resources.pids_limit or -1
    return LimitsPlan(
        memory_bytes=resources.memory_bytes,
        memory_swap_bytes=swap,
        memory_reservation_bytes=resources.memory_reservation_bytes,
        memory_swappiness=None if resources.memory_swappiness == -1 else resources.memory_swappiness,
        kernel_memory_tcp_bytes=resources.kernel_memory_tcp_bytes,
        oom_kill_disable=resources.oom_kill_disable,
        cpu_shares=resources.cpu_shares,
        cpu_quota_us=quota,
        cpu_period_us=period,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        pids=pids,
        blkio_weight=resources.blkio_weight,
        blkio_weight_devices=_rates(resources.blkio_weight_devices),
        blkio_read_bps=_rates(resources.blkio_read_bps),
        blkio_write_bps=_rates(resources.blkio_write_bps),
        blkio_read_iops=_rates(resources.blkio_read_iops),
        blkio_write_iops=_rates(resources.blkio_write_iops),
    )


def _rates(rates: Iterable[DeviceRate]) -> list[list[Any]]:
    planned = []
    for rate in rates:
        try:
            status = os.stat(rate.path)
        except OSError as error:
            raise Invalid(f"no such device: {rate.path}: {error.strerror}") from error
        if not stat.S_ISBLK(status.st_mode):
            raise Invalid(f"{rate.path} is not a block device")
        planned.append([rate.path, os.major(status.st_rdev), os.minor(status.st_rdev), rate.value])
    return planned


def check(resources: Resources, facts: LimitFacts) -> list[str]:
    """Warnings about what this host cannot limit. Invalid for what no host can."""
    return [
        *_check_memory(resources, facts),
        *_check_pids(resources, facts),
        *_check_cpu(resources, facts),
        *_check_cpuset(resources, facts),
        *_check_io(resources, facts),
    ]


def _check_memory(resources: Resources, facts: LimitFacts) -> list[str]:
    memory, swap = resources.memory_bytes, resources.memory_swap_bytes
    reservation, swappiness = resources.memory_reservation_bytes, resources.memory_swappiness
    if memory < 0 or reservation < 0 or swap < -1:
        raise Invalid("memory limits must not be negative")
    if 0 < memory < MINIMUM_MEMORY_BYTES:
        raise Invalid("Minimum memory limit allowed is 6MB")
    if memory and 0 < swap < memory:
        raise Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not memory and swap > 0:
        raise Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise Invalid(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < reservation < MINIMUM_MEMORY_BYTES:
        raise Invalid("Minimum memory reservation allowed is 6MB")
    if memory and reservation > memory:
        raise Invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
    missing = "capabilities or the cgroup is not mounted."
    warnings = []
    if memory and not facts.memory:
        warnings.append(f"Your kernel does not support memory limit {missing} Limitation discarded.")
    elif memory and swap != -1 and not facts.swap:
        warnings.append(f"Your kernel does not support swap limit {missing} Memory limited without swap.")
    if swappiness not in (None, -1) and not facts.swappiness:
        warnings.append(
            "Your kernel does not support memory swappiness capabilities, or the cgroup is not mounted. "
            "Memory swappiness discarded."
        )
    if reservation and not facts.memory:
        warnings.append(f"Your kernel does not support memory soft limit {missing} Limitation discarded.")
    if resources.oom_kill_disable and not facts.oom_control:
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    elif resources.oom_kill_disable and not memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    return warnings


def _check_pids(resources: Resources, facts: LimitFacts) -> list[str]:
    if resources.pids_limit and resources.pids_limit > 0 and not facts.pids:
        return [
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."
        ]
    return []


def _check_cpu(resources: Resources, facts: LimitFacts) -> list[str]:
    nano, quota, period = resources.nano_cpus, resources.cpu_quota_us, resources.cpu_period_us
    if nano and period:
        raise Invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if nano and quota:
        raise Invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    count = len(facts.cpus)
    if nano and not 0 < nano <= count * 1_000_000_000:
        raise Invalid(f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if period and not 1000 <= period <= 1_000_000:
        raise Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < quota < 1000:
        raise Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if resources.cpu_realtime_period_us or resources.cpu_realtime_runtime_us:
        raise Invalid("Your kernel does not support CPU real-time scheduler")
    warnings = []
    if resources.cpu_shares and not facts.cpu:
        warnings.append("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.")
    if (nano or period or quota > 0) and not facts.cpu:
        warnings.append("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
    return warnings


def _check_cpuset(resources: Resources, facts: LimitFacts) -> list[str]:
    asked = [
        (resources.cpuset_cpus, "cpus", "CPUs", facts.cpus),
        (resources.cpuset_mems, "mems", "memory nodes", facts.nodes),
    ]
    for text, name, what, there in asked:
        if not text:
            continue
        try:
            members = cpu_set(text)
        except ValueError:
            raise Invalid(f"Invalid value {text} for cpuset {name}") from None
        if not members <= there:
            available = ",".join(str(member) for member in sorted(there))
            raise Invalid(f"Requested {what} are not available - requested {text}, available: {available}")
    if (resources.cpuset_cpus or resources.cpuset_mems) and not facts.cpuset:
        return ["Your kernel does not support cpuset or the cgroup is not mounted. CPUset discarded."]
    return []


def _check_io(resources: Resources, facts: LimitFacts) -> list[str]:
    weights = [resources.blkio_weight] if resources.blkio_weight else []
    weights += [rate.value for rate in resources.blkio_weight_devices]
    if any(not 10 <= weight <= 1000 for weight in weights):
        raise Invalid("Range of blkio weight is from 10 to 1000")
    if weights and not facts.io_weight:
        return ["Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."]
    rates = (
        resources.blkio_read_bps + resources.blkio_write_bps + resources.blkio_read_iops + resources.blkio_write_iops
    )
    if rates and not facts.io:
        return ["Your kernel does not support Block I/O limits or the cgroup is not mounted. Limits discarded."]
    return []
