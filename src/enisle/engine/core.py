"""What all use cases share: the adapters plugged in, the records in memory, the settings."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enisle.contracts import Driver, HostCapability, ImageStore, NetworkProvider, StateStore
from enisle.engine.events import Events
from enisle.engine.slots import Slot, Slots
from enisle.engine.volumes import Volumes
from enisle.errors import Invalid, NotFound
from enisle.model.ids import is_id_prefix
from enisle.model.instance import Instance, InstanceSpec, Isolation
from enisle.model.network import Network

WatchDirectory = Callable[[Path], AbstractContextManager[asyncio.Event]]
"""Watch a directory: the event is set at each change of a file in it; whoever waits clears it."""

_CONTAINER_RUNTIMES = frozenset({"", "enisle", "runc", "io.containerd.runc.v2"})
_VM_RUNTIMES = frozenset({"vm"})


async def _no_facts() -> dict[str, Any]:
    return {}


async def _no_capabilities() -> list[HostCapability]:
    return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """``name`` keeps several engines on one host apart. ``facts`` and ``doctor`` look at the host."""

    name: str = "enisle"
    data_root: Path
    run_root: Path
    version: str = "0.0.0"
    debug: bool = False
    insecure_registries: tuple[str, ...] = ()
    default_network: str = "bridge"
    facts: Callable[[], Awaitable[dict[str, Any]]] = _no_facts
    doctor: Callable[[], Awaitable[list[HostCapability]]] = _no_capabilities


@dataclass(kw_only=True)
class Core:
    """One per engine."""

    settings: Settings
    store: StateStore
    image_store: ImageStore
    network_provider: NetworkProvider
    drivers: dict[Isolation, Driver]
    watch_directory: WatchDirectory
    events: Events
    volumes: Volumes
    slots: Slots
    start_again: Callable[[Core, Slot, int], Awaitable[None]]  # what supervision calls, with the restart count
    end_sick: Callable[[Core, Slot], Coroutine[Any, Any, None]]  # what a failed health check calls
    image_claims: Counter[str] = field(default_factory=Counter)  # images of instances that are being created
    image_lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # look up and claim, or check and remove
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    closing: bool = False

    def directory(self, instance_id: str) -> Path:
        """data_root/instances/<id>."""
        return self.settings.data_root / "instances" / instance_id

    def keeper_directory(self, instance_id: str) -> Path:
        """run_root/instances/<id[:16]>."""
        return self.settings.run_root / "instances" / instance_id[:16]

    def driver(self, instance: Instance | InstanceSpec) -> Driver:
        """The wall of an instance or a spec."""
        spec = instance.spec if isinstance(instance, Instance) else instance
        driver = self.drivers.get(spec.isolation)
        if driver is None:
            raise Invalid(f"unknown or invalid runtime name: {spec.runtime or spec.isolation.value}")
        return driver

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run it beside; the engine waits for it or cancels it when it closes."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def unhurried(self, work: Coroutine[Any, Any, Any], *, name: str) -> Any:
        """Do it to its end even if the client that asked for it goes away meanwhile."""
        return await asyncio.shield(self.spawn(work, name=name))

    async def network(self, ref: str) -> Network:
        """By name, id or id prefix. NotFound: "network X not found"."""
        networks = await self.network_provider.all()
        for network in networks:
            if ref in (network.name, network.id):
                return network
        found = [network for network in networks if is_id_prefix(ref) and network.id.startswith(ref)]
        if len(found) == 1:
            return found[0]
        if found:
            raise Invalid(f"network {ref} is ambiguous ({len(found)} matches found based on ID prefix)")
        raise NotFound(f"network {ref} not found")


def default_runtime(isolation: Isolation) -> str:
    """The name shown of a wall that was chosen without one; clients know runc."""
    return "vm" if isolation is Isolation.VM else "runc"


def isolation_of(runtime: str) -> Isolation:
    """The wall a runtime name stands for. Invalid in Docker's wording."""
    if runtime in _CONTAINER_RUNTIMES:
        return Isolation.CONTAINER
    if runtime in _VM_RUNTIMES:
        return Isolation.VM
    raise Invalid(f"unknown or invalid runtime name: {runtime}")
