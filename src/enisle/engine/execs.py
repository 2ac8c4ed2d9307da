"""Exec sessions: further processes inside running instances."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace

from enisle.contracts import Connection, Running
from enisle.engine.announce import announce
from enisle.engine.core import Core
from enisle.engine.early import close_connections
from enisle.engine.slots import Slot
from enisle.engine.supervision import exec_ended
from enisle.errors import Conflict, EnisleError, Internal, Invalid, NotFound, StartFailed
from enisle.model.ids import ExecId, new_id
from enisle.model.instance import Status
from enisle.model.process import Exec, ExecSpec

_START_LIMIT_S = 2.0  # what a resize waits for its process

log = logging.getLogger("enisle.engine")


class Execs:
    """Sessions live in memory; those that run are learnt again from the keepers after a restart of enisled."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._slots: dict[str, Slot] = {}
        self._under_way: set[str] = set()  # sessions whose process is about to be there
        self._tried: dict[str, asyncio.Event] = {}  # set once it is, or has failed

    async def create(self, ref: str, spec: ExecSpec) -> ExecId:
        """Conflict: "Container X is not running" (or is paused)."""
        slot = self._core.slots.find(ref)
        _check_running(slot)
        if not spec.command or not spec.command[0]:
            raise Invalid("No exec command specified")
        session = Exec(id=ExecId(new_id()), instance=slot.record.id, spec=spec, created_at=time.time_ns())
        self.adopt(slot, session)
        announce(self._core, slot.record, f"exec_create: {' '.join(spec.command)}", execID=session.id)
        return session.id

    def adopt(self, slot: Slot, session: Exec) -> None:
        """Take in a session; those long ended are forgotten on the way."""
        slot.execs[session.id] = session
        self._slots[session.id] = slot
        if len(self._slots) > 64 and len(self._slots) > 2 * sum(len(each.execs) for each in self._core.slots):
            self._slots = {key: kept for key, kept in self._slots.items() if key in kept.execs and not kept.removed}

    def get(self, exec_id: str) -> Exec:
        """NotFound: "No such exec instance: …"."""
        slot = self._slots.get(exec_id)
        session = slot.execs.get(exec_id) if slot is not None else None
        if slot is None or session is None or slot.removed:
            raise NotFound(f"No such exec instance: {exec_id}")
        return session

    def of(self, instance_id: str) -> list[str]:
        """The ids of an instance's sessions (inspect's ExecIDs)."""
        return list(self._core.slots.find(instance_id).execs)

    async def check_start(self, exec_id: str) -> Exec:
        """Raise what dockerd does before its response begins: NotFound, Conflict for an instance that does not run.

        That it runs already is told by start: compose v2 starts what it has attached to once more, and wants success.
        """
        session = self.get(exec_id)
        _check_running(self._slots[exec_id])
        return session

    def _startable(self, exec_id: str) -> tuple[Slot, Exec, Running]:
        session = self.get(exec_id)
        slot = self._slots[exec_id]
        if session.exit_code is not None:
            raise Conflict(f"exec command {exec_id} has already run")
        if session.running:
            raise Conflict(f"exec command {exec_id} is already running")
        return slot, session, _check_running(slot)

    async def start(
        self, exec_id: str, connection: Connection | None, *, console_size: tuple[int, int] = (0, 0)
    ) -> None:
        """Start it; None: detached. The engine owns (and closes) ``connection.fd`` from the call on, also when this
        raises. StartFailed (exit_code 126, 127): nothing was written to the connection, which is still open while
        the error travels only if the caller kept a duplicate."""
        try:
            slot, session, running = self._startable(exec_id)
            if console_size != (0, 0):
                session = replace(session, spec=replace(session.spec, console_size=console_size))
            slot.execs[exec_id] = replace(session, running=True)
            self._under_way.add(exec_id)
            announce(self._core, slot.record, f"exec_start: {' '.join(session.spec.command)}", execID=exec_id)
            try:
                pid = await running.exec(exec_id, session.spec, slot.record, connection)
            except EnisleError as error:
                exec_ended(self._core, slot, exec_id, error.exit_code if isinstance(error, StartFailed) else 126)
                raise
            except Exception as error:
                log.exception("container %s: a fault of ours kept exec %s from starting", slot.id[:12], exec_id[:12])
                exec_ended(self._core, slot, exec_id, 126)
                raise Internal(f"exec could not be started: {error}", remedy="See the daemon's log.") from error
            except BaseException:
                slot.execs[exec_id] = session
                raise
            if slot.execs[exec_id].running:
                slot.execs[exec_id] = replace(slot.execs[exec_id], pid=pid)
        finally:
            self._under_way.discard(exec_id)
            if tried := self._tried.pop(exec_id, None):
                tried.set()
            if connection is not None:
                close_connections([connection])

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Clients ask for it as soon as they have the head of start's answer: it waits for the process, as dockerd."""
        session = self.get(exec_id)
        if exec_id in self._under_way or (not session.running and session.exit_code is None):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._tried.setdefault(exec_id, asyncio.Event()).wait(), _START_LIMIT_S)
            self._tried.pop(exec_id, None)
            session = self.get(exec_id)
        if not session.running:
            raise Conflict(f"exec process {exec_id} is not running")
        await _check_running(self._slots[exec_id]).resize(rows, columns, exec_id)

    async def wait(self, exec_id: str) -> int:
        """Its exit code, once it has ended."""
        session = self.get(exec_id)
        if session.exit_code is not None:
            return session.exit_code
        return await _check_running(self._slots[exec_id]).wait_exec(exec_id)


def _check_running(slot: Slot) -> Running:
    """The running instance, or Conflict in Docker's wording."""
    if slot.status is Status.PAUSED:
        raise Conflict(f"Container {slot.id} is paused, unpause the container before exec")
    if slot.status is Status.RESTARTING:
        raise Conflict(f"Container {slot.id} is restarting, wait until the container is running")
    if slot.running is None:
        raise Conflict(f"Container {slot.id} is not running")
    return slot.running
