"""Facts about engine and host -> Docker's info and version."""

from __future__ import annotations

from typing import Any

from enisle.api.docker import versions
from enisle.model.runtime import OciRuntime

_LOOPBACK = ["::1/128", "127.0.0.0/8"]


def version_json(facts: dict[str, Any]) -> dict[str, Any]:
    """``GET /version``. ``facts`` as of engine.system.version."""
    version = facts.get("version", "")
    common = {
        "ApiVersion": versions.text(versions.MAXIMUM),
        "MinAPIVersion": versions.text(versions.MINIMUM),
        "Os": facts.get("os", "linux"),
        "Arch": facts.get("arch", ""),
        "KernelVersion": facts.get("kernel_version", ""),
        "BuildTime": facts.get("build_time", ""),
        "GitCommit": facts.get("git_commit", ""),
    }
    common["GoVersion"] = f"python{facts.get('python', '')}"  # clients print it as what the engine was made with
    details = {**common, "Experimental": "true"}
    return {
        "Platform": {"Name": "Enisle"},
        "Components": [{"Name": "Engine", "Version": version, "Details": details}],
        "Version": version,
        **common,
    }


def info_json(facts: dict[str, Any], version: dict[str, Any], *, system_time: str) -> dict[str, Any]:
    """``GET /info``. ``facts`` as of engine.system.info."""
    result: dict[str, Any] = {
        "ID": facts.get("id", ""),
        "Containers": facts.get("containers", 0),
        "ContainersRunning": facts.get("running", 0),
        "ContainersPaused": facts.get("paused", 0),
        "ContainersStopped": facts.get("stopped", 0),
        "Images": facts.get("images", 0),
        "Driver": facts.get("driver", "overlay2"),
        "DriverStatus": _driver_status(facts),
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": None,
            "Log": ["journald", "json-file", "local", "none"],
        },
        "SystemTime": system_time,
        "Name": facts.get("name", ""),
        "KernelVersion": facts.get("kernel_version", ""),
        "OperatingSystem": facts.get("operating_system", ""),
        "OSVersion": facts.get("os_version", ""),
        "OSType": "linux",
        "Architecture": facts.get("architecture", ""),
        "NCPU": facts.get("cpus", 0),
        "MemTotal": facts.get("memory_bytes", 0),
        "DockerRootDir": facts.get("data_root", ""),
        "ServerVersion": version.get("version", ""),
        "Warnings": facts.get("warnings") or None,
    }
    return {**result, **_abilities(facts), **_settings(facts), **_absent()}


def _driver_status(facts: dict[str, Any]) -> list[list[str]]:
    rows = [["Backing Filesystem", str(facts.get("backing_filesystem", "")) or "unknown"]]
    for wall, details in (facts.get("walls") or {}).items():
        words = (
            ", ".join(f"{key}: {value}" for key, value in details.items() if value) if isinstance(details, dict) else ""
        )
        rows.append([f"Wall {wall}", words or "available"])
    return rows


def _abilities(facts: dict[str, Any]) -> dict[str, Any]:
    """What the host's kernel can do."""
    return {
        "MemoryLimit": facts.get("memory_limit", True),
        "SwapLimit": facts.get("swap_limit", True),
        "CpuCfsPeriod": facts.get("cpu_cfs", True),
        "CpuCfsQuota": facts.get("cpu_cfs", True),
        "CPUShares": facts.get("cpu_shares", True),
        "CPUSet": facts.get("cpuset", True),
        "PidsLimit": facts.get("pids_limit", True),
        "OomKillDisable": str(facts.get("cgroup_version", "")) == "1",
        "IPv4Forwarding": facts.get("ipv4_forwarding", True),
        "BridgeNfIptables": True,
        "BridgeNfIp6tables": True,
        "CgroupDriver": facts.get("cgroup_driver", "cgroupfs"),
        "CgroupVersion": str(facts.get("cgroup_version", "")),
        "SecurityOptions": facts.get("security_options") or [],
    }


def _settings(facts: dict[str, Any]) -> dict[str, Any]:
    """How the engine is set up."""
    runtimes = facts.get("runtimes") or {}
    return {
        "Debug": facts.get("debug", False),
        "NFd": facts.get("fds", 0),
        "NGoroutines": facts.get("goroutines", 0),
        "NEventsListener": facts.get("event_listeners", 0),
        "LoggingDriver": "json-file",
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registry_config(facts.get("insecure_registries") or [], mirrors=facts.get("mirrors") or []),
        "Runtimes": {name: _runtime(runtime) for name, runtime in runtimes.items()},
        "DefaultRuntime": facts.get("default_runtime", ""),
        "LiveRestoreEnabled": facts.get("live_restore", True),
        "InitBinary": facts.get("init_binary", ""),
        "DefaultAddressPools": facts.get("address_pools") or [],
    }


def _runtime(runtime: OciRuntime) -> dict[str, Any]:
    return {"path": runtime.path, **({"runtimeArgs": list(runtime.options)} if runtime.options else {})}


def _registry_config(insecure: list[str], *, mirrors: list[str]) -> dict[str, Any]:
    shown = [f"{mirror.rstrip('/')}/" for mirror in mirrors]  # as dockerd writes them
    hub = {"Name": "docker.io", "Mirrors": shown, "Secure": True, "Official": True}
    index: dict[str, Any] = {"docker.io": hub}
    for name in insecure:
        index[name] = {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
    return {"InsecureRegistryCIDRs": _LOOPBACK, "IndexConfigs": index, "Mirrors": shown or None}


def _absent() -> dict[str, Any]:
    """What this engine has not, in the shape that clients expect."""
    commit = {"ID": "", "Expected": ""}
    return {
        "GenericResources": None,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Labels": [],
        "ExperimentalBuild": True,
        "Isolation": "",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "ContainerdCommit": commit,
        "RuncCommit": commit,
        "InitCommit": commit,
        "CDISpecDirs": [],
        "Containerd": {"Address": "", "Namespaces": {"Containers": "", "Plugins": ""}},
    }
