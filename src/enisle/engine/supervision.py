"""What follows when an instance ends: its record, its addresses, a restart, its removal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace

from enisle.contracts import ExitReport
from enisle.engine import removal
from enisle.engine.addressing import release_all
from enisle.engine.announce import announce, announce_volumes
from enisle.engine.core import Core
from enisle.engine.mounts import volume_names
from enisle.engine.restart import STEADY_S, backoff_s, should_restart
from enisle.engine.slots import Slot
from enisle.errors import EnisleError
from enisle.model.instance import Health, HealthStatus, InstanceState, Status

EXEC_KEPT_S = 300.0

log = logging.getLogger("enisle.engine")


def watch(core: Core, slot: Slot) -> None:
    """Wait beside for the end of a running instance, then settle it."""
    slot.supervisor = core.spawn(_supervise(core, slot), name=f"supervise {slot.id[:12]}")


async def _supervise(core: Core, slot: Slot) -> None:
    running = slot.running
    assert running is not None
    report = await running.wait()
    async with slot.lock:
        if slot.running is running:
            await settle(core, slot, report)


async def settle(core: Core, slot: Slot, report: ExitReport, *, told: bool = False) -> None:
    """Record an end and do what follows from it; the caller holds the lock. ``told``: its event is known already."""
    slot.running = None
    core.ends += 1
    if slot.health is not None:
        slot.health.cancel()
        slot.health = None
    _end_execs(core, slot)
    try:
        await release_all(core, slot)
    except Exception:  # whatever it is, the end must be recorded and told
        log.exception("container %s: its addresses could not be given back", slot.id[:12])
    await core.volumes.storage.let_go(slot.id, volume_names(slot.record))
    state = slot.record.state
    again = _wants_restart(core, slot, report)
    core.slots.change(slot, state=ended_state(state, report, again=again), endpoints=(), bound_ports=())
    if not told:
        announce(core, slot.record, "die", exitCode=str(report.exit_code), execDuration=str(_duration_s(state, report)))
    announce_volumes(core, slot.record, "unmount")
    slot.wake("not-running", "next-exit")
    if again:
        plan_restart(core, slot, ran_s=_duration_s(state, report))
    elif slot.record.spec.auto_remove and not slot.restarting:
        await removal.remove_unasked(core, slot)


def ended_state(state: InstanceState, report: ExitReport, *, again: bool) -> InstanceState:
    """The state after an end. Pure."""
    health = state.health
    if health is not None:
        health = Health(status=HealthStatus.UNHEALTHY, failing_streak=health.failing_streak, log=health.log)
    return replace(
        state,
        status=Status.RESTARTING if again else Status.EXITED,
        pid=0,
        exit_code=report.exit_code,
        error=report.error,
        oom_killed=report.oom_killed,
        started_at=report.started_at or state.started_at,
        finished_at=report.finished_at or time.time_ns(),
        health=health,
    )


def _duration_s(state: InstanceState, report: ExitReport) -> int:
    started_at = report.started_at or state.started_at
    return max(0, (report.finished_at - started_at) // 10**9) if started_at else 0


def _wants_restart(core: Core, slot: Slot, report: ExitReport) -> bool:
    state = slot.record.state
    return (
        not core.closing
        and not slot.restarting
        and not (slot.sick and state.manually_stopped)
        and (
            slot.sick
            or should_restart(
                slot.record.spec.restart,
                exit_code=report.exit_code,
                manually_stopped=state.manually_stopped,
                restart_count=state.restart_count,
            )
        )
    )


def plan_restart(core: Core, slot: Slot, *, ran_s: float) -> None:
    """Start it again after the backoff that is due."""
    slot.restart_attempts = 0 if ran_s >= STEADY_S else slot.restart_attempts
    delay_s = backoff_s(slot.restart_attempts)
    slot.restart_attempts += 1
    slot.restart_timer = core.spawn(_restart_after(core, slot, delay_s), name=f"restart {slot.id[:12]}")


async def _restart_after(core: Core, slot: Slot, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    async with slot.lock:
        if slot.restart_timer is not asyncio.current_task() or slot.status is not Status.RESTARTING:
            return
        slot.restart_timer = None
        count = slot.record.state.restart_count + 1
        try:
            await core.start_again(core, slot, count)
        except EnisleError as error:
            log.warning("container %s: restart failed: %s", slot.id[:12], error)
            _try_once_more(core, slot, count)


def _try_once_more(core: Core, slot: Slot, count: int) -> None:
    """A restart that fails counts as an exit: the policy decides again."""
    state = slot.record.state
    if slot.removed or not should_restart(
        slot.record.spec.restart,
        exit_code=state.exit_code,
        manually_stopped=state.manually_stopped,
        restart_count=count,
    ):
        return
    core.slots.change_state(slot, status=Status.RESTARTING, restart_count=count)
    plan_restart(core, slot, ran_s=0)


def exec_ended(core: Core, slot: Slot, exec_id: str, exit_code: int) -> None:
    """Note the end of an exec session; its record is kept for a while for whoever asks for the exit code."""
    session = slot.execs.get(exec_id)
    if session is None or session.exit_code is not None:
        return
    slot.execs[exec_id] = replace(session, running=False, exit_code=exit_code, pid=0)
    announce(core, slot.record, "exec_die", execID=exec_id, exitCode=str(exit_code))
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop().call_later(EXEC_KEPT_S, slot.execs.pop, exec_id, None)


def _end_execs(core: Core, slot: Slot) -> None:
    """Whatever ran beside the main process was killed with it."""
    for exec_id, session in list(slot.execs.items()):
        if session.running:
            exec_ended(core, slot, exec_id, 137)
