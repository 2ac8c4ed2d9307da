"""Exec sessions: further processes inside running instances."""

from __future__ import annotations

from enisle.contracts import Connection
from enisle.model.ids import ExecId
from enisle.model.process import Exec, ExecSpec


class Execs:
    """Sessions live in memory; those that run are learnt again from the keepers after a restart of enisled."""

    async def create(self, ref: str, spec: ExecSpec) -> ExecId:
        """Conflict: "Container X is not running" (or is paused)."""
        raise NotImplementedError

    def get(self, exec_id: str) -> Exec:
        """NotFound: "No such exec instance: …"."""
        raise NotImplementedError

    def of(self, instance_id: str) -> list[str]:
        """The ids of an instance's sessions (inspect's ExecIDs)."""
        raise NotImplementedError

    async def check_start(self, exec_id: str) -> Exec:
        """Raise what start would before the command is tried (NotFound, Conflict), for use before a response head."""
        raise NotImplementedError

    async def start(
        self, exec_id: str, connection: Connection | None, *, console_size: tuple[int, int] = (0, 0)
    ) -> None:
        """Start it; None: detached. The engine owns (and closes) ``connection.fd`` from the call on, also when this
        raises. StartFailed (exit_code 126, 127): nothing was written to the connection, which is still open while
        the error travels only if the caller kept a duplicate."""
        raise NotImplementedError

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        raise NotImplementedError

    async def wait(self, exec_id: str) -> int:
        """Its exit code, once it has ended."""
        raise NotImplementedError
