"""Calls: what the guest's agent does for its keeper besides running processes; each ends with an answer or an error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from enisle.launcher.vm.protocol import Call, Failure, ToGuest, printable
from enisle.launcher.wall import WallError

if TYPE_CHECKING:
    from enisle.launcher.vm.agent import Agent

R = TypeVar("R")
_ERROR_BYTES = 1000
_RESULT_KINDS = {
    1: "internal",
    2: "not_found",
    3: "invalid",
    4: "conflict",
    5: "denied",
    6: "exhausted",
}


class CallPeer(ABC, Generic[R]):
    """What all calls share: their end, and what went wrong. Implements ``launcher.vm.agent.Peer``.

    ``done`` is told once: the result, when the call has ended, its streams are closed and nothing is pending, or why
    there is none.
    """

    def __init__(self, agent: Agent, call: Call, body: bytes, done: Callable[[R | WallError], None]) -> None:
        self._agent = agent
        self._done: Callable[[R | WallError], None] | None = done
        self._errors = bytearray()
        self._code: int | None = None
        self._closed = False
        self._channel = agent.open(ToGuest.CALL, bytes([call]) + body, self)

    @abstractmethod
    def _result(self) -> R:
        """What a call that succeeded gives."""

    def _pending(self) -> bool:
        """Whether something is still to be done before the end may be told."""
        return False

    def _release(self) -> None:
        """Let go of what the call held; it has ended."""

    def on_started(self, pid: int) -> None:
        """Calls do not say so."""

    def on_failed(self, failure: Failure) -> None:
        self._finish(WallError("unavailable", f"the guest's agent: {failure.detail}"))

    def on_output(self, stream: int, data: bytes) -> None:
        self._errors += data[: _ERROR_BYTES - len(self._errors)]
        self._agent.consumed(self._channel, len(data))

    def on_closed(self) -> None:
        self._closed = True
        self._settle()

    def on_exited(self, code: int) -> None:
        self._code = code
        self._settle()

    def on_input_credit(self, size: int) -> None:
        """Only a call with input cares."""

    def on_lost(self, code: int) -> None:
        self._finish(WallError("unavailable", "the virtual machine has ended"))

    def _settle(self) -> None:
        if self._code is not None and self._closed and not self._pending():
            self._finish(self._result() if self._code == 0 else call_error(self._code, bytes(self._errors)))

    def _finish(self, result: R | WallError) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._release()
            done(result)


class GuestCall(CallPeer[bytes]):
    """A call whose answer is collected, up to a limit."""

    def __init__(
        self, agent: Agent, call: Call, body: bytes, *, limit: int, done: Callable[[bytes | WallError], None]
    ) -> None:
        self._limit = limit
        self._output = bytearray()
        super().__init__(agent, call, body, done)
        agent.send(ToGuest.INPUT_END, self._channel)

    def _result(self) -> bytes:
        return bytes(self._output)

    def on_output(self, stream: int, data: bytes) -> None:
        if stream == 2:
            super().on_output(stream, data)
            return
        self._output += data
        self._agent.consumed(self._channel, len(data))
        if len(self._output) > self._limit:
            self.cancel(f"the guest's answer is longer than {self._limit} bytes")

    def cancel(self, reason: str) -> None:
        """Give up waiting."""
        self._agent.abort(self._channel)
        self._finish(WallError("unavailable", reason))


def call_error(code: int, message: bytes) -> WallError:
    """The failure of a call, from its exit code and what it wrote on its error stream."""
    return WallError(_RESULT_KINDS.get(code, "internal"), printable(message) or f"the guest's agent failed ({code})")
