"""The use case "create": check, claim the name, make the directory, commit the record."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import replace

from enisle.engine.addressing import complete_networks, exposed, joined_mode
from enisle.engine.announce import announce
from enisle.engine.completion import complete
from enisle.engine.core import Core, with_runtime
from enisle.engine.etc import split_extra_host
from enisle.engine.images import usable
from enisle.engine.launch import root_launch
from enisle.engine.mounts import gather, resolve
from enisle.engine.removal import delete_directory
from enisle.errors import Invalid
from enisle.formats.records import encode
from enisle.model.ids import InstanceId, new_id
from enisle.model.image import Image, ImageConfig, Platform
from enisle.model.instance import Instance, InstanceSpec, RestartKind
from enisle.model.signals import signal_number

RECORD_NAME = "record.json"
COPY_AFTER_S = 3.0

log = logging.getLogger("enisle.engine")


async def create(
    core: Core, spec: InstanceSpec, *, name: str | None, warnings: list[str], defaults: ImageConfig | None = None
) -> Instance:
    """Make an instance that is not started yet. A failure at any point leaves nothing behind.

    ``defaults``: what the spec is completed from, in the place of the image's own config.
    """
    async with AsyncExitStack() as claims, AsyncExitStack() as undo:
        image = await _claim_image(core, spec.image_id or spec.image, _platform(spec.platform), claims)
        image = image if defaults is None else replace(image, config=defaults)
        spec = await _checked(core, spec, image, warnings)
        instance_id = InstanceId(new_id())
        name = core.slots.claim_name(name, instance_id)
        undo.callback(core.slots.release_name, name, instance_id)
        record = await _with_mounts(core, _record(instance_id, name, spec), undo, claims)
        await _prepare(core, record, undo)
        await core.slots.add(record)
        core.volumes.hold(record)
        undo.pop_all()
    announce(core, record, "create")
    asyncio.get_running_loop().call_later(COPY_AFTER_S, copy_record, core, record.id)
    return record


def copy_record(core: Core, instance_id: str) -> None:
    """Put a copy of the record into the instance's directory, for the day the store is lost.

    Not at once: most of what is made by the thousand is gone after a moment.
    """
    if instance_id not in core.slots:
        return
    try:
        (core.directory(instance_id) / RECORD_NAME).write_bytes(encode(core.slots.find(instance_id).record))
    except OSError as error:
        log.warning("container %s: no copy of its record could be written: %s", instance_id[:12], error)


async def _claim_image(core: Core, reference: str, platform: Platform | None, claims: AsyncExitStack) -> Image:
    """Look the image up, and keep it from being removed until the record says that it is used."""
    async with core.image_lock:
        image = usable(await core.image_store.get(reference, platform))
        core.image_claims[image.id] += 1
    claims.callback(core.image_claims.subtract, {image.id: 1})
    return image


def _platform(text: str) -> Platform | None:
    """ "linux/arm64/v8" as a platform; "" is none. Invalid otherwise."""
    if not text:
        return None
    parts = text.split("/")
    if len(parts) == 1:
        return Platform(architecture=parts[0]) if parts[0] != "linux" else Platform()
    if len(parts) > 3 or not all(parts):
        raise Invalid(f'"{text}" is an invalid OS/architecture specifier: unknown platform')
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


async def _checked(core: Core, spec: InstanceSpec, image: Image, warnings: list[str]) -> InstanceSpec:
    """The completed spec. Raises for what cannot be; changes nothing."""
    spec = with_runtime(core.settings, spec)
    spec = await complete_networks(core, complete(spec, image))
    if spec.stop_signal:
        signal_number(spec.stop_signal)
    for entry in spec.extra_hosts:
        split_extra_host(entry)
    for text in spec.exposed_ports:
        exposed(text)
    if spec.auto_remove and spec.restart.kind is not RestartKind.NO:
        raise Invalid("can't create 'AutoRemove' container with restart policy")
    spec = replace(
        spec,
        pid_mode=joined_mode(core, spec.pid_mode, "PID"),
        ipc_mode=joined_mode(core, spec.ipc_mode, "IPC"),
    )
    if spec.network_mode == "host" and (spec.ports or spec.publish_all):
        warnings.append("Published ports are discarded when using host network mode")
    warnings += core.driver(spec).check(spec)
    return spec


def _record(instance_id: InstanceId, name: str, spec: InstanceSpec) -> Instance:
    if not spec.hostname:
        shares_host = spec.uts_mode == "host" or spec.network_mode == "host"
        spec = replace(spec, hostname=socket.gethostname() if shares_host else instance_id[:12])
    return Instance(id=instance_id, name=name, created_at=time.time_ns(), spec=spec)


async def _with_mounts(core: Core, record: Instance, undo: AsyncExitStack, claims: AsyncExitStack) -> Instance:
    """The record with its mounts looked up and its volumes made; ``undo`` removes the anonymous ones again.

    ``claims``: until its end the images that are mounted cannot be removed.
    """
    names: list[str] = []
    own: list[str] = []

    def claim(volume: str, is_own: bool) -> None:
        core.volumes.hold_name(volume, record.id)
        names.append(volume)
        if is_own:
            own.append(volume)

    async def find_image(reference: str) -> str:
        return (await _claim_image(core, reference, None, claims)).id

    async def give_back() -> None:
        core.volumes.release(record.id, names)
        for volume in own:
            await core.volumes.remove(volume, force=True)

    undo.push_async_callback(give_back)
    mounts, resolved = await resolve(
        gather(record.spec, core.slots), core.volumes, claim, find_image, record.spec.volume_driver
    )
    return replace(record, spec=replace(record.spec, mounts=mounts), mounts=resolved)


async def _prepare(core: Core, record: Instance, undo: AsyncExitStack) -> None:
    """Make the instance's directory."""
    directory = core.directory(record.id)
    directory.mkdir(mode=0o711)
    undo.callback(delete_directory, directory)
    driver = core.driver(record)
    undo.push_async_callback(driver.destroy, directory)
    await driver.prepare(await root_launch(core, record))
