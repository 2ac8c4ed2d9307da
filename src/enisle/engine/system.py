"""Facts about this host and this engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from enisle.contracts import HostCapability, LayerUse
from enisle.model.image import Image
from enisle.model.instance import Instance
from enisle.model.volume import Volume


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskUsage:
    """``instances``: instance, bytes written, bytes of the whole root. ``volumes``: volume, bytes, users."""

    layers: LayerUse
    images: list[tuple[Image, int]] = field(default_factory=list)  # image, number of instances made from it
    instances: list[tuple[Instance, int, int]] = field(default_factory=list)
    volumes: list[tuple[Volume, int, int]] = field(default_factory=list)


class System:
    async def info(self) -> dict[str, Any]:
        """Facts: id, name, containers, running, paused, stopped, images, kernel_version, operating_system, os_version,
        architecture, cpus, memory_bytes, data_root, driver ("overlay2"), cgroup_driver, cgroup_version ("1"|"2"),
        runtimes (list), default_runtime, walls ({"container": {...}, "vm": {"accelerator": ...}}), warnings (list),
        debug, insecure_registries (list), live_restore (True), fds, goroutines (tasks), event_listeners, swap_limit,
        memory_limit, pids_limit, cpu_cfs, cpu_shares, cpuset, ipv4_forwarding, security_options (list), init_binary.
        """
        raise NotImplementedError

    def version(self) -> dict[str, Any]:
        """version, git_commit, build_time, python, os, arch, kernel_version."""
        raise NotImplementedError

    async def disk_usage(self) -> DiskUsage:
        raise NotImplementedError

    async def doctor(self) -> list[HostCapability]:
        raise NotImplementedError
