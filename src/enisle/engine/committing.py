"""The use case "commit": an image of an instance's root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from enisle.contracts import Files, Running
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
    """Pause it if asked to, read its writable layer into a new image, let it go on.

    One that ends meanwhile is read as it was left.
    """
    if slot.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(f"You cannot commit container {slot.id} which is Dead")
    record, running = slot.record, slot.running
    merged = apply_changes(config or config_of(record.spec), changes)

    async def read() -> ImageId:
        async with _files_at_rest(core, slot, pause=pause) as files:
            return await core.image_store.commit(
                record.spec.image_id,
                await files.layer(),
                reference=reference,
                config=merged,
                author=author,
                message=message,
                created_by=" ".join(record.args),
            )

    try:
        image = await read()
    except (Conflict, Unavailable):
        if running is None or not await _has_ended(slot, running):
            raise
        image = await read()
    announce(core, record, "commit", comment=message, imageID=image, imageRef=reference)
    return image


@asynccontextmanager
async def _files_at_rest(core: Core, slot: Slot, *, pause: bool) -> AsyncIterator[Files]:
    """The instance's files; nothing writes them meanwhile if ``pause``."""
    running = slot.running
    async with AsyncExitStack() as stack:
        if pause and slot.status is Status.RUNNING and running is not None:
            # Readers of the files go through the host or, in a VM, through the agent, which is not frozen.
            await running.pause()
            stack.push_async_callback(_let_go, running)
        yield await stack.enter_async_context(launch.files(core, slot, running))


async def _let_go(running: Running) -> None:
    with suppress(Conflict, Unavailable):  # it has ended
        await running.unpause()


async def _has_ended(slot: Slot, running: Running) -> bool:
    """Whether it ran and does not run any more; an end that is under way is waited for."""
    if slot.running is running:
        ended = slot.add_waiter("not-running")
        await asyncio.wait([ended], timeout=SETTLE_TIMEOUT_S)
        ended.cancel()
    return slot.running is not running


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
