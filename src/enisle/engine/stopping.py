"""Signals, stop, restart, pause, and removal of what may still run."""

from __future__ import annotations

import asyncio
import logging

from enisle.contracts import ExitReport
from enisle.engine import launch
from enisle.engine.announce import announce
from enisle.engine.core import Core
from enisle.engine.removal import remove_locked
from enisle.engine.slots import Slot
from enisle.errors import Conflict, EnisleError, Internal, NotModified, Unavailable
from enisle.model.instance import Status
from enisle.model.signals import signal_number

DEFAULT_TIMEOUT_S = 10
KILL_TIMEOUT_S = 15.0
KILL_ROUNDS = 8
_SIGKILL = 9

log = logging.getLogger("enisle.engine")


async def stop(core: Core, slot: Slot, *, timeout_s: int | None, signal: str) -> None:
    """The use case "stop". NotModified when it does not run."""
    number = _stop_signal(slot, signal)
    if not slot.alive:
        raise NotModified(f"Container {slot.id} is already stopped")
    core.slots.change_state(slot, manually_stopped=True)
    if await _end_restarting(core, slot, by_user=True):
        return
    await _signal_then_kill(core, slot, number, _timeout(slot, timeout_s))
    announce(core, slot.record, "stop")


def _stop_signal(slot: Slot, signal: str) -> int:
    return signal_number(signal or slot.record.spec.stop_signal or "TERM")


def _timeout(slot: Slot, timeout_s: int | None) -> float | None:
    """Seconds to wait; None: for ever."""
    if timeout_s is None:
        timeout_s = slot.record.spec.stop_timeout_s
    if timeout_s is None:
        return DEFAULT_TIMEOUT_S
    return None if timeout_s < 0 else timeout_s


async def _end_restarting(core: Core, slot: Slot, *, by_user: bool) -> bool:
    """Whether it was waiting for its next restart, and is ended by that."""
    async with slot.lock:
        if by_user:  # again: a restart that was under way knows nothing of it
            core.slots.change_state(slot, manually_stopped=True)
        if slot.running is not None or slot.status is not Status.RESTARTING:
            return False
        launch.cancel_restart(slot)
        core.slots.change_state(slot, status=Status.EXITED)
        slot.wake("not-running", "next-exit")
        return True


async def end_sick(core: Core, slot: Slot) -> None:
    """End an instance whose health check has failed, as a stop would; supervision starts it again."""
    try:
        await _signal_then_kill(core, slot, _stop_signal(slot, ""), _timeout(slot, None), by_user=False)
    except EnisleError as error:
        log.warning("container %s is unhealthy, and could not be ended: %s", slot.id[:12], error)


async def _signal_then_kill(
    core: Core, slot: Slot, number: int, timeout_s: float | None, *, by_user: bool = True
) -> None:
    running = slot.running
    if running is None:
        return
    ended = slot.add_waiter("not-running")
    if slot.running is not running:
        ended.cancel()
        return
    await _send(slot, number)
    announce(core, slot.record, "kill", signal=str(number))
    await _thaw(slot)
    try:
        await asyncio.wait_for(asyncio.shield(ended), timeout_s)
        return
    except TimeoutError:
        log.info("container %s did not end within %g s of signal %d: killing it", slot.id[:12], timeout_s, number)
    finally:
        if not ended.done():
            ended.cancel()
    await kill_and_wait(core, slot, by_user=by_user)


async def kill_and_wait(core: Core, slot: Slot, *, by_user: bool = True) -> None:
    """SIGKILL, and wait until the end is settled. Internal when it does not die (a process stuck in the kernel)."""
    if by_user:
        core.slots.change_state(slot, manually_stopped=True)
    if await _end_restarting(core, slot, by_user=by_user) or slot.running is None:
        return
    ended = slot.add_waiter("not-running")
    await _send(slot, _SIGKILL)
    announce(core, slot.record, "kill", signal=str(_SIGKILL))
    await _thaw(slot)
    if not await _comes(core, ended):
        raise Internal(
            f"container {slot.id}: tried to kill it, but did not receive an exit event within {KILL_TIMEOUT_S:g} s",
            remedy="A process of it hangs in the kernel, mostly on a volume that does not answer.",
        )


async def _comes(core: Core, ended: asyncio.Future[ExitReport]) -> bool:
    """Wait for the end of what was killed. While others end, the host is only busy: hundreds may be killed at once."""
    for _round in range(KILL_ROUNDS):
        settled = core.ends
        if (await asyncio.wait((ended,), timeout=KILL_TIMEOUT_S))[0]:
            return True
        if core.ends == settled:
            break
    ended.cancel()
    return False


async def _send(slot: Slot, number: int) -> None:
    """Signal the main process. That it has ended meanwhile is no error."""
    running = slot.running
    if running is None:
        return
    try:
        await running.signal(number)
    except (Unavailable, Conflict) as error:
        log.debug("container %s: signal %d came too late: %s", slot.id[:12], number, error)


async def kill(core: Core, slot: Slot, signal: str) -> None:
    """The use case "kill". Conflict when it does not run."""
    number = signal_number(signal or "KILL")
    if slot.status is Status.RESTARTING and await _end_restarting(core, slot, by_user=True):
        return
    if slot.running is None:
        raise Conflict(f"cannot kill container: {slot.record.name}: container {slot.id} is not running")
    if number == _SIGKILL:
        await kill_and_wait(core, slot)
        return
    if number == _stop_signal(slot, ""):
        core.slots.change_state(slot, manually_stopped=True)
    await _send(slot, number)
    announce(core, slot.record, "kill", signal=str(number))


async def restart(core: Core, slot: Slot, *, timeout_s: int | None, signal: str) -> None:
    """The use case "restart"; what `--rm` and the restart policy say of an exit does not apply to this one."""
    number = _stop_signal(slot, signal)
    slot.restarting = True
    try:
        if slot.alive:
            core.slots.change_state(slot, manually_stopped=True)
            if not await _end_restarting(core, slot, by_user=True):
                await _signal_then_kill(core, slot, number, _timeout(slot, timeout_s))
        try:
            await launch.start(core, slot)
        except NotModified:
            log.debug("container %s was started by another client during its restart", slot.id[:12])
    finally:
        slot.restarting = False
    announce(core, slot.record, "restart")


async def pause(core: Core, slot: Slot) -> None:
    async with slot.lock:
        if slot.status is Status.PAUSED:
            raise Conflict(f"Container {slot.id} is already paused")
        if slot.status is Status.RESTARTING:
            raise Conflict(f"Container {slot.id} is restarting, wait until the container is running")
        if slot.running is None:
            raise Conflict(f"Container {slot.id} is not running")
        await slot.running.pause()
        core.slots.change_state(slot, status=Status.PAUSED)
        announce(core, slot.record, "pause")


async def unpause(core: Core, slot: Slot) -> None:
    async with slot.lock:
        if slot.status is not Status.PAUSED or slot.running is None:
            raise Conflict(f"Container {slot.id} is not paused")
        await slot.running.unpause()
        core.slots.change_state(slot, status=Status.RUNNING)
        announce(core, slot.record, "unpause")


async def remove(core: Core, slot: Slot, *, force: bool, volumes: bool) -> None:
    """The use case "remove". Conflict when it runs and ``force`` is not given."""
    if slot.status is Status.REMOVING and slot.lock.locked():
        raise Conflict(f"removal of container {slot.record.name} is already in progress")
    while True:
        if slot.alive:
            if not force:
                raise Conflict(_refusal(slot))
            await kill_and_wait(core, slot)
        async with slot.lock:
            if slot.running is None and (not slot.alive or force):
                await remove_locked(core, slot, volumes=volumes)
                return
        await asyncio.sleep(0)  # it was started again in between


async def _thaw(slot: Slot) -> None:
    """Let a paused instance take a signal. On cgroup v2 a kill gets through by itself, and it may be gone by now."""
    if slot.status is Status.PAUSED and slot.running is not None:
        try:
            await slot.running.unpause()
        except EnisleError as error:
            log.debug("container %s: unpause after a signal: %s", slot.id[:12], error)


def _refusal(slot: Slot) -> str:
    if slot.status is Status.PAUSED:
        return f'cannot remove container "{slot.record.name}": container is paused and must be unpaused first'
    return (
        f'cannot remove container "{slot.record.name}": container is {slot.status.value}: '
        "stop the container before removing or force remove"
    )
