"""Further processes in a running instance (docker exec): one session each, with stdio of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enisle.launcher.client import Client
from enisle.launcher.stdio import Stdio
from enisle.launcher.wall import Session, Wall, WallError

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop
    from enisle.wire.plans import ProcessPlan

_REMEMBERED = 256


@dataclass(slots=True)
class _Exec:
    stdio: Stdio
    session: Session | None = None
    exit_code: int = 0
    running: bool = True


class Execs:
    """The exec sessions of one instance, running and lately ended."""

    def __init__(self, loop: EpollLoop, publish: Callable[[dict[str, Any]], None]) -> None:
        self._loop = loop
        self._publish = publish
        self._execs: dict[str, _Exec] = {}

    @property
    def busy(self) -> bool:
        """Whether a client has still output to get."""
        return any(entry.stdio.busy for entry in self._execs.values())

    def start(
        self,
        wall: Wall,
        exec_id: str,
        process: ProcessPlan,
        client: Client | None,
        done: Callable[[int | WallError], None],
    ) -> None:
        """Begin a session; ``done`` gets its pid. After an error the client's connection is closed, unwritten."""
        if exec_id in self._execs:
            if client is not None:
                client.drop()
            done(WallError("conflict", f"exec {exec_id} has been started already"))
            return
        stdio = Stdio(
            self._loop,
            on_finished=lambda code: self._finished(exec_id, code),
            on_detached=lambda: self._publish({"event": "terminal_detached", "exec_id": exec_id}),
        )
        stdio.configure(process, None)
        entry = self._execs[exec_id] = _Exec(stdio)
        if client is not None:
            stdio.attach(client)

        def started(result: Session | WallError) -> None:
            if isinstance(result, WallError):
                del self._execs[exec_id]
                stdio.drop_clients()
                done(result)
                return
            entry.session = result
            done(result.pid)
            stdio.started(result)

        try:
            wall.start_exec(exec_id, process, stdio, started)
        except WallError as error:
            started(error)

    def session(self, exec_id: str) -> Session:
        """The running session of that id. WallError when there is none."""
        entry = self._execs.get(exec_id)
        if entry is None or not entry.running or entry.session is None:
            raise WallError("not_found", f"No such exec instance: {exec_id}")
        return entry.session

    def report(self) -> list[dict[str, Any]]:
        """For ``status``."""
        return [
            {
                "exec_id": exec_id,
                "pid": entry.session.pid if entry.session else 0,
                "running": entry.running,
                "exit_code": entry.exit_code,
            }
            for exec_id, entry in self._execs.items()
        ]

    def end_clients(self) -> None:
        """The instance has ended, and every exec with it; what is not finished by itself is closed."""
        for entry in self._execs.values():
            if entry.running:
                entry.stdio.drop_clients()

    def _finished(self, exec_id: str, exit_code: int) -> None:
        entry = self._execs[exec_id]
        entry.running = False
        entry.exit_code = exit_code
        self._publish({"event": "exec_exit", "exec_id": exec_id, "exit_code": exit_code})
        while len(self._execs) > _REMEMBERED:
            oldest = next(
                (name for name, kept in self._execs.items() if not kept.running and not kept.stdio.busy), None
            )
            if oldest is None:
                return
            del self._execs[oldest]
