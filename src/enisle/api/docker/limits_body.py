"""Limits, devices and ulimits of create and update -> model, with dockerd's checks and words."""

from __future__ import annotations

import re

from enisle.api.docker import request_types as body
from enisle.errors import Conflict, Invalid
from enisle.model.instance import RestartKind, RestartPolicy
from enisle.model.resources import Device, DeviceRate, DeviceRequest, Devices, Resources, Ulimit

MINIMUM_MEMORY_BYTES = 6 << 20
_CPUSET = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")
_DEVICE_RULE = re.compile(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}")
_MAX_CPU_INDEX = 8192
_ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


def resources(limits: body.Limits, *, cpus: int, warnings: list[str]) -> Resources:
    """The limits. ``cpus`` is how many CPUs the host has. Raises Invalid; ``warnings`` grows by what is odd."""
    _check_memory(limits, warnings)
    _check_cpu(limits, cpus)
    _check_io(limits)
    return Resources(
        memory_bytes=limits.memory,
        memory_swap_bytes=limits.memory_swap,
        memory_reservation_bytes=limits.memory_reservation,
        memory_swappiness=None if limits.memory_swappiness == -1 else limits.memory_swappiness,
        kernel_memory_tcp_bytes=limits.kernel_memory_tcp,
        oom_kill_disable=limits.oom_kill_disable,
        nano_cpus=limits.nano_cpus,
        cpu_shares=limits.cpu_shares,
        cpu_quota_us=limits.cpu_quota,
        cpu_period_us=limits.cpu_period,
        cpu_realtime_period_us=limits.cpu_realtime_period,
        cpu_realtime_runtime_us=limits.cpu_realtime_runtime,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        pids_limit=limits.pids_limit,
        blkio_weight=limits.blkio_weight,
        blkio_weight_devices=tuple(DeviceRate(path=d.path, value=d.weight) for d in limits.blkio_weight_device),
        blkio_read_bps=_rates(limits.blkio_device_read_bps),
        blkio_write_bps=_rates(limits.blkio_device_write_bps),
        blkio_read_iops=_rates(limits.blkio_device_read_iops),
        blkio_write_iops=_rates(limits.blkio_device_write_iops),
    )


def _rates(devices: list[body.ThrottleDevice]) -> tuple[DeviceRate, ...]:
    return tuple(DeviceRate(path=device.path, value=device.rate) for device in devices)


def _check_memory(limits: body.Limits, warnings: list[str]) -> None:
    memory, swap, reservation = limits.memory, limits.memory_swap, limits.memory_reservation
    if memory != 0 and memory < MINIMUM_MEMORY_BYTES:
        raise Invalid("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
    if limits.memory_swappiness is not None and not -1 <= limits.memory_swappiness <= 100:
        raise Invalid(f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-100")
    if reservation != 0 and reservation < MINIMUM_MEMORY_BYTES:
        raise Invalid("Minimum memory reservation allowed is 6MB")
    if memory > 0 and reservation > memory:
        raise Invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
    if limits.oom_kill_disable and memory == 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )


def _check_cpu(limits: body.Limits, cpus: int) -> None:
    if limits.nano_cpus > 0 and limits.cpu_period > 0:
        raise Invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if limits.nano_cpus > 0 and limits.cpu_quota > 0:
        raise Invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if limits.nano_cpus < 0 or limits.nano_cpus > cpus * 10**9:
        raise Invalid(f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if limits.cpu_shares < 0:
        raise Invalid(f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer")
    if limits.cpu_period != 0 and not 1000 <= limits.cpu_period <= 1_000_000:
        raise Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < limits.cpu_quota < 1000:
        raise Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    _check_cpuset(limits.cpuset_cpus, "cpuset cpus")
    _check_cpuset(limits.cpuset_mems, "cpuset mems")


def _check_cpuset(text: str, what: str) -> None:
    if not text:
        return
    if not _CPUSET.fullmatch(text):
        raise Invalid(f"Invalid value {text[:100]} for {what}")
    for part in text.split(","):
        first, _, last = part.partition("-")
        if len(part) > 12 or int(last or first) < int(first) or int(last or first) > _MAX_CPU_INDEX:
            raise Invalid(f"Invalid value {text[:100]} for {what}")


def _check_io(limits: body.Limits) -> None:
    weights = [limits.blkio_weight, *(device.weight for device in limits.blkio_weight_device)]
    if any(weight != 0 and not 10 <= weight <= 1000 for weight in weights):
        raise Invalid("Range of blkio weight is from 10 to 1000")
    for device in (
        *limits.blkio_device_read_bps,
        *limits.blkio_device_write_bps,
        *limits.blkio_device_read_iops,
        *limits.blkio_device_write_iops,
    ):
        if device.rate < 0 or not device.path.startswith("/"):
            raise Invalid(f"invalid block device limit: {device.path}:{device.rate}")


def devices(limits: body.Limits) -> Devices:
    """Devices, device rules and device requests. Raises Invalid."""
    for rule in limits.device_cgroup_rules:
        if not _DEVICE_RULE.fullmatch(rule):
            raise Invalid(f"invalid device cgroup rule format: '{rule[:100]}'")
    return Devices(
        devices=tuple(_device(device) for device in limits.devices),
        cgroup_rules=tuple(limits.device_cgroup_rules),
        requests=tuple(
            DeviceRequest(
                driver=request.driver,
                count=request.count,
                device_ids=tuple(request.device_ids),
                capabilities=tuple(tuple(words) for words in request.capabilities),
                options=tuple((key, value or "") for key, value in request.options.items()),
            )
            for request in limits.device_requests
        ),
    )


def _device(device: body.DeviceMapping) -> Device:
    access = device.cgroup_permissions or "rwm"
    if not set(access) <= set("rwm") or len(set(access)) != len(access):
        raise Invalid(f"invalid device mode: {access[:20]}")
    if not device.path_on_host.startswith("/"):
        raise Invalid(
            f'error gathering device information while adding custom device "{device.path_on_host}": not a path'
        )
    return Device(host_path=device.path_on_host, path=device.path_in_container or device.path_on_host, access=access)


def ulimits(limits: body.Limits) -> tuple[Ulimit, ...]:
    """Raises Invalid for an unknown name or a soft limit above the hard one."""
    result = {}
    for limit in limits.ulimits:
        if limit.name not in _ULIMITS:
            raise Invalid(f"invalid ulimit type: {limit.name[:40]}")
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise Invalid(f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}")
        if limit.soft < -1 or limit.hard < -1:
            raise Invalid(f"invalid ulimit {limit.name}: limits are -1 or more")
        result[limit.name] = Ulimit(name=limit.name, soft=limit.soft, hard=limit.hard)
    return tuple(result.values())


def restart_policy(policy: body.RestartPolicy) -> RestartPolicy:
    """Raises Invalid in dockerd's words."""
    retries = policy.maximum_retry_count
    try:
        kind = RestartKind(policy.name or "no")
    except ValueError:
        raise Invalid(
            f"invalid restart policy: unknown policy '{policy.name[:40]}'; "
            "use one of 'no', 'always', 'on-failure', 'unhealthy', or 'unless-stopped'"
        ) from None
    negative = " and cannot be negative" if retries < 0 else ""
    if kind not in (RestartKind.ON_FAILURE, RestartKind.UNHEALTHY) and retries != 0:
        raise Invalid(f"invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}")
    if retries < 0:
        raise Invalid("invalid restart policy: maximum retry count cannot be negative")
    return RestartPolicy(kind=kind, maximum_retries=retries)


def merged(current: Resources, wanted: body.Limits) -> body.Limits:
    """The limits after an update: what the request leaves at zero stays as it is (dockerd's rule)."""

    def choose(new: int, old: int) -> int:
        return new or old

    result = body.Limits(
        memory=choose(wanted.memory, current.memory_bytes),
        memory_swap=choose(wanted.memory_swap, current.memory_swap_bytes),
        memory_reservation=choose(wanted.memory_reservation, current.memory_reservation_bytes),
        memory_swappiness=current.memory_swappiness,
        kernel_memory_tcp=choose(wanted.kernel_memory_tcp, current.kernel_memory_tcp_bytes),
        oom_kill_disable=current.oom_kill_disable,
        cpu_shares=choose(wanted.cpu_shares, current.cpu_shares),
        cpu_realtime_period=choose(wanted.cpu_realtime_period, current.cpu_realtime_period_us),
        cpu_realtime_runtime=choose(wanted.cpu_realtime_runtime, current.cpu_realtime_runtime_us),
        cpuset_cpus=wanted.cpuset_cpus or current.cpuset_cpus,
        cpuset_mems=wanted.cpuset_mems or current.cpuset_mems,
        pids_limit=current.pids_limit if wanted.pids_limit is None else wanted.pids_limit,
        blkio_weight=choose(wanted.blkio_weight, current.blkio_weight),
        blkio_weight_device=wanted.blkio_weight_device
        or [body.WeightDevice(path=d.path, weight=d.value) for d in current.blkio_weight_devices],
        blkio_device_read_bps=wanted.blkio_device_read_bps or _throttles(current.blkio_read_bps),
        blkio_device_write_bps=wanted.blkio_device_write_bps or _throttles(current.blkio_write_bps),
        blkio_device_read_iops=wanted.blkio_device_read_iops or _throttles(current.blkio_read_iops),
        blkio_device_write_iops=wanted.blkio_device_write_iops or _throttles(current.blkio_write_iops),
    )
    _merge_cpu_time(result, current, wanted)
    return result


def _throttles(rates: tuple[DeviceRate, ...]) -> list[body.ThrottleDevice]:
    return [body.ThrottleDevice(path=rate.path, rate=rate.value) for rate in rates]


def _merge_cpu_time(result: body.Limits, current: Resources, wanted: body.Limits) -> None:
    """Quota with period, and CPUs, are two ways to say one thing."""
    if wanted.nano_cpus and (current.cpu_quota_us or current.cpu_period_us):
        raise Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Quota/Period has already been set")
    if current.nano_cpus and (wanted.cpu_quota or wanted.cpu_period):
        raise Conflict("Conflicting options: CPU Quota/Period cannot be updated as NanoCPUs has already been set")
    result.nano_cpus = wanted.nano_cpus or current.nano_cpus
    result.cpu_quota = wanted.cpu_quota or current.cpu_quota_us
    result.cpu_period = wanted.cpu_period or current.cpu_period_us
    if wanted.memory and wanted.memory_swap == 0 and 0 < current.memory_swap_bytes < wanted.memory:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
