"""A running instance seen from enisled: its keeper, spoken to over :mod:`enisle.wire.keeper`'s protocol.

:class:`KeeperClient` implements ``contracts.Running`` for every wall; what differs between walls is how the user's
words become plans, which a :class:`Translator` (the wall's driver) does.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from enisle.contracts import Connection, ExitReport
from enisle.drivers.channel import Channel, Message
from enisle.errors import Conflict, EnisleError, NotFound, Unavailable
from enisle.model.instance import BoundPort, Endpoint, Instance, InstanceSpec
from enisle.model.process import ExecSpec
from enisle.wire.plans import LimitsPlan, NicPlan, ProcessPlan

OnEvent = Callable[[str, dict[str, Any]], Awaitable[None]]

CONTROL_TIMEOUT_S = 30.0
_KEPT_EXECS = 512
_LOST = "The keeper of the instance ended without a report; it was killed, or the host went down."

log = logging.getLogger(__name__)


class Translator(Protocol):
    """How one wall puts what the user asked for into plans. Pure, but for looking up the host's devices."""

    def exec_plan(self, instance: Instance, spec: ExecSpec) -> ProcessPlan: ...
    def limits_plan(self, spec: InstanceSpec) -> LimitsPlan: ...
    def nic_plan(self, endpoint: Endpoint) -> NicPlan: ...
    def relays(self, bound: Sequence[BoundPort], endpoint: Endpoint | None) -> Message: ...
    async def bury(self, instance: Instance) -> None:
        """Remove what a keeper that was killed has left of its instance (processes, cgroups, run directory)."""


def read_exit_file(path: Path) -> ExitReport | None:
    """The report a keeper wrote before it ended; None when there is none (or no whole one)."""
    try:
        values = json.loads(path.read_bytes())
        return ExitReport(
            exit_code=int(values["exit_code"]),
            oom_killed=bool(values.get("oom_killed", False)),
            error=str(values.get("error", "")),
            started_at=int(values.get("started_at", 0)),
            finished_at=int(values.get("finished_at", 0)),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def attach_fields(connection: Connection, *, logs: bool = False) -> Message:
    """The fields of an ``attach`` (or, in part, an ``exec``) request for a client's connection."""
    return {
        "stdin": connection.stdin,
        "stdout": connection.stdout,
        "stderr": connection.stderr,
        "framed": connection.framed,
        "detach_keys": connection.detach_keys,
        "initial": base64.b64encode(connection.initial).decode("ascii"),
        "logs": logs,
    }


class KeeperClient:
    """One instance's keeper. Implements ``contracts.Running``; made by ``KeeperDriver`` only."""

    def __init__(
        self,
        *,
        instance: Instance,
        exit_file: Path,
        translator: Translator,
        on_event: OnEvent,
    ) -> None:
        self.instance_id = instance.id
        self._instance = instance
        self.pid = 0
        self.started_at = 0
        self._exit_file = exit_file
        self._translator = translator
        self._on_event = on_event
        self._channel: Channel | None = None
        self._exited: asyncio.Future[ExitReport] = asyncio.get_running_loop().create_future()
        self._execs: OrderedDict[str, asyncio.Future[int]] = OrderedDict()
        self._events: deque[Message] = deque()
        self._dispatching: asyncio.Task[None] | None = None
        self._lost: asyncio.Task[None] | None = None

    # --- the connection --------------------------------------------------------------------------------------------

    def adopt(self, channel: Channel) -> None:
        """Take over the connection to the keeper; it was made with :meth:`take_event` as its ``on_event``."""
        self._channel = channel
        self._lost = asyncio.create_task(self._watch_channel(channel))

    def take_start(self, answer: asyncio.Future[Message]) -> None:
        """Take over pid and start time from the answer to ``start``."""
        if not answer.cancelled() and answer.exception() is None:
            self.pid = int(answer.result().get("pid", 0))
            self.started_at = int(answer.result().get("started_at", 0))

    def take_event(self, message: Message) -> None:
        """Called by the channel with each event."""
        name = message.get("event")
        if name == "exit":
            self._report(
                ExitReport(
                    exit_code=int(message.get("exit_code", 255)),
                    oom_killed=bool(message.get("oom_killed", False)),
                    error=str(message.get("error", "")),
                    started_at=self.started_at,
                    finished_at=int(message.get("finished_at", 0)) or time.time_ns(),
                )
            )
            return
        if name == "exec_exit":
            self._exec_ended(str(message.get("exec_id", "")), int(message.get("exit_code", 255)))
        self._events.append(message)
        if self._dispatching is None or self._dispatching.done():
            self._dispatching = asyncio.create_task(self._dispatch())

    def learn(self, status: Message) -> None:
        """Take over what the keeper says of itself (answer to ``watch`` after a reconnect)."""
        self.pid = int(status.get("pid") or 0)
        self.started_at = int(status.get("started_at") or 0)
        for entry in status.get("execs") or []:
            exec_id = str(entry.get("exec_id", ""))
            self._exec_future(exec_id)
            if not entry.get("running", False):
                self._exec_ended(exec_id, int(entry.get("exit_code") or 0))

    def abandon(self) -> None:
        """Let go of the keeper without ending anything (enisled ends)."""
        if self._channel is not None:
            if self._lost is not None:
                self._lost.cancel()
            self._channel.close()

    async def _dispatch(self) -> None:
        while self._events:
            message = self._events.popleft()
            try:
                await self._on_event(str(message.get("event", "")), message)
            except Exception:
                log.exception("instance %s: an event could not be handled: %s", self.instance_id[:12], message)

    async def _watch_channel(self, channel: Channel) -> None:
        await channel.wait_closed()
        if self._exited.done():
            return
        report = read_exit_file(self._exit_file)
        if report is None or (self.started_at and report.started_at not in (0, self.started_at)):
            log.warning("instance %s: its keeper has gone without a report", self.instance_id[:12])
            report = ExitReport(exit_code=255, error=_LOST, started_at=self.started_at, finished_at=time.time_ns())
        try:
            await self._translator.bury(self._instance)
        except EnisleError as error:
            log.error("instance %s: what its keeper left could not be removed: %s", self.instance_id[:12], error)
        except Exception:  # whatever it is, the end must be told
            log.exception("instance %s: what its keeper left could not be removed", self.instance_id[:12])
        self._report(report)

    def _report(self, report: ExitReport) -> None:
        if self._exited.done():
            return
        self._exited.set_result(report)
        for future in self._execs.values():
            if not future.done():
                future.set_result(137)  # an exec dies with its instance

    def _exec_future(self, exec_id: str) -> asyncio.Future[int]:
        future = self._execs.get(exec_id)
        if future is None:
            future = self._execs[exec_id] = asyncio.get_running_loop().create_future()
        return future

    def _exec_ended(self, exec_id: str, exit_code: int) -> None:
        future = self._exec_future(exec_id)
        if not future.done():
            future.set_result(exit_code)
        while len(self._execs) > _KEPT_EXECS:
            oldest = next((name for name, kept in self._execs.items() if kept.done()), None)
            if oldest is None:
                break
            del self._execs[oldest]

    async def request(
        self, op: str, fields: Message | None = None, *, fds: list[int] | None = None, timeout_s: float | None = None
    ) -> Message:
        """One request to the keeper. Conflict when the instance has ended."""
        if self._channel is None or not self._channel.is_open:
            raise Unavailable(f"Container {self.instance_id} is not running.")
        return await self._channel.request(op, fields, fds or (), timeout_s=timeout_s or CONTROL_TIMEOUT_S)

    @property
    def channel(self) -> Channel:
        """The connection, for file sessions. Conflict when the keeper is gone."""
        if self._channel is None or not self._channel.is_open:
            raise Conflict(f"Container {self.instance_id} is not running.")
        return self._channel

    # --- contracts.Running -----------------------------------------------------------------------------------------

    async def wait(self) -> ExitReport:
        """How it ended, once it has. Never raises: a keeper that was killed gives exit code 255 and the reason."""
        report = await asyncio.shield(self._exited)
        return report if report.started_at else dataclasses.replace(report, started_at=self.started_at)

    async def status(self) -> dict[str, Any]:
        return await self.request("status")

    async def attach(self, connection: Connection, *, logs: bool = False) -> None:
        await self.request("attach", attach_fields(connection, logs=logs), fds=[connection.fd])

    async def exec(self, exec_id: str, spec: ExecSpec, instance: Instance, connection: Connection | None) -> int:
        plan = self._translator.exec_plan(instance, spec)
        fields: Message = {"exec_id": exec_id, "process": plan}
        if connection is not None:
            fields |= attach_fields(connection)
        self._exec_future(exec_id)
        try:
            answer = await self.request(
                "exec", fields, fds=[] if connection is None else [connection.fd], timeout_s=120
            )
        except BaseException:
            self._execs.pop(exec_id, None)
            raise
        return int(answer.get("pid", 0))

    async def wait_exec(self, exec_id: str) -> int:
        future = self._execs.get(exec_id)
        if future is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return await asyncio.shield(future)

    async def resize(self, rows: int, columns: int, exec_id: str = "") -> None:
        await self.request("resize", {"exec_id": exec_id, "rows": rows, "columns": columns})

    async def signal(self, number: int, exec_id: str = "") -> None:
        await self.request("signal", {"exec_id": exec_id, "signal": number, "all": False})

    async def pause(self) -> None:
        await self.request("pause")

    async def unpause(self) -> None:
        await self.request("unpause")

    async def stats(self) -> dict[str, Any]:
        return await self.request("stats")

    async def top(self, ps_args: str) -> tuple[list[str], list[list[str]]]:
        answer = await self.request("top", {"ps_args": ps_args})
        return list(answer.get("titles", [])), [list(row) for row in answer.get("processes", [])]

    async def update(self, spec: InstanceSpec) -> None:
        await self.request("update", {"limits": self._translator.limits_plan(spec)})

    async def add_nic(self, endpoint: Endpoint) -> None:
        await self.request("nic_add", {"nic": self._translator.nic_plan(endpoint)})

    async def remove_nic(self, name: str) -> None:
        await self.request("nic_remove", {"name": name})

    async def relay(self, bound: Sequence[BoundPort], endpoint: Endpoint) -> None:
        await self.request("relay", self._translator.relays(bound, endpoint))
