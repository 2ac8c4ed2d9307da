"""The launcher seen from enisled: found or started, asked for keepers, started again when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import enisle
from enisle.drivers import native
from enisle.drivers.channel import Channel, connect
from enisle.drivers.native import Native
from enisle.errors import Unavailable
from enisle.wire.plans import GENERATION

SOCKET_NAME = "launcher.sock"
_READY_TIMEOUT_S = 20.0
_POLL_S = 0.003
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

log = logging.getLogger(__name__)


def command(run_root: Path, compiled: Native) -> list[str]:
    """The command that becomes the launcher: isolated (-I), without site-packages (-S), by path."""
    package = Path(enisle.__file__ or "").parent
    return [sys.executable, "-I", "-S", str(package / "launcher" / "main.py"), str(run_root), *compiled.words()]


class LauncherClient:
    """Asks the launcher for keepers. One per enisled; safe for any number of concurrent callers.

    The launcher outlives enisled and this object, and the keepers outlive the launcher: when it is gone, a new one
    is started on the next need (and at once, when it went while we were connected).
    """

    def __init__(self, run_root: Path) -> None:
        self._run_root = run_root
        self._path = str(run_root / SOCKET_NAME)
        self._channel: Channel | None = None
        self._opening: asyncio.Task[Channel] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._closing = False
        self.pid = 0

    async def open(self) -> None:
        """Connect to the launcher, or start one. Unavailable when it does not come up."""
        await self._connected()

    async def launch(self, instance_id: str, run_dir: Path) -> socket.socket:
        """The first connection of a new keeper, at once: what is sent on it waits until the keeper has been forked.

        When the launcher cannot fork, or dies, the connection ends without an answer.
        """
        channel = self._channel
        if channel is None or not channel.is_open:
            channel = await self._connected()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            answer = channel.post("launch", {"instance": instance_id, "run_dir": str(run_dir)}, [theirs.fileno()])
            answer.add_done_callback(_log_failure)
        finally:
            theirs.close()
        return ours

    async def close(self, *, quit: bool = True) -> None:
        """Let go of the launcher; with ``quit`` it ends (its keepers live on), as nobody needs it until the next
        enisled."""
        self._closing = True
        for task in (self._opening, self._watch):
            if task is not None:
                task.cancel()
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if quit and channel.is_open:
            with suppress(Unavailable):
                await channel.request("quit", timeout_s=5)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(channel.wait_closed(), 5)
        channel.close()

    async def _connected(self) -> Channel:
        if self._channel is not None and self._channel.is_open:
            return self._channel
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="launcher-open")
        return await asyncio.shield(self._opening)

    async def _open(self) -> Channel:
        channel = await self._find()
        if channel is None:
            channel = await self._spawn()
        self._channel = channel
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._keep_alive(), name="launcher-watch")
        return channel

    async def _find(self) -> Channel | None:
        """The launcher that listens already; None when there is none, or none that we understand."""
        sock = connect(self._path)
        if sock is None:
            return None
        channel = Channel(sock, peer="The launcher")
        try:
            answer = await channel.request("ping", timeout_s=10)
        except Unavailable:
            channel.close()
            return None
        if answer.get("generation") != GENERATION:
            log.info("the launcher is of generation %s, ours is %s: replacing it", answer.get("generation"), GENERATION)
            with suppress(Unavailable):
                await channel.request("quit", timeout_s=5)
            channel.close()
            return None
        self.pid = int(answer.get("pid", 0))
        return channel

    async def _spawn(self) -> Channel:
        """Start a launcher and wait until it answers."""
        if self._closing:
            raise Unavailable("The launcher is not there, and enisled is ending.")
        self._run_root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        compiled = await asyncio.to_thread(native.ensure, self._run_root)
        with open(self._run_root / "launcher.log", "ab", buffering=0) as errors:
            process = subprocess.Popen(  # noqa: ASYNC220 - once per host uptime, and it returns after vfork and exec
                command(self._run_root, compiled),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
                close_fds=True,
            )
        deadline = asyncio.get_running_loop().time() + _READY_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            channel = await self._find()
            if channel is not None:
                reap_later(process)
                return channel
            if process.poll() not in (None, 0):  # 0: it went on in another process
                break
            await asyncio.sleep(_POLL_S)
        raise Unavailable(
            f"The launcher did not come up (exit status {process.poll()}).",
            remedy=f"Its last words are in {self._run_root / 'launcher.log'}.",
        )

    async def _keep_alive(self) -> None:
        """Start the launcher again whenever it goes, so that the next start need not wait for it."""
        while not self._closing:
            channel = self._channel
            if channel is not None and channel.is_open:
                await channel.wait_closed()
            if self._closing:
                return
            log.warning("the launcher (pid %d) has ended; starting another one", self.pid)
            try:
                await self._connected()
            except Unavailable as error:
                log.error("%s", error)
                await asyncio.sleep(1)


def reap_later(process: subprocess.Popen[bytes]) -> None:
    """Collect the launcher's exit status whenever it ends, without a thread per process."""
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        process.poll()
        return

    def reap() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.wait()

    loop.add_reader(pidfd, reap)


def _log_failure(answer: asyncio.Future[dict[str, object]]) -> None:
    if not answer.cancelled() and (error := answer.exception()) is not None:
        log.error("the launcher could not start a keeper: %s", error)
