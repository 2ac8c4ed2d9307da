"""Plugging the adapters together: the only file that names them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from enisle.contracts import Driver, HostCapability
from enisle.daemon.filewatch import watch_directory
from enisle.daemon.version import version
from enisle.drivers.container.driver import ContainerDriver
from enisle.drivers.container.facts import read_facts
from enisle.drivers.launcher import LauncherClient
from enisle.drivers.limits import LimitFacts, read_limit_facts
from enisle.drivers.vm.driver import VmDriver
from enisle.engine.core import Settings
from enisle.engine.engine import Engine
from enisle.images.store import LocalImages
from enisle.linux.cgroup.choose import group
from enisle.linux.cgroup.layout import detect
from enisle.model.instance import Isolation
from enisle.network.bridge import BridgeNetworks
from enisle.state.sqlite import SqliteStore

if TYPE_CHECKING:
    from enisle.daemon.config import Config

log = logging.getLogger("enisle.daemon")


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Engine]:
    """An engine on this host's adapters, reconciled. Closing it leaves the workloads running.

    Bridges, rules, resolver and launcher go only when nothing runs that needs them.
    """
    loop = asyncio.get_running_loop()
    store = await loop.run_in_executor(None, SqliteStore, config.data_root / "state.db")
    launcher = LauncherClient(config.run_root)
    limits = read_limit_facts()
    images = LocalImages(config.data_root / "images", insecure_registries=config.images.insecure_registries)
    networks = BridgeNetworks(store, name=config.name, run_root=config.run_root, default_subnet=config.network.subnet)
    drivers = _drivers(config, launcher, limits)
    engine = Engine(
        _settings(config, limits, drivers),
        store=store,
        images=images,
        networks=networks,
        drivers=drivers,
        watch_directory=watch_directory,
    )
    opening = asyncio.create_task(launcher.open())
    try:
        await engine.open(store_was_lost=store.restored)
        await opening
        yield engine
    finally:
        opening.cancel()
        idle = not engine.has_running
        await engine.close()
        await networks.close(keep=not idle)
        await images.close()
        await launcher.close(quit=idle)
        await store.close()
        if idle:
            _remove_cgroup(config.name)


def _drivers(config: Config, launcher: LauncherClient, limits: LimitFacts) -> dict[Isolation, Driver]:
    common: dict[str, Any] = {
        "launcher": launcher,
        "run_root": config.run_root,
        "data_root": config.data_root,
        "cgroup_parent": config.name,
    }
    return {
        Isolation.CONTAINER: ContainerDriver(**common, facts=read_facts(limits)),
        Isolation.VM: VmDriver(**common),
    }


def _remove_cgroup(name: str) -> None:
    """Remove the group that all instances lie in; one that is still in use stays."""
    for directory in group(name).directories():
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def _settings(config: Config, limits: LimitFacts, drivers: dict[Isolation, Driver]) -> Settings:
    async def facts() -> dict[str, Any]:
        return {
            "cgroup_version": str(detect().version),
            "memory_limit": limits.memory,
            "swap_limit": limits.swap,
            "pids_limit": limits.pids,
            "cpu_cfs": limits.cpu,
            "cpu_shares": limits.cpu,
            "cpuset": limits.cpuset,
        }

    async def doctor() -> list[HostCapability]:
        from enisle.doctor.report import report

        return await asyncio.to_thread(report, data_root=config.data_root)

    return Settings(
        name=config.name,
        data_root=config.data_root,
        run_root=config.run_root,
        debug=config.debug,
        insecure_registries=config.images.insecure_registries,
        version=version(),
        facts=facts,
        doctor=doctor,
    )
