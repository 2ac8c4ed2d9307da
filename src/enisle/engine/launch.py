"""Starting an instance: addresses, files, the keeper; all undone when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from enisle.contracts import Connection, Files, Launch, Running
from enisle.engine import etcfiles, health, removal, supervision
from enisle.engine.addressing import attach_all, close_sockets, joins
from enisle.engine.announce import announce, announce_network, announce_volumes
from enisle.engine.core import Core
from enisle.engine.early import close_connections
from enisle.engine.links import links_of, with_variables
from enisle.engine.mounts import host_mounts, volume_names
from enisle.engine.slots import Slot
from enisle.errors import Conflict, EnisleError, Exhausted, Internal, NotModified, StartFailed, exhaustion
from enisle.model.ids import ImageId
from enisle.model.instance import Instance, InstanceState, Isolation, MountKind, Status

log = logging.getLogger("enisle.engine")


async def start(core: Core, slot: Slot) -> None:
    """The use case "start". NotModified when it runs, Conflict when paused or being removed."""
    async with slot.lock:
        check_startable(slot)
        cancel_restart(slot)
        slot.restart_attempts = 0
        await start_locked(core, slot)


def check_startable(slot: Slot) -> None:
    if slot.status is Status.RUNNING:
        raise NotModified(f"Container {slot.id} is already running")
    if slot.status is Status.PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    if slot.removed or slot.status in (Status.REMOVING, Status.DEAD):
        raise Conflict("container is marked for removal and cannot be started")


def cancel_restart(slot: Slot) -> None:
    """Forget a restart that the policy has planned."""
    timer, slot.restart_timer = slot.restart_timer, None
    if timer is not None and timer is not asyncio.current_task():
        timer.cancel()


async def start_locked(core: Core, slot: Slot, restart_count: int = 0) -> None:
    """Start it; the caller holds its lock. After a failure the record tells why and everything is undone."""
    connections = slot.early.take()
    try:
        await _launch(core, slot, connections, restart_count)
    except EnisleError as error:
        await _record_failure(core, slot, error)
        raise
    except Exception as error:
        failure = _unforeseen(slot, error)
        if slot.running is None:
            await _record_failure(core, slot, failure)
        raise failure from error
    finally:
        close_connections(connections)


def _unforeseen(slot: Slot, error: Exception) -> EnisleError:
    """The failure to tell: what the host has run out of is no fault of ours, all else is, and is logged."""
    spent = exhaustion(error)
    if spent is not None:
        return Exhausted(f"container {slot.id[:12]} could not be started: {spent}")
    log.error("container %s: a fault of ours kept it from starting", slot.id[:12], exc_info=error)
    return Internal(f"container {slot.id[:12]} could not be started: {error}", remedy="See the daemon's log.")


async def _launch(core: Core, slot: Slot, connections: list[Connection], restart_count: int) -> None:
    record = slot.record
    async with AsyncExitStack() as sockets_closed, AsyncExitStack() as undo:
        joined = joins(core, record.spec)
        endpoints, bound, sockets = await attach_all(core, record, undo)
        sockets_closed.callback(close_sockets, sockets)
        if endpoints:
            # Before anything is made: after a crash these are given back, or go on being the running one's.
            await core.slots.change(slot, endpoints=endpoints, bound_ports=bound)
            undo.callback(core.slots.change, slot, endpoints=(), bound_ports=())
        links = links_of(core, slot.record)
        await etcfiles.write(core, slot.record, links)
        volumes = await take_volumes(core, record, slot.id, undo)
        launch = replace(
            await base_launch(core, slot.record, volumes),
            instance=with_variables(slot.record, links),
            endpoints=endpoints,
            joins=joined,
            port_sockets=tuple(sockets),
            connections=tuple(connections),
        )
        try:
            slot.running = await core.driver(record).start(launch, event_handler(core, slot))
        except asyncio.CancelledError:
            undo.pop_all()  # enisled ends: the keeper may go on, and the next enisled finds out
            raise
        undo.pop_all()
    _started(core, slot, restart_count)


def _started(core: Core, slot: Slot, restart_count: int) -> None:
    running = slot.running
    assert running is not None
    slot.sick = False
    core.slots.change(
        slot,
        state=InstanceState(
            status=Status.RUNNING, pid=running.pid, started_at=running.started_at, restart_count=restart_count
        ),
    )
    supervision.watch(core, slot)  # first: whatever fails after it, the end is noticed
    for endpoint in slot.record.endpoints:
        announce_network(core, endpoint, "connect", slot.id)
    announce_volumes(core, slot.record, "mount")
    announce(core, slot.record, "start")
    health.watch(core, slot)


async def _record_failure(core: Core, slot: Slot, error: EnisleError) -> None:
    """Keep why it did not start, in the words and with the exit code of Docker; the status stays what it was.

    Never fails: the client is to hear why the start failed, and who waits is to be woken.
    """
    exit_code = error.exit_code if isinstance(error, StartFailed) else 128
    status = Status.EXITED if slot.status is Status.RESTARTING else slot.status
    core.slots.change_state(slot, status=status, exit_code=exit_code, error=str(error), pid=0)
    announce(core, slot.record, "die", exitCode=str(exit_code))
    slot.wake("next-exit", "not-running")
    if slot.record.spec.auto_remove:
        await removal.remove_unasked(core, slot)


async def base_launch(core: Core, record: Instance, volumes: Mapping[str, str]) -> Launch:
    """All of a launch that does not depend on the start: root, directory, mounts, log.

    ``volumes``: the path of each volume's files, as :func:`take_volumes` gives them.
    """
    layers = {
        mount.source: await _layers(core, mount.source) for mount in record.mounts if mount.kind is MountKind.IMAGE
    }
    return replace(await root_launch(core, record), mounts=host_mounts(record, volumes, layers))


@asynccontextmanager
async def files(core: Core, slot: Slot, running: Running | None) -> AsyncIterator[Files]:
    """The instance's files; ``running`` as of slot.running. Those of one that does not run have its volumes mounted."""
    async with AsyncExitStack() as undo:
        volumes = {} if running else await take_volumes(core, slot.record, f"files-{token_hex(4)}", undo)
        base = await root_launch(core, slot.record) if running else await base_launch(core, slot.record, volumes)
        yield await undo.enter_async_context(core.driver(slot.record).files(base, running))


async def root_launch(core: Core, record: Instance) -> Launch:
    """As ``base_launch``, without mounts."""
    is_vm = record.spec.isolation is Isolation.VM
    return Launch(
        instance=record,
        layers=() if is_vm else tuple(await core.image_store.layers(record.spec.image_id)),
        disk=await core.image_store.disk(record.spec.image_id) if is_vm else None,
        directory=core.directory(record.id),
        log_path=log_path(core, record),
    )


async def take_volumes(core: Core, record: Instance, user: str, undo: AsyncExitStack) -> dict[str, str]:
    """Have the instance's volumes mounted, where that is needed; ``undo`` lets go of them."""
    names = volume_names(record)
    undo.push_async_callback(core.volumes.storage.let_go, user, names)
    return {name: await core.volumes.storage.take(await core.volumes.get(name), user) for name in names}


async def _layers(core: Core, image_id: str) -> tuple[str, ...]:
    return tuple(str(path) for path in await core.image_store.layers(ImageId(image_id)))


def log_path(core: Core, record: Instance) -> Path | None:
    """Where the keeper writes the log; None where it keeps none itself."""
    driver = record.spec.log.driver
    if driver in ("none", "journald"):
        return None
    return core.directory(record.id) / f"{record.id}-{'local' if driver == 'local' else 'json'}.log"


def event_handler(core: Core, slot: Slot) -> Any:
    """What is called with the keeper's events."""

    async def handle(name: str, message: dict[str, Any]) -> None:
        if name == "oom":
            core.slots.change_state(slot, oom_killed=True)
            announce(core, slot.record, "oom")
        elif name == "terminal_detached":
            exec_id = str(message.get("exec_id", ""))
            if exec_id:
                announce(core, slot.record, "exec_detach", execID=exec_id)
            else:
                announce(core, slot.record, "detach")
        elif name == "exec_exit":
            supervision.exec_ended(core, slot, str(message.get("exec_id", "")), int(message.get("exit_code", 255)))

    return handle
