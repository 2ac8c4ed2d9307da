"""The use case "commit": an image of an instance's root."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from enisle.contracts import Running
from enisle.engine import launch
from enisle.engine.announce import announce
from enisle.engine.core import Core
from enisle.engine.slots import Slot
from enisle.errors import Conflict, Unavailable
from enisle.formats.changes import apply_changes
from enisle.model.ids import ImageId
from enisle.model.image import ImageConfig
from enisle.model.instance import InstanceSpec, Status

SETTLE_TIMEOUT_S = 10.0


async def commit(
    core: Core,
    slot: Slot,
    *,
    reference: str,
    config: ImageConfig | None,
    changes: Sequence[str],
    author: str,
    message: str,
    pause: bool,
) -> ImageId:
    """Pause it if asked to, read its writable layer into a new image, let it go on."""
    if slot.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(f"You cannot commit container {slot.id} which is Dead")
    record = slot.record
    merged = apply_changes(config or config_of(record.spec), changes)
    async with AsyncExitStack() as stack:
        if pause and slot.status is Status.RUNNING and slot.running is not None:
            # Readers of the files go through the host or, in a VM, through the agent, which is not frozen.
            await _pause(slot, slot.running, stack)
        base = await launch.base_launch(core, record)
        files = await stack.enter_async_context(core.driver(record).files(base, slot.running))
        image = await core.image_store.commit(
            record.spec.image_id,
            await files.layer(),
            reference=reference,
            config=merged,
            author=author,
            message=message,
            created_by=" ".join(record.args),
        )
    announce(core, record, "commit", comment=message, imageID=image, imageRef=reference)
    return image


async def _pause(slot: Slot, running: Running, stack: AsyncExitStack) -> None:
    """Pause it until ``stack`` ends. One that has just ended by itself needs no pause: its end is awaited instead."""
    ended = slot.add_waiter("not-running")
    try:
        await running.pause()
    except (Conflict, Unavailable):
        await asyncio.wait([ended], timeout=SETTLE_TIMEOUT_S)
        if slot.running is running:
            raise
    else:
        stack.push_async_callback(running.unpause)
    finally:
        ended.cancel()


def config_of(spec: InstanceSpec) -> ImageConfig:
    """The config an image of this instance has, unless changed."""
    return ImageConfig(
        user=spec.user,
        exposed_ports=spec.exposed_ports,
        env=spec.env,
        entrypoint=spec.entrypoint,
        command=spec.command,
        volumes=spec.volumes,
        working_dir=spec.working_dir,
        labels=dict(spec.labels),
        stop_signal=spec.stop_signal,
        args_escaped=spec.args_escaped,
        healthcheck=spec.healthcheck,
        on_build=spec.on_build,
        shell=spec.shell,
    )
