"""A driver without processes, for tests of everything above drivers.

Instances "run" until they are told to end: by ``FakeRunning.finish``, or by a signal that is not in ``ignored``.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from enisle.contracts import Connection, ExitReport, Files, Launch, Running
from enisle.errors import Conflict, NotFound, StartFailed
from enisle.model.instance import BoundPort, Endpoint, Instance, InstanceSpec
from enisle.model.process import ExecSpec

OnEvent = Callable[[str, dict[str, Any]], Awaitable[None]]

_SIGNALLED = 128
MISSING = "missing"
"""The command that cannot be started."""


class FakeRunning:
    """One instance that is said to run. Implements contracts.Running."""

    def __init__(self, driver: FakeDriver, instance: Instance, exit_file: Path, on_event: OnEvent) -> None:
        driver.pids += 1
        self.pid = driver.pids
        self.started_at = time.time_ns()
        self.instance = instance
        self.paused = False
        self.ignored: set[int] = set()
        self.signals: list[tuple[int, str]] = []
        self.attached: list[bytes] = []
        self.nics: list[str] = []
        self.size: tuple[int, int] = (0, 0)
        self.spec: InstanceSpec = instance.spec
        self._driver = driver
        self._exit_file = exit_file
        self.on_event = on_event
        self.exited: asyncio.Future[ExitReport] = asyncio.get_running_loop().create_future()
        self.execs: dict[str, asyncio.Future[int]] = {}
        self.exec_fault: Exception | None = None

    def finish(self, exit_code: int = 0, *, oom_killed: bool = False, tell: bool = True) -> None:
        """End it as a keeper would: the report on disk first. ``tell`` False: nobody is connected to hear of it."""
        report = ExitReport(
            exit_code=exit_code, oom_killed=oom_killed, started_at=self.started_at, finished_at=time.time_ns()
        )
        values = {name: getattr(report, name) for name in ExitReport.__slots__}
        self._exit_file.write_text(json.dumps(values))
        self._driver.running.pop(self.instance.id, None)
        shutil.rmtree(self._driver.run_directory(self.instance.id), ignore_errors=True)
        if tell and not self.exited.done():
            self.exited.set_result(report)

    async def wait(self) -> ExitReport:
        return await asyncio.shield(self.exited)

    async def status(self) -> dict[str, Any]:
        execs = [
            {"exec_id": name, "pid": 1, "running": not done.done(), "exit_code": done.result() if done.done() else None}
            for name, done in self.execs.items()
        ]
        return {"state": "paused" if self.paused else "running", "pid": self.pid, "execs": execs}

    async def attach(self, connection: Connection, *, logs: bool = False) -> None:
        self._alive()
        os.write(connection.fd, b"attached\n")
        self.attached.append(connection.initial)

    async def exec(self, exec_id: str, spec: ExecSpec, instance: Instance, connection: Connection | None) -> int:
        self._alive()
        if self.exec_fault is not None:
            raise self.exec_fault
        if spec.command[0] == MISSING:
            raise StartFailed(f'exec: "{MISSING}": executable file not found in $PATH', exit_code=127)
        self.execs[exec_id] = asyncio.get_running_loop().create_future()
        if connection is not None:
            os.write(connection.fd, " ".join(spec.command).encode())
        return self.pid + 1000 + len(self.execs)

    async def finish_exec(self, exec_id: str, exit_code: int) -> None:
        """End one session."""
        self.execs[exec_id].set_result(exit_code)
        await self.on_event("exec_exit", {"exec_id": exec_id, "exit_code": exit_code})

    async def wait_exec(self, exec_id: str) -> int:
        if exec_id not in self.execs:
            raise NotFound(f"No such exec instance: {exec_id}")
        return await asyncio.shield(self.execs[exec_id])

    async def resize(self, rows: int, columns: int, exec_id: str = "") -> None:
        self.size = (rows, columns)

    async def signal(self, number: int, exec_id: str = "") -> None:
        self._alive()
        self.signals.append((number, exec_id))
        if not exec_id and number not in self.ignored:
            self.finish(_SIGNALLED + number)

    async def pause(self) -> None:
        self._alive()
        self.paused = True

    async def unpause(self) -> None:
        self.paused = False

    async def stats(self) -> dict[str, Any]:
        return {"read_at": time.time_ns(), "pids": 1}

    async def top(self, ps_args: str) -> tuple[list[str], list[list[str]]]:
        return ["PID", "CMD"], [[str(self.pid), " ".join(self.instance.args)]]

    async def update(self, spec: InstanceSpec) -> None:
        self.spec = spec

    async def add_nic(self, endpoint: Endpoint) -> None:
        self.nics.append(endpoint.name)

    async def relay(self, bound: Sequence[BoundPort], endpoint: Endpoint) -> None:
        del bound, endpoint  # nothing connects to it

    async def remove_nic(self, name: str) -> None:
        self.nics.remove(name)

    def abandon(self) -> None:
        """Nothing is held."""

    def _alive(self) -> None:
        if self.exited.done():
            raise Conflict(f"Container {self.instance.id} is not running.")


class FakeFiles:
    """The files of a fake instance: those of its upper directory. Implements contracts.Files."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def stat(self, path: str) -> dict[str, Any]:
        found = self._root / path.lstrip("/")
        if not found.exists():
            raise NotFound(f"Could not find the file {path} in container")
        return {"name": found.name, "size": found.stat().st_size, "mode": 0o644, "mtime": 0, "linkTarget": ""}

    async def get(self, path: str) -> AsyncIterator[bytes]:
        return _once((self._root / path.lstrip("/")).read_bytes())

    async def put(
        self, path: str, source: AsyncIterator[bytes], *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None:
        content = b"".join([piece async for piece in source])
        (self._root / path.lstrip("/")).write_bytes(content)

    async def export(self) -> AsyncIterator[bytes]:
        return _once(b"root")

    async def changes(self) -> list[tuple[str, int]]:
        return [(f"/{entry.name}", 1) for entry in sorted(self._root.iterdir())]

    async def layer(self) -> AsyncIterator[bytes]:
        return _once(b"layer")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


class FakeDriver:
    """Implements contracts.Driver. ``running`` survives the engine, as keepers do."""

    def __init__(self, run_root: Path) -> None:
        self.run_root = run_root
        self.pids = 100
        self.running: dict[str, FakeRunning] = {}
        self.launches: list[Launch] = []
        self.warnings: list[str] = []
        self.start_fault: Exception | None = None
        self.may_start = asyncio.Event()  # starts wait for it, as those of slow machines do
        self.may_start.set()
        self.destroy_fault: Exception | None = None

    def run_directory(self, instance_id: str) -> Path:
        return self.run_root / "instances" / instance_id[:16]

    def check(self, spec: InstanceSpec) -> list[str]:
        return list(self.warnings)

    async def prepare(self, launch: Launch) -> None:
        (launch.directory / "upper").mkdir(exist_ok=True)

    async def start(self, launch: Launch, on_event: OnEvent) -> Running:
        self.launches.append(launch)
        await self.may_start.wait()
        if self.start_fault is not None:
            raise self.start_fault
        if launch.instance.args[0] == MISSING:
            raise StartFailed(f'exec: "{MISSING}": executable file not found in $PATH', exit_code=127)
        exit_file = launch.directory / "exit.json"
        exit_file.unlink(missing_ok=True)
        running = FakeRunning(self, launch.instance, exit_file, on_event)
        self.running[launch.instance.id] = running
        self.run_directory(launch.instance.id).mkdir(parents=True, exist_ok=True)
        for connection in launch.connections:
            await running.attach(connection)
        return running

    async def reconnect(self, instance: Instance, on_event: OnEvent) -> Running | None:
        running = self.running.get(instance.id)
        if running is not None:
            running.on_event = on_event
        else:
            shutil.rmtree(self.run_directory(instance.id), ignore_errors=True)
        return running

    @asynccontextmanager
    async def files(self, launch: Launch, running: Running | None) -> AsyncIterator[Files]:
        yield FakeFiles(launch.directory / "upper")

    async def disk_usage(self, directory: Path) -> int:
        return sum(entry.stat().st_size for entry in (directory / "upper").rglob("*") if entry.is_file())

    async def destroy(self, directory: Path) -> None:
        if self.destroy_fault is not None:
            raise self.destroy_fault
        shutil.rmtree(directory / "upper", ignore_errors=True)
