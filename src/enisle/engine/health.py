"""Health checks: a command run inside every so often, and what follows from its exit code (Docker's rules)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from dataclasses import replace

from enisle.contracts import Connection, Running
from enisle.engine.announce import announce
from enisle.engine.core import Core
from enisle.engine.restart import ends_unhealthy
from enisle.engine.slots import Slot
from enisle.errors import EnisleError
from enisle.formats.duration import format_duration
from enisle.model.ids import new_id
from enisle.model.instance import Health, Healthcheck, HealthResult, HealthStatus, InstanceSpec, Status
from enisle.model.process import ExecSpec

DEFAULT_INTERVAL_S = 30.0
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_START_INTERVAL_S = 5.0
DEFAULT_RETRIES = 3
OUTPUT_BYTES = 4096
LOG_LENGTH = 5
_SIGKILL = 9

log = logging.getLogger("enisle.engine")


def command_of(spec: InstanceSpec) -> tuple[str, ...]:
    """What to run; () when there is no check."""
    test = spec.healthcheck.test if spec.healthcheck else ()
    if len(test) < 2 or test[0] not in ("CMD", "CMD-SHELL"):
        return ()
    if test[0] == "CMD":
        return test[1:]
    return (*(spec.shell or ("/bin/sh", "-c")), test[1])


def judge(health: Health, result: HealthResult, check: Healthcheck, *, in_start_period: bool) -> Health:
    """The health after one more result. Pure."""
    entries = (*health.log, result)[-LOG_LENGTH:]
    if result.exit_code == 0:
        return Health(status=HealthStatus.HEALTHY, failing_streak=0, log=entries)
    if in_start_period and health.status is HealthStatus.STARTING:
        return replace(health, log=entries)
    streak = health.failing_streak + 1
    sick = streak >= (check.retries or DEFAULT_RETRIES)
    return Health(status=HealthStatus.UNHEALTHY if sick else health.status, failing_streak=streak, log=entries)


def watch(core: Core, slot: Slot) -> None:
    """Begin the checks of a running instance that has one."""
    if not command_of(slot.record.spec):
        return
    if slot.record.state.health is None:
        core.slots.change_state(slot, health=Health())
    slot.health = core.spawn(_check_for_ever(core, slot), name=f"health {slot.id[:12]}")


async def _check_for_ever(core: Core, slot: Slot) -> None:
    check = slot.record.spec.healthcheck
    assert check is not None
    interval_s = check.interval_ns / 1e9 or DEFAULT_INTERVAL_S
    start_interval_s = check.start_interval_ns / 1e9 or DEFAULT_START_INTERVAL_S
    while slot.running is not None:
        health = slot.record.state.health or Health()
        starting = health.status is HealthStatus.STARTING and _in_start_period(slot, check, time.time_ns())
        await asyncio.sleep(min(interval_s, start_interval_s) if starting else interval_s)
        if slot.status is not Status.RUNNING:
            continue
        result = await _run_once(core, slot, check)
        if result is not None and slot.running is not None:
            early = _in_start_period(slot, check, result.started_at)
            _note(core, slot, judge(health, result, check, in_start_period=early))


def _in_start_period(slot: Slot, check: Healthcheck, at_ns: int) -> bool:
    return at_ns - slot.record.state.started_at < check.start_period_ns


def _note(core: Core, slot: Slot, health: Health) -> None:
    before = slot.record.state.health
    core.slots.change_state(slot, health=health)
    if before is None or before.status is not health.status:
        announce(core, slot.record, f"health_status: {health.status.value}")
    if health.status is HealthStatus.HEALTHY:
        slot.wake("healthy")
    ends = ends_unhealthy(slot.record.spec, restart_count=slot.record.state.restart_count)
    if health.status is HealthStatus.UNHEALTHY and ends and not slot.sick:
        slot.sick = True
        core.spawn(core.end_sick(core, slot), name=f"end unhealthy {slot.id[:12]}")


async def _run_once(core: Core, slot: Slot, check: Healthcheck) -> HealthResult | None:
    """Run the check; None when the instance ended meanwhile. A check that takes too long counts as failed.

    Its events are those of any exec, but they are not kept: a week of them would push out all others.
    """
    running = slot.running
    if running is None:
        return None
    started_at = time.time_ns()
    exec_id = new_id()
    spec = ExecSpec(command=command_of(slot.record.spec), attach_stdout=True, attach_stderr=True)
    words = " ".join(spec.command)
    for action in ("exec_create", "exec_start"):
        announce(core, slot.record, f"{action}: {words}", keep=False, execID=exec_id)
    try:
        exit_code, output = await _outcome(running, slot, exec_id, spec, check)
    except EnisleError:
        return None
    ended = str(exit_code if exit_code >= 0 else 128 + _SIGKILL)
    announce(core, slot.record, "exec_die", keep=False, execID=exec_id, exitCode=ended)
    return HealthResult(started_at=started_at, ended_at=time.time_ns(), exit_code=exit_code, output=output)


async def _outcome(running: Running, slot: Slot, exec_id: str, spec: ExecSpec, check: Healthcheck) -> tuple[int, str]:
    """Exit code and output; -1 for a check that could not be run, or had to be killed. EnisleError: all has ended."""
    timeout_s = check.timeout_ns / 1e9 or DEFAULT_TIMEOUT_S
    kept = bytearray()
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        connection = Connection(fd=theirs.detach(), stdin=False, stdout=True, stderr=True, framed=False, detach_keys="")
        try:
            await running.exec(exec_id, spec, slot.record, connection)
        except EnisleError as error:
            return -1, str(error)
        finally:
            os.close(connection.fd)
        try:
            async with asyncio.timeout(timeout_s):
                await _read_all(ours, kept)
                return await running.wait_exec(exec_id), _text(kept)
        except TimeoutError:
            with contextlib.suppress(EnisleError):
                await running.signal(_SIGKILL, exec_id)
            output = f"Health check exceeded timeout ({format_duration(int(timeout_s * 1e9))})"
            return -1, f"{output}: {_text(kept)}" if kept else output


async def _read_all(sock: socket.socket, kept: bytearray) -> None:
    """Everything up to its end; only the first OUTPUT_BYTES (and what tells that there was more) are kept."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(sock, 65536):
            kept += data[: OUTPUT_BYTES + 1 - len(kept)]


def _text(kept: bytearray) -> str:
    """The output as it is shown: cut where it was too long, with a note of that (dockerd's rule and words)."""
    text = kept[:OUTPUT_BYTES].decode("utf-8", "replace")
    return f"{text}..." if len(kept) > OUTPUT_BYTES else text
