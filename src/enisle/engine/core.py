"""What all use cases share: the adapters plugged in, the records in memory, the settings."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
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
from enisle.model.runtime import OciRuntime, plain_name

WatchDirectory = Callable[[Path], AbstractContextManager[asyncio.Event]]
"""Watch a directory: the event is set at each change of a file in it; whoever waits clears it."""

_OWN_CONTAINER = "enisle"
_CONTAINER_RUNTIMES = frozenset({"", _OWN_CONTAINER, "runc"})
_VM_RUNTIME = "vm"


async def _no_facts() -> dict[str, Any]:
    return {}


async def _no_capabilities() -> list[HostCapability]:
    return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """``name`` keeps several engines on one host apart. ``facts`` and ``doctor`` look at the host. ``runtimes``: by
    name; ``default_runtime`` "" is our own container."""

    name: str = "enisle"
    data_root: Path
    run_root: Path
    version: str = "0.0.0"
    default_network: str = "bridge"
    default_runtime: str = ""
    runtimes: Mapping[str, OciRuntime] = field(default_factory=dict)
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
    ends: int = 0  # how many instances have ended since the start

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


def runtime_name(isolation: Isolation) -> str:
    """The name shown of a wall that was chosen without one; clients know runc."""
    return _VM_RUNTIME if isolation is Isolation.VM else "runc"


def default_runtime(settings: Settings) -> str:
    """The runtime of instances that do not say. Our own container is called runc, unless another runtime is."""
    return settings.default_runtime or (_OWN_CONTAINER if "runc" in settings.runtimes else "runc")


def with_runtime(settings: Settings, spec: InstanceSpec) -> InstanceSpec:
    """The spec with the wall that its runtime stands for. Invalid in Docker's wording.

    A runtime that was not named is recorded where it is not our own, so that a change of the default changes nothing
    for what is there.
    """
    if not spec.runtime and spec.isolation is not Isolation.CONTAINER:
        return spec
    name = spec.runtime
    if not name and (settings.default_runtime or "runc" in settings.runtimes):
        name = default_runtime(settings)
    plain = plain_name(name)
    if plain == _VM_RUNTIME:
        return replace(spec, runtime=name, isolation=Isolation.VM)
    if plain in _CONTAINER_RUNTIMES or plain in settings.runtimes:
        return replace(spec, runtime=name, isolation=Isolation.CONTAINER)
    raise Invalid(f"unknown or invalid runtime name: {name}")
