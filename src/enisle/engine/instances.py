"""The use cases of instances: what the API calls."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from enisle.contracts import Connection, ExitReport, Files, Running
from enisle.engine import committing, launch, stopping
from enisle.engine.announce import announce
from enisle.engine.core import Core
from enisle.engine.create import create
from enisle.engine.early import close_connections
from enisle.engine.journalread import read_journal
from enisle.engine.links import unlink
from enisle.engine.logs import LogRecord, read_log
from enisle.engine.slots import Slot
from enisle.errors import Conflict, EnisleError, Invalid, NotFound, NotSupported
from enisle.linux.disk_usage import allocated_bytes
from enisle.model.event import Event
from enisle.model.ids import ImageId
from enisle.model.image import ImageConfig
from enisle.model.instance import Instance, InstanceSpec, RestartPolicy, Status
from enisle.model.resources import Resources


class _Wanted(TypedDict):
    """Which part of a log."""

    stdout: bool
    stderr: bool
    since_ns: int
    until_ns: int
    tail: int | None
    ended: Awaitable[object] | None


_CONDITIONS = ("not-running", "next-exit", "removed")


class Instances:
    """Everything one can do with instances. ``ref`` is a name, an id or the unique beginning of an id.

    Raises NotFound ("No such container: …") for a ``ref`` that names none, Invalid when a prefix fits several.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def create(
        self,
        spec: InstanceSpec,
        *,
        name: str | None,
        warnings: list[str],
        defaults: ImageConfig | None = None,
    ) -> Instance:
        """Make an instance that is not started yet; ``warnings`` grows by what could not be honoured.

        ``spec.image_id`` may be "": the image is looked up, and the spec is completed from it. ``spec.isolation`` is
        decided here from ``spec.runtime``. NotFound: no such image; Conflict: the name is in use. ``defaults`` stand
        in for the image's own config.
        """
        return await create(self._core, spec, name=name, warnings=warnings, defaults=defaults)

    async def get(self, ref: str) -> Instance:
        """The record as it is now."""
        return self._core.slots.find(ref).record

    def all(self) -> list[Instance]:
        """All instances, the newest first."""
        return self._core.slots.newest_first()

    def directory(self, instance_id: str) -> Path:
        """Where its files and logs are on this host."""
        return self._core.directory(instance_id)

    async def start(self, ref: str, *, detach_keys: str = "") -> None:
        """Start a created or ended instance. NotModified when it runs, StartFailed (exit_code 126, 127, 128)."""
        slot = self._core.slots.find(ref)
        await self._core.unhurried(launch.start(self._core, slot), name=f"start {slot.id[:12]}")

    async def stop(self, ref: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Send the stop signal, after ``timeout_s`` (None: the instance's own; negative: never) SIGKILL; wait.

        NotModified when it does not run.
        """
        await stopping.stop(self._core, self._core.slots.find(ref), timeout_s=timeout_s, signal=signal)

    async def restart(self, ref: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        """Stop it if it runs, then start it."""
        slot = self._core.slots.find(ref)
        restart = stopping.restart(self._core, slot, timeout_s=timeout_s, signal=signal)
        await self._core.unhurried(restart, name=f"restart {slot.id[:12]}")

    async def kill(self, ref: str, signal: str = "") -> None:
        """Send a signal ("KILL", "SIGHUP", "9"; "": KILL). Conflict when it does not run, Invalid: no such signal."""
        await stopping.kill(self._core, self._core.slots.find(ref), signal)

    async def pause(self, ref: str) -> None:
        await stopping.pause(self._core, self._core.slots.find(ref))

    async def unpause(self, ref: str) -> None:
        await stopping.unpause(self._core, self._core.slots.find(ref))

    async def rename(self, ref: str, name: str) -> None:
        """Invalid: no name, or the present one; Conflict: it is in use."""
        slot = self._core.slots.find(ref)
        async with slot.lock:
            old = slot.record.name
            if not name.strip("/"):
                raise Invalid("Neither old nor new names may be empty")
            if name.removeprefix("/") == old:
                raise Invalid("Renaming a container with the same name as its current name")
            new = self._core.slots.claim_name(name, slot.id)
            await self._core.slots.rename(slot, new)
            announce(self._core, slot.record, "rename", oldName=f"/{old}")

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove it: ``force`` kills it first; ``volumes`` takes its anonymous volumes along. Conflict: it runs.

        ``link``: remove only the link that ``ref`` ("name/alias") stands for.
        """
        if link:
            name, _, alias = ref.removeprefix("/").partition("/")
            if not alias:
                raise Conflict(f"Conflict, cannot remove the default link name of the container: {ref}")
            await unlink(self._core, self._core.slots.find(name), alias)
            return
        slot = self._core.slots.find(ref)
        remove = stopping.remove(self._core, slot, force=force, volumes=volumes)
        await self._core.unhurried(remove, name=f"remove {slot.id[:12]}")

    async def update(self, ref: str, *, resources: Resources | None, restart: RestartPolicy | None) -> list[str]:
        """Change limits (the complete new set) or the restart policy, running or not; warnings."""
        slot = self._core.slots.find(ref)
        async with slot.lock:
            if slot.removed or slot.status is Status.REMOVING:
                raise Conflict(
                    f"Cannot update container {slot.id}: container is marked for removal and cannot be updated"
                )
            spec = slot.record.spec
            if restart is not None and spec.auto_remove and restart.kind != "no":
                raise Invalid("Restart policy cannot be updated because AutoRemove is enabled for the container")
            spec = replace(spec, resources=resources or spec.resources, restart=restart or spec.restart)
            # The host name was filled in at create: drivers refuse one beside --uts host.
            driver = self._core.driver(spec)
            known = driver.check(replace(slot.record.spec, hostname=""))
            warnings = [text for text in driver.check(replace(spec, hostname="")) if text not in known]
            if slot.running is not None and resources is not None:
                await slot.running.update(spec)
            await self._core.slots.change(slot, spec=spec)
        announce(self._core, slot.record, "update")
        return warnings

    async def prepare_wait(self, ref: str, condition: str = "not-running") -> Awaitable[ExitReport]:
        """Register for "not-running", "next-exit" or "removed" now; await the result for the end."""
        if condition not in _CONDITIONS:
            raise Invalid(f'invalid condition: "{condition}"')
        slot = self._core.slots.find(ref)
        future = slot.add_waiter(condition)
        if condition == "not-running" and not slot.alive:
            future.set_result(slot.report())
        return future

    async def wait(self, ref: str, condition: str = "not-running") -> ExitReport:
        return await (await self.prepare_wait(ref, condition))

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        slot = self._core.slots.find(ref)
        await self._running(slot).resize(rows, columns)
        announce(self._core, slot.record, "resize", height=str(rows), width=str(columns))

    async def top(self, ref: str, ps_args: str = "") -> tuple[list[str], list[list[str]]]:
        """Titles and processes as ps(1) prints them. Conflict when it does not run."""
        slot = self._core.slots.find(ref)
        if slot.status is Status.RESTARTING:
            raise Conflict(f"Container {slot.id} is restarting, wait until the container is running")
        processes = await self._running(slot).top(ps_args)
        announce(self._core, slot.record, "top")
        return processes

    async def stats(self, ref: str) -> dict[str, Any]:
        """One reading, fields as of wire.keeper.Stats; all zeros when it does not run."""
        slot = self._core.slots.find(ref)
        if slot.running is not None:
            with contextlib.suppress(EnisleError):
                return await slot.running.stats()
        return no_stats()

    async def attach(self, ref: str, connection: Connection, *, logs: bool = False) -> None:
        """Hand a client's connection to the instance. The engine owns (and closes) ``connection.fd`` from the call on,
        also when this raises.

        A running instance gets it at once; one that does not run when it starts, before its first byte of output;
        the call does not wait for that. ``logs`` replays what was logged so far first.
        """
        try:
            slot = self._attachable(ref)
        except BaseException:
            close_connections([connection])
            raise
        if slot.running is None:
            slot.early.add(connection)
        else:
            try:
                await slot.running.attach(connection, logs=logs)
            finally:
                close_connections([connection])
        announce(self._core, slot.record, "attach")

    async def check_attach(self, ref: str) -> Instance:
        """Raise what attach would (NotFound, Conflict when paused, ...), before a response head is written."""
        return self._attachable(ref).record

    def _attachable(self, ref: str) -> Slot:
        slot = self._core.slots.find(ref)
        if slot.status is Status.PAUSED:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if slot.status is Status.RESTARTING:
            raise Conflict(f"container {ref} is restarting, wait until the container is running")
        if slot.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"container {ref} is marked for removal and cannot be attached to")
        return slot

    async def logs(
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
        slot = self._core.slots.find(ref)
        path = launch.log_path(self._core, slot.record)
        if path is None and slot.record.spec.log.driver != "journald":
            raise NotSupported("configured logging driver does not support reading")
        follow = follow and slot.running is not None and not 0 < until_ns <= time.time_ns()
        wanted: _Wanted = {
            "stdout": stdout,
            "stderr": stderr,
            "since_ns": since_ns,
            "until_ns": until_ns,
            "tail": tail,
            "ended": self._end_of(slot, until_ns) if follow else None,
        }
        if path is None:
            source = read_journal(slot.id, **wanted)
        else:
            source = read_log(path, **wanted, changes=self._core.watch_directory(path.parent) if follow else None)
        async for record in source:
            yield record

    async def _end_of(self, slot: Slot, until_ns: int) -> None:
        """Return when a follower has nothing more to expect."""
        ended: asyncio.Future[ExitReport] = slot.add_waiter("not-running")
        if not slot.alive:
            return
        timeout_s = max(0.0, (until_ns - time.time_ns()) / 1e9) if until_ns else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended, timeout_s)

    @asynccontextmanager
    async def files(self, ref: str) -> AsyncIterator[Files]:
        """The file system of the instance, running or not, for cp, export and diff."""
        slot = self._core.slots.find(ref)
        if slot.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(f"container {ref} is marked for removal")
        async with launch.files(self._core, slot, slot.running) as files:
            yield files

    def tell(self, ref: str, action: str) -> None:
        """Publish what was done with an instance's files: "archive-path", "extract-to-dir", "export"."""
        announce(self._core, self._core.slots.find(ref).record, action)

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
        return await committing.commit(
            self._core,
            self._core.slots.find(ref),
            reference=reference,
            config=config,
            changes=changes,
            author=author,
            message=message,
            pause=pause,
        )

    async def prune(self, match: Callable[[Instance], bool]) -> tuple[list[str], int]:
        """Remove each instance that does not run and matches; ids and the bytes freed on the disk, logs among them."""
        ids, freed = [], 0
        for record in self.all():
            if record.state.status not in (Status.CREATED, Status.EXITED, Status.DEAD) or not match(record):
                continue
            try:
                size = await asyncio.to_thread(allocated_bytes, self.directory(record.id))
                await self.remove(record.id)
            except (NotFound, Conflict):
                continue  # somebody started or removed it
            ids.append(str(record.id))
            freed += size
        prune_done = Event(kind="container", action="prune", actor="", attributes={"reclaimed": str(freed)})
        self._core.events.publish(prune_done)
        return ids, freed

    async def size(self, ref: str) -> tuple[int, int]:
        """Bytes of the writable layer, bytes of the whole root file system."""
        record = self._core.slots.find(ref).record
        written = await self._core.driver(record).disk_usage(self._core.directory(record.id))
        try:
            image = await self._core.image_store.get(record.spec.image_id)
        except NotFound:
            return written, written
        return written, written + image.size_bytes

    def _running(self, slot: Slot) -> Running:
        if slot.running is None:
            raise Conflict(f"Container {slot.id} is not running")
        return slot.running


def no_stats() -> dict[str, Any]:
    """The reading of an instance that does not run, with the fields of the keepers' protocol."""
    counts = (
        "cpu_total_ns cpu_user_ns cpu_system_ns throttled_periods periods throttled_ns memory_bytes memory_max_bytes "
        "memory_limit_bytes pids pids_limit block_read_bytes block_write_bytes"
    ).split()
    empty: dict[str, Any] = {"cpu_percpu_ns": [], "memory_stats": {}, "block_io": [], "nics": {}}
    return {"read_at": time.time_ns(), **dict.fromkeys(counts, 0), **empty}
