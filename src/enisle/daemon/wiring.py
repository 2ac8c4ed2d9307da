"""Plugging the adapters together: the only file that names them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enisle.contracts import Driver, HostCapability
from enisle.daemon.filewatch import watch_directory
from enisle.daemon.version import version
from enisle.drivers.container.driver import ContainerDriver
from enisle.drivers.container.facts import HostFacts, read_facts
from enisle.drivers.launcher import LauncherClient
from enisle.drivers.limits import LimitFacts, read_limit_facts
from enisle.drivers.vm.driver import VmDriver
from enisle.drivers.volumes.keeper import KeptVolumes
from enisle.engine.core import Settings
from enisle.engine.engine import Engine
from enisle.errors import EnisleError
from enisle.formats.reference import DEFAULT_DOMAIN
from enisle.images.registry.endpoints import RegistrySettings
from enisle.images.store import LocalImageStore
from enisle.linux.cgroup.choose import group
from enisle.linux.cgroup.layout import detect
from enisle.linux.cgroup.strays import remove_strays
from enisle.model.instance import Isolation
from enisle.model.runtime import OciRuntime
from enisle.network.bridge import BridgeNetworks
from enisle.state.sqlite import SqliteStore

if TYPE_CHECKING:
    from enisle.daemon.config import Config

log = logging.getLogger("enisle.daemon")


@dataclass
class Wired:
    """The engine, and the settings that its adapters go by."""

    config: Config
    images: LocalImageStore
    engine: Engine = field(init=False)

    def reconfigure(self, config: Config) -> None:
        """Have other registries and mirrors from the next request to them on; info tells of ``debug``, too."""
        self.config = config
        self.images.reconfigure(_registries(config))


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Wired]:
    """An engine on this host's adapters, reconciled. Closing it leaves the workloads running.

    Bridges, rules, resolver and launcher go only when nothing runs that needs them.
    """
    async with AsyncExitStack() as stack:
        store = await asyncio.to_thread(SqliteStore, config.data_root / "state.db")
        stack.push_async_callback(store.close)
        images = await LocalImageStore.open(config.data_root / "images", _registries(config))
        stack.push_async_callback(images.close)
        launcher = LauncherClient(config.run_root)
        opening = asyncio.create_task(launcher.open(), name="open launcher")
        networks = BridgeNetworks(
            store,
            name=config.name,
            run_root=config.run_root,
            default_subnet=config.network.subnet,
            default_ipv6=config.network.ipv6,
            address_pools=config.network.address_pools,
        )
        limits = read_limit_facts()
        walls = _Walls.of(config, launcher, read_facts(limits))
        warm = asyncio.create_task(walls.warm_up(_guest(config)), name="warm up")
        stack.callback(warm.cancel)
        volume_files = KeptVolumes(config.run_root)
        wired = Wired(config, images)
        engine = wired.engine = Engine(
            _settings(wired, walls, limits, warm),
            store=store,
            images=images,
            networks=networks,
            drivers=walls.drivers,
            volume_files=volume_files,
            watch_directory=watch_directory,
        )
        stack.push_async_callback(_close, config, engine, networks, launcher, volume_files)
        await engine.open(store_was_lost=store.restored)
        await opening
        yield wired


def _guest(config: Config) -> Path:
    """Where the VMs' kernel is assembled."""
    return config.data_root / "guest"


async def _close(
    config: Config, engine: Engine, networks: BridgeNetworks, launcher: LauncherClient, volume_files: KeptVolumes
) -> None:
    idle = not engine.has_running
    await engine.close()
    await networks.close(keep=not idle)
    await launcher.close(quit=idle)
    await volume_files.close(quit=idle)
    if idle:
        _remove_cgroup(config.name)


def _registries(config: Config) -> RegistrySettings:
    mirrors = {DEFAULT_DOMAIN: config.images.mirrors} if config.images.mirrors else {}
    return RegistrySettings(insecure=frozenset(config.images.insecure_registries), mirrors=mirrors)


@dataclass(frozen=True)
class _Walls:
    """The drivers of this host."""

    container: ContainerDriver
    vm: VmDriver

    @classmethod
    def of(cls, config: Config, launcher: LauncherClient, host: HostFacts) -> _Walls:
        common: dict[str, Any] = {
            "launcher": launcher,
            "run_root": config.run_root,
            "data_root": config.data_root,
            "cgroup_parent": config.name,
            "facts": host,
        }
        return cls(
            container=ContainerDriver(**common, userns=config.container.userns, runtimes=_runtimes(config)),
            vm=VmDriver(**common, accelerator=config.vm.accelerator or "auto"),
        )

    @property
    def drivers(self) -> dict[Isolation, Driver]:
        return {Isolation.CONTAINER: self.container, Isolation.VM: self.vm}

    async def warm_up(self, guest: Path) -> None:
        """Do what takes long ahead of the first start: the usual filter; kernel and accelerator, if built."""
        try:
            await self.container.warm_up()
            if (guest / "current").exists():
                await self.vm.warm_up()
        except EnisleError as error:
            log.warning("not everything could be prepared: %s", error)


def _backing(directory: Path) -> str:
    """The type of the file system under it, by the names that Docker has for them."""
    from enisle.doctor.storage import file_system

    kind = file_system(str(directory.resolve()), Path("/proc/self/mountinfo").read_text(errors="replace"))
    return {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs", "overlay": "overlayfs"}.get(kind, kind)


def _runtimes(config: Config) -> dict[str, OciRuntime]:
    return {
        name: OciRuntime(name=name, path=runtime.path, options=runtime.options)
        for name, runtime in config.runtimes.items()
    }


def _remove_cgroup(name: str) -> None:
    """Remove the group that all instances lie in; one that is still in use stays."""
    for directory in group(name).directories():
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    remove_strays(name)


def _settings(wired: Wired, walls: _Walls, limits: LimitFacts, warm: asyncio.Task[None]) -> Settings:
    config = wired.config

    async def facts() -> dict[str, Any]:
        accelerator, why = (
            await walls.vm.accelerator() if warm.done() and (_guest(config) / "current").exists() else ("", "")
        )
        return {
            "backing_filesystem": await asyncio.to_thread(_backing, config.data_root),
            "cgroup_version": str(detect().version),
            "memory_limit": limits.memory,
            "swap_limit": limits.swap,
            "pids_limit": limits.pids,
            "cpu_cfs": limits.cpu,
            "cpu_shares": limits.cpu,
            "cpuset": limits.cpuset,
            "debug": wired.config.debug,
            "insecure_registries": list(wired.config.images.insecure_registries),
            "mirrors": list(wired.config.images.mirrors),
            "security_options": [
                "name=seccomp,profile=builtin",
                *(["name=userns"] if config.container.userns == "private" else []),
            ],
            "walls": {"container": {}, "vm": {"accelerator": accelerator, "reason": why}},
        }

    async def doctor() -> list[HostCapability]:
        from enisle.doctor.report import report

        return await asyncio.to_thread(report, data_root=config.data_root, runtimes=_runtimes(config))

    return Settings(
        name=config.name,
        data_root=config.data_root,
        run_root=config.run_root,
        version=version(),
        default_runtime=config.default_runtime,
        runtimes=_runtimes(config),
        facts=facts,
        doctor=doctor,
    )
