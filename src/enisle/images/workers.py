"""The pool of worker processes: started when needed, kept for the next layer, ended when idle or on failure."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from enisle.cleanup import to_the_end
from enisle.errors import EnisleError, Internal, of_kind
from enisle.images.layer_job import LayerJob, LayerResult, write_all
from enisle.images.worker import FRAME_HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PIPE_BYTES = 1 << 20
_WAITING = 8  # jobs whose layer is still on its way: they wait for a network or a client more than they work
_LINE_LIMIT_BYTES = 256 << 20  # a result lists directories; their number is limited by the entries of a layer
_IDLE_S = 30.0
_PACKAGES = str(Path(__file__).parents[2])
_PROGRAM = "import sys; sys.path.insert(0, {path!r}); from enisle.images.worker import main; main({fd}, {pipe})"


class Feed:
    """The bytes of one layer on their way to a worker, for one thread at a time."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe  # ours to close

    def write(self, piece: bytes | memoryview) -> None:
        """Pass on some bytes, waiting for the worker as long as it takes. BrokenPipeError when it has ended."""
        if piece:
            write_all(self._pipe, len(piece).to_bytes(FRAME_HEAD_BYTES, "big"))
            write_all(self._pipe, piece)

    def finish(self) -> None:
        """That was all of the layer. BrokenPipeError as above."""
        write_all(self._pipe, bytes(FRAME_HEAD_BYTES))

    def close(self) -> None:
        """Let the pipe go, which tells the worker nothing: without ``finish``, its job has to be cancelled."""
        os.close(self._pipe)


class _Worker:
    """One process, the socket to it and the pipe for layers."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pipe: int) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._pipe = pipe

    @classmethod
    async def start(cls) -> _Worker:
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            with suppress(PermissionError):  # over the limit of a user
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            with theirs:
                program = _PROGRAM.format(path=_PACKAGES, fd=theirs.fileno(), pipe=reading)
                inherited = [theirs.fileno(), reading]
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-c", program, pass_fds=inherited, cwd="/", stdin=DEVNULL, stdout=DEVNULL
                )
            reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_LIMIT_BYTES)
        except BaseException:
            ours.close()
            os.close(writing)
            raise
        finally:
            os.close(reading)
        return cls(process, reader, writer, writing)

    def feed(self) -> Feed:
        return Feed(os.dup(self._pipe))

    async def run(
        self, job: LayerJob, source: Path | None, end: asyncio.Event, on_read: Callable[[int], None]
    ) -> LayerResult:
        """``source`` None: the layer comes by :meth:`feed`."""
        follow = not end.is_set()
        path = str(source) if source else ""
        self._send({"job": dataclasses.asdict(job), "source": path, "follow": follow and bool(path)})
        telling = asyncio.create_task(self._tell_end(end)) if follow and path else None
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
        os.close(self._pipe)


class Workers:
    """As many processes as there are CPUs work at the same time; further jobs wait.

    Those whose layer is still arriving do not count as working, or a few slow senders would hold up everybody.
    """

    def __init__(self, count: int = 0) -> None:
        self._slots = asyncio.Semaphore(count or max(2, len(os.sched_getaffinity(0))))
        self._waiting = asyncio.Semaphore(_WAITING)
        self._fed = asyncio.Semaphore(_WAITING)
        self._idle: list[_Worker] = []
        self._stopping: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def run(
        self, job: LayerJob, source: Path, *, end: asyncio.Event, on_read: Callable[[int], None]
    ) -> LayerResult:
        """Do a job. ``end`` is set once the source file is complete. A cancelled job's process has ended on return.

        Raises what :func:`enisle.images.layer_job.run` raises, as errors of ours.
        """
        if self._waiting.locked():
            await end.wait()
        async with self._slots if end.is_set() else self._waiting, self._worker() as worker:
            result = await worker.run(job, source, end, on_read)
            if not end.is_set():  # the line about the end may still be on its way: not fit for another job
                raise Internal("a layer ended before its download did")
            return result

    async def run_fed(
        self, job: LayerJob, opened: asyncio.Future[Feed], *, on_read: Callable[[int], None]
    ) -> LayerResult:
        """Do a job with a layer that is fed to it. ``opened`` gets the feed, which its receiver has to close."""
        async with self._fed, self._worker() as worker:
            if not opened.cancelled():
                opened.set_result(worker.feed())
            return await worker.run(job, None, asyncio.Event(), on_read)

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[_Worker]:
        """A process for one job. After a failure of the block it has ended."""
        worker = self._idle.pop() if self._idle else await _Worker.start()
        try:
            yield worker
        except BaseException:
            await to_the_end(self._stop(worker))  # what it unpacks into is removed next
            raise
        self._idle.append(worker)
        self._restart_timer()

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
