"""The pool of worker processes: started when needed, kept for the next layer, ended when idle or on failure."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from pathlib import Path

from enisle.errors import EnisleError, Internal, of_kind
from enisle.images.cleanup import to_the_end
from enisle.images.layer_job import LayerJob, LayerResult

_LINE_LIMIT_BYTES = 256 << 20  # a result lists directories; their number is limited by the entries of a layer
_IDLE_S = 30.0
_PACKAGES = str(Path(__file__).parents[2])
_PROGRAM = "import sys; sys.path.insert(0, {path!r}); from enisle.images.worker import main; main({fd})"


class _Worker:
    """One process and the socket to it."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            program = _PROGRAM.format(path=_PACKAGES, fd=theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-c", program, pass_fds=[theirs.fileno()], cwd="/", stdin=DEVNULL, stdout=DEVNULL
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_LIMIT_BYTES)
        return cls(process, reader, writer)

    async def run(self, job: LayerJob, source: Path, end: asyncio.Event, on_read: Callable[[int], None]) -> LayerResult:
        follow = not end.is_set()
        self._send({"job": dataclasses.asdict(job), "source": str(source), "follow": follow})
        telling = asyncio.create_task(self._tell_end(end)) if follow else None
        try:
            while True:
                line = await self._reader.readline()
                if not line:
                    raise Internal("a worker process ended unexpectedly; see the log of the daemon.")
                message = json.loads(line)
                if "read" in message:
                    on_read(message["read"])
                elif "error" in message:
                    raise of_kind(*message["error"])
                else:
                    return LayerResult(**message["ok"])
        finally:
            if telling:
                telling.cancel()

    async def _tell_end(self, end: asyncio.Event) -> None:
        await end.wait()
        self._send({"end": True})

    def _send(self, message: object) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def stop(self) -> None:
        self._writer.close()
        if self.process.returncode is None:
            try:
                self.process.kill()
            except ProcessLookupError:
                pass
        await self.process.wait()


class Workers:
    """As many processes as there are CPUs work at the same time; further jobs wait."""

    def __init__(self, count: int = 0) -> None:
        self._slots = asyncio.Semaphore(count or max(2, len(os.sched_getaffinity(0))))
        self._idle: list[_Worker] = []
        self._stopping: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def run(
        self, job: LayerJob, source: Path, *, end: asyncio.Event, on_read: Callable[[int], None]
    ) -> LayerResult:
        """Do a job. ``end`` is set once the source file is complete. A cancelled job's process has ended on return.

        Raises what :func:`enisle.images.layer_job.run` raises, as errors of ours.
        """
        async with self._slots:
            worker = self._idle.pop() if self._idle else await _Worker.start()
            try:
                result = await worker.run(job, source, end, on_read)
            except BaseException:
                await to_the_end(self._stop(worker))  # what it unpacks into is removed next
                raise
            if not end.is_set():  # the line about the end may still be on its way: not fit for another job
                self._stop(worker)
                raise Internal("a layer ended before its download did")
            self._idle.append(worker)
            self._restart_timer()
            return result

    def _restart_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_IDLE_S, self._stop_idle)

    def _stop_idle(self) -> None:
        while self._idle:
            self._stop(self._idle.pop())

    def _stop(self, worker: _Worker) -> asyncio.Task[None]:
        task = asyncio.create_task(worker.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        return task

    async def close(self) -> None:
        """End all processes and wait for them."""
        if self._timer:
            self._timer.cancel()
        self._stop_idle()
        if self._stopping:
            await asyncio.gather(*self._stopping, return_exceptions=True)


def is_damage(error: EnisleError) -> bool:
    """Whether a job failed for what the layer is, not for where it was to go."""
    return error.kind.value == "invalid"
