"""Sessions: processes that the guest's agent runs for its keeper."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.launcher.vm.messages import start_error
from enisle.launcher.vm.protocol import Failure, ToGuest, size_body, u32
from enisle.launcher.wall import Done, Session, WallError

if TYPE_CHECKING:
    from enisle.launcher.vm.agent import Agent
    from enisle.launcher.wall import SessionEvents

_STDIN_BYTES = 256 << 10


class GuestSession(Session):
    """A process in the guest, main or exec. Implements ``launcher.vm.agent.Peer``.

    ``pid`` is one of the host's or 0, whatever the guest says: people enter, signal and trace what it names.
    """

    def __init__(
        self,
        agent: Agent,
        body: bytes,
        events: SessionEvents,
        done: Done,
        *,
        on_signal: Callable[[int], None] = lambda _number: None,
        main: bool = True,
    ) -> None:
        self.pid = 0
        self._on_signal = on_signal
        self._main = main
        self._agent = agent
        self._events = events
        self._done: Done | None = done
        self._stdin = bytearray()
        self._stdin_ended = False
        self._full = False
        self._paused = False
        self._held: list[tuple[int, bytes]] = []
        self._closed = False
        self._finished = False
        self._exit_code: int | None = None
        self._channel = agent.open(ToGuest.RUN, body, self)

    # --- launcher.wall.Session -------------------------------------------------------------------------------------

    def write_stdin(self, data: bytes) -> bool:
        self._stdin += data
        self._push()
        self._full = len(self._stdin) > _STDIN_BYTES
        return not self._full

    def close_stdin(self) -> None:
        self._stdin_ended = True
        self._push()

    def pause_output(self) -> None:
        self._paused = True

    def resume_output(self) -> None:
        self._paused = False
        while self._held and not self._paused:
            self._deliver(*self._held.pop(0))
        self._finish_output()

    def resize(self, rows: int, columns: int) -> None:
        self._agent.send(ToGuest.RESIZE, self._channel, size_body(rows, columns))

    def signal(self, number: int) -> None:
        self._on_signal(number)
        self._agent.send(ToGuest.SIGNAL, self._channel, u32(number))

    # --- launcher.vm.agent.Peer ------------------------------------------------------------------------------------

    def on_started(self, pid: int) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self)

    def on_failed(self, failure: Failure) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(start_error(failure, main=self._main))

    def on_output(self, stream: int, data: bytes) -> None:
        if self._paused:
            self._held.append((stream, data))  # bounded by the window that the guest was granted
        else:
            self._deliver(stream, data)

    def on_closed(self) -> None:
        self._closed = True
        self._finish_output()

    def on_exited(self, code: int) -> None:
        if self._exit_code is None:
            self._exit_code = code
            self._events.on_exit(code)

    def on_input_credit(self, size: int) -> None:
        self._push()
        if self._full and len(self._stdin) <= _STDIN_BYTES // 2:
            self._full = False
            self._events.on_stdin_drained()

    def on_lost(self, code: int) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(WallError("unavailable", "the virtual machine ended before the command was started", 128))
            return
        self._paused = False
        self.resume_output()
        self.on_exited(code)
        self.on_closed()

    def _deliver(self, stream: int, data: bytes) -> None:
        self._events.on_output(stream, data)
        self._agent.consumed(self._channel, len(data))

    def _finish_output(self) -> None:
        if self._closed and not self._held and not self._finished:
            self._finished = True
            self._events.on_output_closed()

    def _push(self) -> None:
        room = self._agent.input_room(self._channel)
        if self._stdin and room > 0:
            self._agent.send_input(self._channel, bytes(self._stdin[:room]))
            del self._stdin[:room]
        if self._stdin_ended and not self._stdin:
            self._stdin_ended = False
            self._agent.send(ToGuest.INPUT_END, self._channel)
