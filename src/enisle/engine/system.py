"""Facts about this host and this engine."""

from __future__ import annotations

import asyncio
import os
import platform
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enisle.contracts import HostCapability, StoreUse
from enisle.engine.core import Core, default_runtime
from enisle.engine.volumes import Volumes
from enisle.errors import NotFound
from enisle.linux.disk_usage import allocated_bytes
from enisle.model.ids import new_id
from enisle.model.image import Image
from enisle.model.instance import Instance, Isolation, Status
from enisle.model.runtime import OciRuntime
from enisle.model.volume import Volume

KINDS = frozenset({"image", "container", "volume"})


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskUsage:
    """``instances``: instance, bytes on the disk (logs too), and with its image. ``volumes``: volume, bytes, users."""

    store: StoreUse = field(default_factory=StoreUse)
    images: list[tuple[Image, int]] = field(default_factory=list)  # image, number of instances made from it
    instances: list[tuple[Instance, int, int]] = field(default_factory=list)
    volumes: list[tuple[Volume, int, int]] = field(default_factory=list)


class System:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._id = ""
        self._measuring = asyncio.Lock()

    async def info(self) -> dict[str, Any]:
        """Facts: id, name, containers, running, paused, stopped, images, kernel_version, operating_system, os_version,
        architecture, cpus, memory_bytes, data_root, driver ("overlay2"), cgroup_driver, cgroup_version ("1"|"2"),
        runtimes (by name), default_runtime, walls ({"container": {...}, "vm": {"accelerator": ...}}), warnings (list),
        debug, insecure_registries (list), live_restore (True), fds, goroutines (tasks), event_listeners, swap_limit,
        memory_limit, pids_limit, cpu_cfs, cpu_shares, cpuset, ipv4_forwarding, security_options (list), init_binary.
        """
        core = self._core
        counts = Counter(slot.status for slot in core.slots)
        running, paused = counts[Status.RUNNING] + counts[Status.RESTARTING], counts[Status.PAUSED]
        facts: dict[str, Any] = {
            "id": self.host_id(),
            "name": self.host_name(),
            "containers": len(core.slots),
            "running": running,
            "paused": paused,
            "stopped": len(core.slots) - running - paused,
            "images": len(await core.image_store.all()),
            "kernel_version": platform.release(),
            "architecture": platform.machine(),
            "cpus": os.cpu_count() or 1,
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "data_root": str(core.settings.data_root),
            "driver": "overlay2",
            "cgroup_driver": "cgroupfs",
            "cgroup_version": "1",
            "runtimes": _runtimes(core),
            "default_runtime": default_runtime(core.settings),
            "walls": {isolation.value: {} for isolation in core.drivers},
            "warnings": [],
            "debug": False,
            "insecure_registries": [],
            "live_restore": True,
            "fds": len(os.listdir("/proc/self/fd")),
            "goroutines": len(asyncio.all_tasks()),
            "event_listeners": core.events.listeners,
            "memory_limit": True,
            "swap_limit": True,
            "pids_limit": True,
            "cpu_cfs": True,
            "cpu_shares": True,
            "cpuset": True,
            "ipv4_forwarding": _reads_one("/proc/sys/net/ipv4/ip_forward"),
            "security_options": ["name=seccomp,profile=builtin"],
            "init_binary": "enisle-init",
            **_os_release(),
        }
        return facts | await core.settings.facts()

    def host_name(self) -> str:
        """The host's, as info and events tell it."""
        return platform.node()

    def host_id(self) -> str:
        """A stable id of this engine, made on first use."""
        if not self._id:
            path = self._core.settings.data_root / "engine-id"
            try:
                self._id = path.read_text().strip()
            except OSError:
                self._id = new_id()
                path.write_text(self._id + "\n")
        return self._id

    def version(self) -> dict[str, Any]:
        """version, git_commit, build_time, python, os, arch, kernel_version."""
        return {
            "version": self._core.settings.version,
            "git_commit": "",
            "build_time": "",
            "python": platform.python_version(),
            "os": "linux",
            "arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
            "kernel_version": platform.release(),
        }

    async def disk_usage(self, wanted: Set[str] = KINDS) -> DiskUsage:
        """What du(1) says of everything of these kinds; reads the whole of each instance's directory and volume.

        One at a time: whoever asks meanwhile waits, so that impatient callers do not keep the disk busy.
        """
        core = self._core
        async with self._measuring:
            images = await core.image_store.all() if wanted & {"image", "container"} else []
            return DiskUsage(
                store=await core.image_store.usage() if "image" in wanted else StoreUse(),
                images=[(image, len(core.slots.of_image(image.id))) for image in images],
                instances=await self._instances(images) if "container" in wanted else [],
                volumes=await _volumes(core.volumes) if "volume" in wanted else [],
            )

    async def _instances(self, images: list[Image]) -> list[tuple[Instance, int, int]]:
        sizes: dict[str, int] = {image.id: image.size_bytes for image in images}
        found = []
        for record in self._core.slots.newest_first():
            written = await asyncio.to_thread(allocated_bytes, self._core.directory(record.id))
            if record.id in self._core.slots:
                found.append((record, written, written + sizes.get(record.spec.image_id, 0)))
        return found

    async def doctor(self) -> list[HostCapability]:
        return await self._core.settings.doctor()


async def _volumes(volumes: Volumes) -> list[tuple[Volume, int, int]]:
    found = []
    for volume in volumes.all():
        try:
            found.append((volume, await volumes.size(volume.name), len(volumes.in_use_by(volume.name))))
        except NotFound:
            continue
    return found


def _runtimes(core: Core) -> dict[str, OciRuntime]:
    """All that --runtime takes: our own walls have no program, and stand there with their name as path."""
    own = ["enisle", "runc", *(["vm"] if Isolation.VM in core.drivers else [])]
    return {name: OciRuntime(name=name, path=name) for name in own} | dict(core.settings.runtimes)


def _os_release() -> dict[str, str]:
    """os-release(5)'s PRETTY_NAME and VERSION_ID."""
    try:
        values = platform.freedesktop_os_release()
    except OSError:
        values = {}
    return {"operating_system": values.get("PRETTY_NAME", "Linux"), "os_version": values.get("VERSION_ID", "")}


def _reads_one(path: str) -> bool:
    try:
        return Path(path).read_text().strip() == "1"
    except OSError:
        return False
