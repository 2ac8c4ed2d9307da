"""Starting what is to run after a start of enisled or of the host: what others depend on first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from enisle.engine import launch
from enisle.engine.core import Core
from enisle.engine.slots import Slot
from enisle.errors import EnisleError, NotModified
from enisle.model.instance import HealthStatus, Instance

AT_ONCE = 8
HEALTHY_WITHIN_S = 120.0
"""How long a start waits for something it depends on to become healthy; then it is tried anyway."""

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_DEPENDS_ON = "com.docker.compose.depends_on"

log = logging.getLogger("enisle.engine")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependency:
    """``healthy``: not only started, but found healthy."""

    on: str
    healthy: bool = False


def dependencies(records: Iterable[Instance]) -> dict[str, list[Dependency]]:
    """What each instance has to wait for among ``records``, by id; without cycles. Pure.

    Namespaces, volumes and links of another instance count, and compose's ``depends_on``, which it leaves in labels.
    A dependency that would close a cycle is passed over.
    """
    by_ref: dict[str, str] = {}
    by_service: dict[tuple[str, str], list[str]] = {}
    everything = list(records)
    for record in everything:
        by_ref |= {record.id: record.id, record.name: record.id}
        labels = record.spec.labels
        by_service.setdefault((labels.get(_PROJECT, ""), labels.get(_SERVICE, "")), []).append(record.id)
    found: dict[str, list[Dependency]] = {record.id: [] for record in everything}
    for record in everything:
        wanted = [Dependency(on=by_ref[ref]) for ref in _referred_to(record) if ref in by_ref]
        for service, healthy in _services(record):
            others = by_service.get((record.spec.labels.get(_PROJECT, ""), service), [])
            wanted += [Dependency(on=other, healthy=healthy) for other in others]
        for dependency in wanted:
            if not _reaches(found, dependency.on, record.id):
                found[record.id].append(dependency)
    return found


def _referred_to(record: Instance) -> list[str]:
    spec = record.spec
    modes = (spec.network_mode, spec.pid_mode, spec.ipc_mode)
    refs = [mode.removeprefix("container:") for mode in modes if mode.startswith("container:")]
    refs += [entry.partition(":")[0] for entry in spec.volumes_from]
    links = (*spec.links, *(link for endpoint in spec.endpoints for link in endpoint.links))
    return [*refs, *(link.partition(":")[0].removeprefix("/") for link in links)]


def _services(record: Instance) -> list[tuple[str, bool]]:
    """Of ``db:service_healthy:false,cache:service_started:true``: service, and whether it must be healthy."""
    found = []
    for entry in record.spec.labels.get(_DEPENDS_ON, "").split(","):
        service, _, rest = entry.strip().partition(":")
        if service:
            found.append((service, rest.startswith("service_healthy")))
    return found


def _reaches(found: dict[str, list[Dependency]], start: str, goal: str) -> bool:
    pending, seen = [start], {start}
    while pending:
        current = pending.pop()
        if current == goal:
            return True
        fresh = [each.on for each in found.get(current, ()) if each.on not in seen]
        seen.update(fresh)
        pending += fresh
    return False


def start_in_order(core: Core, slots: list[Slot]) -> None:
    """Begin to start them, some at once, each after those it depends on; returns at once."""
    waits = dependencies(slot.record for slot in core.slots)
    tried = {slot.id: asyncio.Event() for slot in slots}
    turn = asyncio.Semaphore(AT_ONCE)
    for slot in slots:
        work = _start(core, slot, waits[slot.id], tried=tried, turn=turn)
        core.spawn(work, name=f"start {slot.id[:12]}")


async def _start(
    core: Core, slot: Slot, waits: list[Dependency], *, tried: dict[str, asyncio.Event], turn: asyncio.Semaphore
) -> None:
    try:
        for dependency in waits:
            if dependency.on in tried:
                await tried[dependency.on].wait()
            if dependency.healthy:
                await _until_healthy(core.slots.find(dependency.on))
        async with turn:
            await launch.start(core, slot)
    except NotModified:
        log.debug("container %s was started by a client meanwhile", slot.id[:12])
    except EnisleError as error:
        log.warning("container %s: not started by its restart policy: %s", slot.id[:12], error)
    finally:
        tried[slot.id].set()


async def _until_healthy(slot: Slot) -> None:
    """Wait for a running instance that has a health check; not for ever, nor for one that ends."""
    health = slot.record.state.health
    if slot.running is None or health is None or health.status is HealthStatus.HEALTHY:
        return
    waiters = [slot.add_waiter("healthy"), slot.add_waiter("next-exit")]
    await asyncio.wait(waiters, timeout=HEALTHY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
    for waiter in waiters:
        waiter.cancel()
