"""InstanceSpec -> Docker's Config and HostConfig, as inspect shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enisle.api.docker.network_settings import network_mode
from enisle.api.docker.port_body import bindings_json
from enisle.engine.core import runtime_name
from enisle.model.instance import Healthcheck, InstanceSpec, Mount, MountKind
from enisle.model.resources import DeviceRate, DeviceRequest, Resources

DEFAULT_MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
DEFAULT_READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def config_json(spec: InstanceSpec, hostname: str) -> dict[str, Any]:
    """Config of inspect."""
    result: dict[str, Any] = {
        "Hostname": hostname,
        "Domainname": spec.domainname,
        "User": spec.user,
        "AttachStdin": spec.attach_stdin,
        "AttachStdout": spec.attach_stdout,
        "AttachStderr": spec.attach_stderr,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": list(spec.env),
        "Cmd": _list(spec.command),
        "Image": spec.image,
        "Volumes": {target: {} for target in spec.volumes} or None,
        "WorkingDir": spec.working_dir,
        "Entrypoint": _list(spec.entrypoint),
        "OnBuild": list(spec.on_build) or None,
        "Labels": spec.labels,
    }
    if spec.exposed_ports:
        result["ExposedPorts"] = {port: {} for port in spec.exposed_ports}
    if spec.mac_address:
        result["MacAddress"] = spec.mac_address
    if spec.network_disabled:
        result["NetworkDisabled"] = True
    if spec.stop_signal:
        result["StopSignal"] = spec.stop_signal
    if spec.stop_timeout_s is not None:
        result["StopTimeout"] = spec.stop_timeout_s
    if spec.shell:
        result["Shell"] = list(spec.shell)
    if spec.healthcheck is not None:
        result["Healthcheck"] = healthcheck_json(spec.healthcheck)
    return result


def healthcheck_json(check: Healthcheck) -> dict[str, Any]:
    """Members that say nothing are left out, as Go does."""
    values = {
        "Test": list(check.test),
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
        "Retries": check.retries,
    }
    return {name: value for name, value in values.items() if value}


def host_config_json(spec: InstanceSpec) -> dict[str, Any]:
    """HostConfig of inspect."""
    result: dict[str, Any] = {
        "Binds": [_bind_text(mount) for mount in spec.mounts if mount.origin == "bind"] or None,
        "ContainerIDFile": spec.container_id_file,
        "LogConfig": {"Type": spec.log.driver or "json-file", "Config": spec.log.options},
        "NetworkMode": network_mode(spec),
        "PortBindings": bindings_json(spec.ports),
        "RestartPolicy": {"Name": str(spec.restart.kind), "MaximumRetryCount": spec.restart.maximum_retries},
        "AutoRemove": spec.auto_remove,
        "VolumeDriver": spec.volume_driver,
        "VolumesFrom": list(spec.volumes_from) or None,
        "ConsoleSize": list(spec.console_size),
        "CapAdd": list(spec.cap_add) or None,
        "CapDrop": list(spec.cap_drop) or None,
        "CgroupnsMode": spec.cgroupns_mode or "private",
        "Dns": list(spec.dns),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.dns_search),
        "ExtraHosts": list(spec.extra_hosts) or None,
        "GroupAdd": list(spec.group_add) or None,
        "IpcMode": spec.ipc_mode or "private",
        "Cgroup": spec.cgroup,
        "Links": list(spec.links) or None,
        "OomScoreAdj": spec.oom_score_adj,
        "PidMode": spec.pid_mode,
        "Privileged": spec.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.read_only_root,
        "SecurityOpt": list(spec.security_options) or None,
        "UTSMode": spec.uts_mode,
        "UsernsMode": spec.userns_mode,
        "ShmSize": spec.shm_size_bytes,
        "Runtime": spec.runtime or runtime_name(spec.isolation),
        "Isolation": "default",  # the only one Linux has; not our wall, which is the runtime
        "MaskedPaths": _paths(spec.masked_paths, DEFAULT_MASKED_PATHS, privileged=spec.privileged),
        "ReadonlyPaths": _paths(spec.read_only_paths, DEFAULT_READ_ONLY_PATHS, privileged=spec.privileged),
    }
    result.update(_resources_json(spec.resources))
    result.update(_devices_json(spec))
    result.update(_optional(spec))
    return result


def _optional(spec: InstanceSpec) -> dict[str, Any]:
    """Members that are left out when they say nothing."""
    values: dict[str, Any] = {
        "Annotations": spec.annotations,
        "StorageOpt": spec.storage_options,
        "Sysctls": spec.sysctls,
        "Tmpfs": {mount.target: mount.mode_text for mount in spec.mounts if mount.origin == "tmpfs"},
        "Mounts": [_mount_json(mount) for mount in spec.mounts if mount.origin == "mount"],
    }
    result = {name: value for name, value in values.items() if value}
    if spec.init is not None:
        result["Init"] = spec.init
    return result


def _resources_json(limits: Resources) -> dict[str, Any]:
    return {
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_swap_bytes,
        "MemoryReservation": limits.memory_reservation_bytes,
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "NanoCpus": limits.nano_cpus,
        "CpuShares": limits.cpu_shares,
        "CpuQuota": limits.cpu_quota_us,
        "CpuPeriod": limits.cpu_period_us,
        "CpuRealtimePeriod": limits.cpu_realtime_period_us,
        "CpuRealtimeRuntime": limits.cpu_realtime_runtime_us,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "PidsLimit": limits.pids_limit,
        "BlkioWeight": limits.blkio_weight,
        "BlkioWeightDevice": [{"Path": device.path, "Weight": device.value} for device in limits.blkio_weight_devices],
        "BlkioDeviceReadBps": _rates(limits.blkio_read_bps),
        "BlkioDeviceWriteBps": _rates(limits.blkio_write_bps),
        "BlkioDeviceReadIOps": _rates(limits.blkio_read_iops),
        "BlkioDeviceWriteIOps": _rates(limits.blkio_write_iops),
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _devices_json(spec: InstanceSpec) -> dict[str, Any]:
    devices = spec.devices
    return {
        "CgroupParent": spec.cgroup_parent,
        "Devices": [
            {"PathOnHost": device.host_path, "PathInContainer": device.path, "CgroupPermissions": device.access}
            for device in devices.devices
        ],
        "DeviceCgroupRules": list(devices.cgroup_rules) or None,
        "DeviceRequests": [_request_json(request) for request in devices.requests] or None,
        "Ulimits": [{"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft} for limit in spec.ulimits],
    }


def _request_json(request: DeviceRequest) -> dict[str, Any]:
    return {
        "Driver": request.driver,
        "Count": request.count,
        "DeviceIDs": list(request.device_ids),
        "Capabilities": [list(words) for words in request.capabilities],
        "Options": dict(request.options),
    }


def _rates(devices: Sequence[DeviceRate]) -> list[dict[str, Any]]:
    return [{"Path": device.path, "Rate": device.value} for device in devices]


def _bind_text(mount: Mount) -> str:
    if not mount.source:
        return mount.target
    return ":".join(part for part in (mount.source, mount.target, mount.mode_text) if part)


def _mount_json(mount: Mount) -> dict[str, Any]:
    result: dict[str, Any] = {"Type": str(mount.kind), "Target": mount.target}
    if mount.source:
        result["Source"] = mount.source
    if mount.read_only:
        result["ReadOnly"] = True
    if mount.kind is MountKind.BIND and (options := _bind_options(mount)):
        result["BindOptions"] = options
    if mount.kind is MountKind.VOLUME and (
        mount.no_copy or mount.volume_labels or mount.volume_driver or mount.subpath
    ):
        result["VolumeOptions"] = {
            "NoCopy": mount.no_copy,
            "Labels": mount.volume_labels,
            "Subpath": mount.subpath,
            "DriverConfig": {"Name": mount.volume_driver, "Options": mount.volume_options},
        }
    if mount.kind is MountKind.IMAGE and mount.subpath:
        result["ImageOptions"] = {"Subpath": mount.subpath}
    if mount.kind is MountKind.TMPFS and (mount.tmpfs_size_bytes or mount.tmpfs_mode):
        result["TmpfsOptions"] = {"SizeBytes": mount.tmpfs_size_bytes, "Mode": mount.tmpfs_mode or 0}
    return result


def _bind_options(mount: Mount) -> dict[str, Any]:
    options = {
        "Propagation": mount.propagation,
        "NonRecursive": not mount.recursive,
        "CreateMountpoint": mount.create_source,
        "ReadOnlyNonRecursive": mount.read_only_top,
        "ReadOnlyForceRecursive": mount.read_only_forced,
    }
    return {name: value for name, value in options.items() if value}


def _list(words: Sequence[str] | None) -> list[str] | None:
    return None if words is None else list(words)


def _paths(given: Sequence[str] | None, default: Sequence[str], *, privileged: bool) -> list[str] | None:
    if given is not None:
        return list(given)
    return None if privileged else list(default)
