"""The stdio of one session: output to the log and to every client, input from them, and when it is over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from enisle.launcher.client import DEFAULT_DETACH_KEYS, Client, DetachKeys
from enisle.launcher.log import Log, open_segment

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop, Timer
    from enisle.launcher.wall import Session
    from enisle.wire.plans import ProcessPlan

STALLED_S = 30.0
_DRAIN_S = 3.0


class Stdio:
    """Implements ``launcher.wall.SessionEvents`` for one process, main or exec.

    ``on_finished`` is called once, with the exit code, when the process has ended and all its output was taken;
    ``on_detached`` whenever a client let go by its keys.
    """

    def __init__(self, loop: EpollLoop, *, on_finished: Callable[[int], None], on_detached: Callable[[], None]) -> None:
        self._loop = loop
        self._on_finished = on_finished
        self._on_detached = on_detached
        self._clients: list[Client] = []
        self._log: Log | None = None
        self._session: Session | None = None
        self._terminal = False
        self._stdin = False
        self._stdin_once = False
        self._keys = DEFAULT_DETACH_KEYS
        self._paused = False
        self._stall: Timer | None = None
        self._stdin_full = False
        self._output_closed = False
        self._exit_code: int | None = None
        self._finished = False

    # --- setting up ------------------------------------------------------------------------------------------------

    def configure(self, process: ProcessPlan, log: Log | None) -> None:
        """What the plan says; before the process starts."""
        self._terminal = process.terminal
        self._stdin = process.stdin
        self._stdin_once = process.stdin_once
        self._keys = process.detach_keys.encode("latin-1") or DEFAULT_DETACH_KEYS
        self._log = log

    def started(self, session: Session) -> None:
        """The process runs; clients may type."""
        self._session = session
        for client in list(self._clients):
            self._prepare_input(client)
        if self._paused:
            session.pause_output()

    def attach(self, client: Client) -> None:
        """Add a client, at any time: before the start it waits, after the end it gets nothing but the log."""
        client.on_input = self._input
        client.on_input_end = self._input_end
        client.on_detach = self._detached
        client.on_drained = self._drained
        client.on_gone = self._gone
        self._clients.append(client)
        if client.options.logs and self._log is not None:
            client.replaying = True
            self._replay(client, self._recorded(client, self._log))
        if self._finished and not client.replaying:
            client.end()
        elif self._session is not None:
            self._prepare_input(client)

    @property
    def busy(self) -> bool:
        """Whether a client has still to be served."""
        return bool(self._clients)

    def drop_clients(self) -> None:
        """Close every connection now."""
        for client in list(self._clients):
            client.drop()

    def _prepare_input(self, client: Client) -> None:
        if not client.open or not client.options.stdin or not self._stdin:
            return
        if self._terminal:
            client.detach = DetachKeys(client.options.detach_keys or self._keys)
        if not self._stdin_full:
            client.start_reading()

    # --- output (SessionEvents) ------------------------------------------------------------------------------------

    def on_output(self, stream: int, data: bytes) -> None:
        """To the log and to every client that listens."""
        if self._log is not None:
            self._log.write(stream, data)
        for client in list(self._clients):
            if not client.replaying:
                client.send(stream, data)
        self._press_back()

    def on_output_closed(self) -> None:
        """The last of it has been delivered."""
        self._output_closed = True
        self._finish_if_over()

    def on_exit(self, exit_code: int) -> None:
        """The process ended. What it left in its pipes is little, so slow clients no longer hold it up."""
        if self._exit_code is None:
            self._exit_code = exit_code
            self._resume(forced=True)
            self._loop.call_later(_DRAIN_S, self._give_up_draining)
            self._finish_if_over()

    def _give_up_draining(self) -> None:
        if not self._finished:
            self.on_output_closed()

    def _finish_if_over(self) -> None:
        if self._exit_code is None or not self._output_closed or self._finished:
            return
        self._finished = True
        if self._log is not None:
            self._log.close()
        self._on_finished(self._exit_code)
        for client in list(self._clients):
            if not client.replaying:
                client.end()

    # --- back-pressure ---------------------------------------------------------------------------------------------

    def _press_back(self) -> None:
        if self._paused or self._exit_code is not None or not any(client.full for client in self._clients):
            return
        self._paused = True
        if self._session is not None:
            self._session.pause_output()
        if len(self._clients) > 1:
            self._stall = self._loop.call_later(STALLED_S, self._drop_stalled)

    def _drop_stalled(self) -> None:
        """A client that takes nothing may hold up the workload, but not the other clients."""
        for client in [client for client in self._clients if client.full]:
            if len(self._clients) > 1:
                client.drop()

    def _drained(self, _client: Client) -> None:
        self._resume(forced=False)

    def _resume(self, *, forced: bool) -> None:
        if not self._paused or (not forced and any(client.full for client in self._clients)):
            return
        self._paused = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._session is not None:
            self._session.resume_output()

    # --- input -----------------------------------------------------------------------------------------------------

    def _input(self, _client: Client, data: bytes) -> None:
        if self._session is None or self._exit_code is not None:
            return
        if not self._session.write_stdin(data):
            self._stdin_full = True
            for client in self._clients:
                client.pause_reading()

    def on_stdin_drained(self) -> None:
        """There is room in the process's stdin again."""
        self._stdin_full = False
        for client in list(self._clients):
            self._prepare_input_again(client)

    def _prepare_input_again(self, client: Client) -> None:
        if client.options.stdin and self._stdin:
            client.start_reading()

    def _input_end(self, _client: Client) -> None:
        if self._stdin_once and not self._terminal and self._session is not None:
            self._session.close_stdin()

    def _detached(self, client: Client) -> None:
        client.end()
        self._on_detached()

    def _gone(self, client: Client) -> None:
        self._clients.remove(client)
        if client.options.stdin and self._stdin and self._exit_code is None:
            self._input_end(client)
        self._resume(forced=False)

    # --- the past --------------------------------------------------------------------------------------------------

    def _recorded(self, client: Client, log: Log) -> Iterator[tuple[int, bytes]]:
        """What the log holds, then the unfinished lines; files that are rotated meanwhile are followed."""
        seen: set[int] = set()
        while True:
            path = next((name for name in log.rotated() if _inode(name) not in seen), None)
            if path is None or not client.open:
                break
            with open_segment(path) as file:
                seen.add(os.fstat(file.fileno()).st_ino)
                for line in file:
                    record = log.record(line)
                    if record is not None:
                        yield record
        for stream in (1, 2):
            yield stream, log.pending(stream)

    def _replay(self, client: Client, records: Iterator[tuple[int, bytes]]) -> None:
        """Send the past as fast as the client takes it; then it gets what is new."""
        for stream, data in records:
            client.send(stream, data)
            if client.full:
                self._loop.call_later(0.01, lambda: self._replay(client, records))
                return
            if not client.open:
                return
        client.replaying = False
        if self._finished:
            client.end()


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return -1
