"""Removing an instance: what it runs, its directory, its anonymous volumes, its record."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

from enisle.engine.announce import announce
from enisle.engine.core import Core
from enisle.engine.slots import Slot
from enisle.errors import Conflict, EnisleError, Exhausted, Internal, NotFound
from enisle.model.instance import MountKind, Status

log = logging.getLogger("enisle.engine")


async def remove_locked(core: Core, slot: Slot, *, volumes: bool) -> None:
    """Remove an instance that does not run; the caller holds its lock. Removing twice is no error.

    The intention is stored first, so that a removal cut short is finished at the next start. After a failure the
    instance is "dead" and can only be removed again.
    """
    if slot.removed:
        return
    try:
        await _destroy(core, slot)
    except EnisleError as error:
        slot.wake_failed("removed", error)
        raise
    except Exception as error:
        slot.wake_failed("removed", Internal(f"container {slot.id} could not be removed: {error}"))
        raise
    names = [mount.name for mount in slot.record.mounts if mount.kind is MountKind.VOLUME]
    core.volumes.release(slot.id, names)
    announce(core, slot.record, "destroy")
    slot.record = replace(slot.record, state=replace(slot.record.state, error=""))  # what waiters hear is no failure
    slot.wake("not-running", "next-exit", "removed")
    if volumes:
        await _remove_anonymous(core, slot)


async def _destroy(core: Core, slot: Slot) -> None:
    try:
        await core.slots.change_state(slot, status=Status.REMOVING)
    except Exhausted as error:  # what is removed makes room for the record
        log.warning("container %s: its removal begins unrecorded: %s", slot.id[:12], error)
    slot.early.close()
    try:
        await core.driver(slot.record).destroy(core.directory(slot.id))
        delete_directory(core.directory(slot.id))
    except Exception as error:  # whatever it is: only what is dead can be removed again
        core.slots.change_state(slot, status=Status.DEAD, error=str(error))
        raise Internal(f"container {slot.id}: driver failed to remove root filesystem: {error}") from error
    await core.slots.discard(slot)


async def remove_unasked(core: Core, slot: Slot) -> None:
    """Remove what goes after its end (``--rm``), volumes too; a failure is logged, and told to who waits for it."""
    try:
        await remove_locked(core, slot, volumes=True)
    except EnisleError as error:
        log.error("container %s: could not be removed after its end: %s", slot.id[:12], error)
    except Exception:
        log.exception("container %s: a fault of ours kept it from being removed", slot.id[:12])


async def _remove_anonymous(core: Core, slot: Slot) -> None:
    for mount in slot.record.mounts:
        if mount.kind is not MountKind.VOLUME or not mount.anonymous:
            continue
        try:
            await core.volumes.remove(mount.name)
        except (Conflict, NotFound):
            continue  # another instance uses it through --volumes-from, or it is gone
        except EnisleError as error:
            log.warning("container %s: volume %s could not be removed: %s", slot.id[:12], mount.name, error)


def delete_directory(directory: Path) -> None:
    """Delete an instance's directory with what the driver left in it (small files, logs)."""
    try:
        for entry in list(os.scandir(directory)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(directory)
    except FileNotFoundError:
        return
