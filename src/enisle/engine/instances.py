"""The use cases of instances: what the API calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from enisle.contracts import Connection, ExitReport, Files
from enisle.engine.logs import LogRecord
from enisle.model.ids import ImageId
from enisle.model.image import ImageConfig
from enisle.model.instance import Instance, InstanceSpec, RestartPolicy
from enisle.model.resources import Resources


class Instances:
    """Everything one can do with instances. ``ref`` is a name, an id or the unique beginning of an id.

    Raises NotFound ("No such container: …") for a ``ref`` that names none, Invalid when a prefix fits several.
    """

    async def create(self, spec: InstanceSpec, *, name: str | None, warnings: list[str]) -> Instance:
        """Make an instance that is not started yet; ``warnings`` grows by what could not be honoured.

        ``spec.image_id`` may be "": the image is looked up, and the spec is completed from it. ``spec.isolation`` is
        decided here from ``spec.runtime``. NotFound: no such image; Conflict: the name is in use.
        """
        raise NotImplementedError

    async def get(self, ref: str) -> Instance:
        """The record as it is now."""
        raise NotImplementedError

    def all(self) -> list[Instance]:
        """All instances, the newest first."""
        raise NotImplementedError

    async def start(self, ref: str, *, detach_keys: str = "") -> None:
        """Start a created or ended instance. NotModified when it runs, StartFailed (exit_code 126, 127, 128)."""
        raise NotImplementedError

    async def stop(self, ref: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Send the stop signal, after ``timeout_s`` (None: the instance's own; negative: never) SIGKILL; wait.

        NotModified when it does not run.
        """
        raise NotImplementedError

    async def restart(self, ref: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop it if it runs, then start it."""
        raise NotImplementedError

    async def kill(self, ref: str, signal: str = "") -> None:
        """Send a signal ("KILL", "SIGHUP", "9"; "": KILL). Conflict when it does not run, Invalid: no such signal."""
        raise NotImplementedError

    async def pause(self, ref: str) -> None:
        raise NotImplementedError

    async def unpause(self, ref: str) -> None:
        raise NotImplementedError

    async def rename(self, ref: str, name: str) -> None:
        raise NotImplementedError

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove it: ``force`` kills it first; ``volumes`` takes its anonymous volumes along. Conflict: it runs."""
        raise NotImplementedError

    async def update(self, ref: str, *, resources: Resources | None, restart: RestartPolicy | None) -> list[str]:
        """Change limits (the complete new set) or the restart policy, running or not; warnings."""
        raise NotImplementedError

    async def prepare_wait(self, ref: str, condition: str = "not-running") -> Awaitable[ExitReport]:
        """Register for "not-running", "next-exit" or "removed" now; await the result for the end."""
        raise NotImplementedError

    async def wait(self, ref: str, condition: str = "not-running") -> ExitReport:
        return await (await self.prepare_wait(ref, condition))

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        raise NotImplementedError

    async def top(self, ref: str, ps_args: str = "") -> tuple[list[str], list[list[str]]]:
        """Titles and processes as ps(1) prints them. Conflict when it does not run."""
        raise NotImplementedError

    async def stats(self, ref: str) -> dict[str, Any]:
        """One reading, fields as of wire.keeper.Stats; all zeros when it does not run."""
        raise NotImplementedError

    async def attach(self, ref: str, connection: Connection, *, logs: bool = False) -> None:
        """Hand a client's connection to the instance. The engine owns (and closes) ``connection.fd`` from the call on,
        also when this raises.

        A running instance gets it at once; one that does not run when it starts, before its first byte of output;
        the call does not wait for that. ``logs`` replays what was logged so far first.
        """
        raise NotImplementedError

    async def check_attach(self, ref: str) -> Instance:
        """Raise what attach would (NotFound, Conflict when paused, ...), before a response head is written."""
        raise NotImplementedError

    def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        since_ns: int = 0,
        until_ns: int = 0,
        tail: int | None = None,
    ) -> AsyncIterator[LogRecord]:
        """The log, oldest first; ``follow`` goes on until the instance ends. An async iterator: do not await.

        NotSupported when no log is kept; errors are raised by the first step.
        """
        raise NotImplementedError

    def files(self, ref: str) -> AbstractAsyncContextManager[Files]:
        """The file system of the instance, running or not, for cp, export and diff."""
        raise NotImplementedError

    async def commit(
        self,
        ref: str,
        *,
        reference: str = "",
        config: ImageConfig | None = None,
        changes: Sequence[str] = (),
        author: str = "",
        message: str = "",
        pause: bool = True,
    ) -> ImageId:
        """An image of what the instance has written. ``config`` None: the instance's own; ``changes``: Dockerfile lines
        applied to it (CMD, ENV, LABEL, ...)."""
        raise NotImplementedError

    async def prune(self, match: Callable[[Instance], bool]) -> tuple[list[str], int]:
        """Remove each instance that does not run and matches; ids and the bytes freed."""
        raise NotImplementedError

    async def size(self, ref: str) -> tuple[int, int]:
        """Bytes of the writable layer, bytes of the whole root file system."""
        raise NotImplementedError
