"""Flags of ``run`` and ``create`` -> the body of Docker's create request. Pure, but for reading the files named."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from enisle.cli import values
from enisle.cli.flags import Options, UsageError

Json = dict[str, Any]

_MODES = ("bridge", "none", "host", "default", "")


def create_body(options: Options, image: str, command: list[str], *, environ: Mapping[str, str]) -> Json:
    """Config, HostConfig and NetworkingConfig. Raises UsageError for flags that contradict each other."""
    _check(options)
    try:
        body = _config(options, image, command, environ)
        body["HostConfig"] = _host_config(options)
        body["NetworkingConfig"] = {"EndpointsConfig": _endpoints(options)}
    except ValueError as error:
        raise UsageError(str(error)) from error
    return body


def _check(options: Options) -> None:
    if options.vm and options.runtime not in (None, "vm"):
        raise UsageError(f"conflicting options: --vm and --runtime {options.runtime}")
    if options.vm and options.isolation == "container":
        raise UsageError("conflicting options: --vm and --isolation container")
    if options.rm and options.restart and options.restart["Name"] != "no":
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    if options.pull not in ("always", "missing", "never"):
        raise UsageError(f'invalid pull option: \'{options.pull}\': must be one of "always", "missing" or "never"')
    for stream in options.attach:
        if stream.lower() not in ("stdin", "stdout", "stderr"):
            raise UsageError("valid streams are STDIN, STDOUT and STDERR")
    health = [name for name in options.given if name.startswith("health-")]
    if options.no_healthcheck and health:
        raise UsageError("--no-healthcheck conflicts with --health-* options")


def _config(options: Options, image: str, command: list[str], environ: Mapping[str, str]) -> Json:
    attached = {stream.lower() for stream in options.attach}
    if not attached and not getattr(options, "detach", False):
        attached = {"stdout", "stderr"} | ({"stdin"} if options.interactive else set())
    config: Json = {
        "Image": image,
        "Hostname": options.hostname or "",
        "Domainname": options.domainname or "",
        "User": options.user or "",
        "AttachStdin": "stdin" in attached,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and "stdin" in attached,
        "Env": values.environment(options.env, options.env_file, environ),
        "WorkingDir": options.workdir or "",
        "Labels": values.pairs(options.label, options.label_file),
        "ExposedPorts": {port: {} for port in _exposed(options)},
    }
    if command:
        config["Cmd"] = command
    if options.entrypoint is not None:
        # An empty --entrypoint takes the image's away; Docker writes that as a list of one empty word.
        config["Entrypoint"] = [options.entrypoint]
    if volumes := [spec for spec in options.volume if ":" not in spec]:
        config["Volumes"] = {target: {} for target in volumes}
    if options.stop_signal:
        config["StopSignal"] = options.stop_signal
    if options.stop_timeout is not None:
        config["StopTimeout"] = options.stop_timeout
    if options.mac_address:
        config["MacAddress"] = options.mac_address
    if health := _healthcheck(options):
        config["Healthcheck"] = health
    return config


def _healthcheck(options: Options) -> Json | None:
    if options.no_healthcheck:
        return {"Test": ["NONE"]}
    if not any(name.startswith("health-") for name in options.given):
        return None
    return {
        "Test": ["CMD-SHELL", options.health_cmd] if options.health_cmd else [],
        "Interval": options.health_interval or 0,
        "Timeout": options.health_timeout or 0,
        "StartPeriod": options.health_start_period or 0,
        "StartInterval": options.health_start_interval or 0,
        "Retries": options.health_retries or 0,
    }


def _exposed(options: Options) -> list[str]:
    published = [port for binding in options.publish for port in binding]
    return [port for ports in options.expose for port in ports] + published


def _host_config(options: Options) -> Json:
    host: Json = {
        **_resources(options),
        "Binds": [spec for spec in options.volume if ":" in spec],
        "Mounts": options.mount,
        "Tmpfs": dict(options.tmpfs),
        "VolumesFrom": options.volumes_from,
        "VolumeDriver": options.volume_driver or "",
        "ContainerIDFile": options.cidfile or "",
        "NetworkMode": _network_mode(options),
        "PortBindings": _port_bindings(options),
        "PublishAllPorts": options.publish_all,
        "Links": options.link if not _user_network(options) else [],
        "Dns": options.dns,
        "DnsOptions": [*options.dns_opt, *options.dns_option],
        "DnsSearch": options.dns_search,
        "ExtraHosts": [_extra_host(text) for text in options.add_host],
        "AutoRemove": options.rm,
        "RestartPolicy": options.restart or {"Name": "no", "MaximumRetryCount": 0},
        "Privileged": options.privileged,
        "ReadonlyRootfs": options.read_only,
        "CapAdd": options.cap_add,
        "CapDrop": options.cap_drop,
        "SecurityOpt": [_security_option(text) for text in options.security_opt],
        "StorageOpt": values.pairs(options.storage_opt),
        "Sysctls": values.pairs(options.sysctl),
        "GroupAdd": options.group_add,
        "OomScoreAdj": options.oom_score_adj or 0,
        "PidMode": options.pid or "",
        "IpcMode": options.ipc or "",
        "UTSMode": options.uts or "",
        "UsernsMode": options.userns or "",
        "CgroupnsMode": options.cgroupns or "",
        "ShmSize": options.shm_size or 0,
        "LogConfig": {"Type": options.log_driver or "", "Config": values.pairs(options.log_opt)},
        "Annotations": values.pairs(options.annotation),
    }
    if "init" in options.given:
        host["Init"] = options.init
    runtime = "vm" if options.vm or options.isolation == "vm" else options.runtime
    if runtime:
        host["Runtime"] = runtime
    return host


def _resources(options: Options) -> Json:
    numbers = _changeable(options) | {
        "MemorySwappiness": options.memory_swappiness,
        "KernelMemory": options.kernel_memory,
        "OomKillDisable": options.oom_kill_disable or None,
        "BlkioWeightDevice": options.blkio_weight_device or None,
        "BlkioDeviceReadBps": options.device_read_bps or None,
        "BlkioDeviceWriteBps": options.device_write_bps or None,
        "BlkioDeviceReadIOps": options.device_read_iops or None,
        "BlkioDeviceWriteIOps": options.device_write_iops or None,
        "CgroupParent": options.cgroup_parent,
        "Devices": options.device or None,
        "DeviceCgroupRules": options.device_cgroup_rule or None,
        "DeviceRequests": options.gpus or None,
        "Ulimits": options.ulimit or None,
    }
    return {name: value for name, value in numbers.items() if value is not None}


def _changeable(options: Options) -> Json:
    """Limits that can be changed later."""
    return {
        "Memory": options.memory,
        "MemoryReservation": options.memory_reservation,
        "MemorySwap": options.memory_swap,
        "NanoCpus": options.cpus,
        "CpuShares": options.cpu_shares,
        "CpuPeriod": options.cpu_period,
        "CpuQuota": options.cpu_quota,
        "CpuRealtimePeriod": options.cpu_rt_period,
        "CpuRealtimeRuntime": options.cpu_rt_runtime,
        "CpusetCpus": options.cpuset_cpus,
        "CpusetMems": options.cpuset_mems,
        "PidsLimit": options.pids_limit,
        "BlkioWeight": options.blkio_weight,
    }


def update_body(options: Options) -> Json:
    """Flags of ``update`` -> the fields of HostConfig to change."""
    numbers = _changeable(options) | {"RestartPolicy": options.restart}
    return {name: value for name, value in numbers.items() if value is not None}


def _networks(options: Options) -> list[Json]:
    return [*options.network, *options.net]


def _network_mode(options: Options) -> str:
    chosen = _networks(options)
    return str(chosen[0]["name"]) if chosen else "default"


def _user_network(options: Options) -> bool:
    mode = _network_mode(options)
    return mode not in _MODES and not mode.startswith("container:")


def _endpoints(options: Options) -> dict[str, Json]:
    """EndpointsConfig: for each network, what was asked for on it. Flags beside --network hold for the first."""
    found = {}
    for index, chosen in enumerate(_networks(options)):
        settings = _endpoint(chosen)
        if index == 0:
            _add_flags(settings, options)
        if settings or index or _user_network(options):
            found[str(chosen["name"])] = settings
    if not found:
        settings = {}
        _add_flags(settings, options)
        if settings:
            found[_network_mode(options)] = settings
    return found


def _endpoint(chosen: Json) -> Json:
    addresses = {
        "IPv4Address": chosen.get("ip"),
        "IPv6Address": chosen.get("ip6"),
        "LinkLocalIPs": chosen.get("link-local-ip"),
    }
    settings = {
        "IPAMConfig": {name: value for name, value in addresses.items() if value},
        "Aliases": chosen.get("aliases"),
        "MacAddress": chosen.get("mac-address"),
        "DriverOpts": chosen.get("driver-opt"),
    }
    return {name: value for name, value in settings.items() if value}


def _add_flags(settings: Json, options: Options) -> None:
    addresses = {"IPv4Address": options.ip, "IPv6Address": options.ip6, "LinkLocalIPs": options.link_local_ip}
    if given := {name: value for name, value in addresses.items() if value}:
        settings["IPAMConfig"] = settings.get("IPAMConfig", {}) | given
    if aliases := [*options.network_alias, *options.net_alias]:
        settings["Aliases"] = settings.get("Aliases", []) + aliases
    if options.mac_address:
        settings["MacAddress"] = options.mac_address
    if options.link and _user_network(options):
        settings["Links"] = options.link


def _port_bindings(options: Options) -> Json:
    found: Json = {}
    for binding in options.publish:
        for port, hosts in binding.items():
            found.setdefault(port, []).extend(hosts)
    return found


def _extra_host(text: str) -> str:
    """HOST:IP or HOST=IP; IPv6 addresses may stand in brackets."""
    separator = "=" if "=" in text.partition(":")[0] else ":"
    name, found, address = text.partition(separator)
    if not name or not found or not address:
        raise ValueError(f"bad format for add-host: {text!r}")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    return f"{name}:{address}"


def _security_option(text: str) -> str:
    """A seccomp profile is sent as JSON, because the daemon does not read files for its clients."""
    name, _, value = text.partition("=" if "=" in text else ":")
    if name != "seccomp" or value in ("unconfined", "builtin", ""):
        return text
    try:
        with open(value, encoding="utf-8") as file:
            profile = json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"opening seccomp profile ({value}) failed: {error}") from error
    return "seccomp=" + json.dumps(profile, separators=(",", ":"))


def exec_body(options: Options, command: list[str], *, environ: Mapping[str, str]) -> Json:
    """Flags of ``exec`` -> Docker's ExecConfig."""
    try:
        variables = values.environment(options.env, options.env_file, environ)
    except ValueError as error:
        raise UsageError(str(error)) from error
    attach = not options.detach
    return {
        "Cmd": command,
        "Env": variables,
        "User": options.user or "",
        "WorkingDir": options.workdir or "",
        "Privileged": options.privileged,
        "Tty": options.tty,
        "AttachStdin": options.interactive and attach,
        "AttachStdout": attach,
        "AttachStderr": attach,
        "DetachKeys": options.detach_keys or "",
    }


def command_text(words: list[str]) -> str:
    """A command line as one text, quoted where needed."""
    return shlex.join(words)
