"""The seam inside a keeper: what each wall must offer to the keeper's core.

The core owns the protocol, logs, attached clients and exit reporting; a wall owns the workload. Everything runs on
one thread and one epoll loop: a wall never blocks longer than a system call does, and calls back on the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from enisle.wire.keeper import Stats
from enisle.wire.plans import LimitsPlan, NicPlan, ProcessPlan

STDOUT = 1
STDERR = 2


class Loop(Protocol):
    """The part of the keeper's loop that walls use. Callbacks take no argument and must not raise."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None: ...
    def remove_reader(self, fd: int) -> None: ...
    def add_writer(self, fd: int, callback: Callable[[], None]) -> None: ...
    def remove_writer(self, fd: int) -> None: ...
    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any: ...
    def watch_pid(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call back with the wait status once that child has ended (pidfd); it is reaped then."""


class SessionEvents(Protocol):
    """What the core wants to hear of one session."""

    def on_output(self, stream: int, data: bytes) -> None: ...
    def on_output_closed(self) -> None:
        """All output has been delivered."""

    def on_exit(self, exit_code: int) -> None:
        """The process ended; output may still follow. 128+n for signal n."""

    def on_stdin_drained(self) -> None:
        """More may be written to stdin after write_stdin returned False."""


class Session(ABC):
    """One process with its stdio: the main one, or an exec."""

    pid: int

    @abstractmethod
    def write_stdin(self, data: bytes) -> bool:
        """Queue bytes; False asks the caller to wait for on_stdin_drained. Never blocks."""

    @abstractmethod
    def close_stdin(self) -> None:
        """End of input after what is queued (for a terminal: nothing is sent, the user types ctrl-d)."""

    @abstractmethod
    def pause_output(self) -> None:
        """No on_output until resume_output; the workload then blocks in write, as on a full pipe."""

    @abstractmethod
    def resume_output(self) -> None: ...

    @abstractmethod
    def resize(self, rows: int, columns: int) -> None: ...

    @abstractmethod
    def signal(self, number: int) -> None: ...


class WallError(Exception):
    """A failure for the wire. ``kind`` as in enisle.errors.Kind; exit_code 126/127/128 for start and exec."""

    def __init__(self, kind: str, message: str, exit_code: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.exit_code = exit_code


Done = Callable[[Session | WallError], None]
"""Hears once how a start or an exec went."""


def _nothing() -> None:
    pass


class Wall(ABC):
    """One instance behind one wall. ``on_oom`` is the core's, to be called when memory has run out inside;
    ``warnings``: what of the plan could not be honoured, to be read once it runs.
    """

    on_oom: Callable[[], None] = staticmethod(_nothing)
    warnings: list[str] = []  # noqa: RUF012 - replaced, never changed in place

    @abstractmethod
    def start(self, plan: dict[str, Any], events: SessionEvents, done: Done, meanwhile: Callable[[], None]) -> None:
        """Begin; ``done`` is called once, when the program was exec'd or could not be. After an error all is undone.

        ``meanwhile``: what the core has to do before the program runs, to be called once before this returns, best when
        nothing else is left but to wait for others; for a wall with files in the run directory, first. It may raise.
        """

    @abstractmethod
    def open_files(self, plan: dict[str, Any], done: Callable[[WallError | None], None]) -> None:
        """Make ``files`` work for an instance that does not run; nothing of it is run. Undone by ``close``."""

    @abstractmethod
    def start_exec(self, exec_id: str, process: ProcessPlan, events: SessionEvents, done: Done) -> None: ...

    @abstractmethod
    def signal_all(self, number: int) -> None: ...

    @abstractmethod
    def pause(self, done: Callable[[WallError | None], None]) -> None: ...

    @abstractmethod
    def unpause(self, done: Callable[[WallError | None], None]) -> None: ...

    @abstractmethod
    def stats(self, done: Callable[[Stats | WallError], None]) -> None: ...

    @abstractmethod
    def top(self, ps_args: str, done: Callable[[dict[str, Any] | WallError], None]) -> None: ...

    @abstractmethod
    def update(self, limits: LimitsPlan, done: Callable[[WallError | None], None]) -> None: ...

    @abstractmethod
    def files(
        self, request: dict[str, Any], fds: list[int], done: Callable[[dict[str, Any] | WallError], None]
    ) -> None:
        """Copy, stat, export, changes: see wire.keeper ``files``; ``fds`` become the wall's."""

    @abstractmethod
    def add_nic(self, nic: NicPlan, done: Callable[[WallError | None], None]) -> None: ...

    @abstractmethod
    def remove_nic(self, name: str, done: Callable[[WallError | None], None]) -> None: ...

    @abstractmethod
    def oom_killed(self) -> bool:
        """Whether the kernel killed the workload for its memory limit."""

    def failure(self) -> str:
        """Why the instance ended, when it was not the workload's doing; "" else."""
        return ""

    @abstractmethod
    def close(self) -> None:
        """Kill whatever is left, wait for it, remove cgroups, links, sockets and temporary files. Idempotent."""
