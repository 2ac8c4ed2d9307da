"""Files of the guest: tar streams between a pipe from enisled and the guest agent, each as fast as the slower end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.launcher.vm.calls import CallPeer, GuestCall
from enisle.launcher.vm.protocol import Call, GuestFault, ToGuest, text, u32
from enisle.launcher.wall import WallError

if TYPE_CHECKING:
    from enisle.launcher.vm.agent import Agent
    from enisle.launcher.wall import Loop

_CHUNK_BYTES = 128 << 10
_STAT_BYTES = 16 << 10
_CHANGES_BYTES = 64 << 20
_GO_TYPE_BITS = {
    0o040000: 1 << 31,
    0o120000: 1 << 27,
    0o060000: 1 << 26,
    0o020000: 1 << 26 | 1 << 21,
    0o010000: 1 << 25,
    0o140000: 1 << 24,
}
_GO_MODE_BITS = {0o4000: 1 << 23, 0o2000: 1 << 22, 0o1000: 1 << 20}
_STREAMS = {"get": Call.GET, "export": Call.EXPORT, "upper": Call.UPPER}

Done = Callable[[dict[str, Any] | WallError], None]


def serve(loop: Loop, agent: Agent, request: dict[str, Any], fds: list[int], done: Done) -> None:
    """Carry out one ``files`` request of wire.keeper; ``fds`` are ours from here."""
    verb, path = str(request.get("verb")), str(request.get("path") or "/")
    try:
        if verb in _STREAMS:
            Outflow(loop, agent, _STREAMS[verb], u32(0) + text(path), fds.pop(), done)
        elif verb == "put":
            Inflow(loop, agent, put_body(request, path), fds.pop(), done)
        elif verb == "stat":
            _stat(agent, path, done)
        elif verb == "changes":
            _changes(agent, done)
        else:
            done(WallError("not_supported", f"files: no verb {verb!r}"))
    except IndexError:
        done(WallError("invalid", f"files: {verb} needs a pipe"))
    finally:
        for fd in fds:
            os.close(fd)


def put_body(request: dict[str, Any], path: str) -> bytes:
    """The body of a PUT call."""
    flags = (1 if request.get("no_overwrite_dir_non_dir") else 0) | (2 if request.get("copy_uid_gid") else 0)
    return u32(flags) + text(path)


def _stat(agent: Agent, path: str, done: Done) -> None:
    def finish(result: bytes | WallError) -> None:
        if isinstance(result, WallError):
            done(result)
            return
        try:
            done({"stat": stat_answer(path, result)})
        except (ValueError, GuestFault, OverflowError):
            done(WallError("unavailable", "the guest's agent gave no sensible answer"))

    GuestCall(agent, Call.STAT, u32(0) + text(path), limit=_STAT_BYTES, done=finish)


def stat_answer(path: str, answer: bytes) -> dict[str, Any]:
    """What Docker's API says of a file, from the agent's "<mode> <size> <seconds> <nanoseconds> <link target>"."""
    mode, size, seconds, nanoseconds, target = answer.split(b" ", 4)
    return {
        "name": path.rstrip("/").rpartition("/")[2] or "/",
        "size": int(size),
        "mode": go_mode(int(mode)),
        "mtime": format_time(int(seconds) * 1_000_000_000 + int(nanoseconds)),
        "linkTarget": target.decode("utf-8", "surrogateescape"),
    }


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode, which Docker's API speaks."""
    bits = mode & 0o777 | _GO_TYPE_BITS.get(mode & 0o170000, 0)
    for unix, go in _GO_MODE_BITS.items():
        if mode & unix:
            bits |= go
    return bits


def format_time(time_ns: int) -> str:
    """Nanoseconds since the epoch in RFC 3339, trailing zeros dropped as Go does."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def _changes(agent: Agent, done: Done) -> None:
    def finish(result: bytes | WallError) -> None:
        done(result if isinstance(result, WallError) else {"changes": changes_answer(result)})

    GuestCall(agent, Call.CHANGES, u32(0) + text("/"), limit=_CHANGES_BYTES, done=finish)


def changes_answer(answer: bytes) -> list[list[str | int]]:
    """[path, kind] sorted by path, from the agent's "<kind><path>" NUL."""
    found = {
        item[1:].decode("utf-8", "surrogateescape"): item[0] - ord("0") for item in answer.split(b"\0") if item[:1]
    }
    return [[path, found[path]] for path in sorted(found) if found[path] in (0, 1, 2)]


class _Flow(CallPeer[dict[str, Any]]):
    """What both directions share: a pipe of ours, which is closed with the call."""

    def __init__(self, loop: Loop, agent: Agent, call: Call, body: bytes, fd: int, done: Done) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        super().__init__(agent, call, body, done)

    def _result(self) -> dict[str, Any]:
        return {}

    def _release(self) -> None:
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        os.close(self._fd)


class Outflow(_Flow):
    """From the guest into a pipe."""

    def __init__(self, loop: Loop, agent: Agent, call: Call, body: bytes, fd: int, done: Done) -> None:
        self._waiting = bytearray()
        super().__init__(loop, agent, call, body, fd, done)
        agent.send(ToGuest.INPUT_END, self._channel)

    def on_output(self, stream: int, data: bytes) -> None:
        if stream != 1:
            super().on_output(stream, data)
            return
        self._waiting += data  # bounded by the window that the guest was granted
        self._write()

    def _write(self) -> None:
        while self._waiting and self._done is not None:
            try:
                written = os.write(self._fd, self._waiting)
            except BlockingIOError:
                self._loop.add_writer(self._fd, self._write)
                return
            except OSError:  # nobody reads any more
                self._agent.abort(self._channel)
                self._finish(WallError("unavailable", "the copy was broken off"))
                return
            del self._waiting[:written]
            self._agent.consumed(self._channel, written)
        if self._done is not None:
            self._loop.remove_writer(self._fd)
            self._settle()

    def _pending(self) -> bool:
        return bool(self._waiting)


class Inflow(_Flow):
    """From a pipe into the guest."""

    def __init__(self, loop: Loop, agent: Agent, body: bytes, fd: int, done: Done) -> None:
        super().__init__(loop, agent, Call.PUT, body, fd, done)
        self._loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        room = min(self._agent.input_room(self._channel), _CHUNK_BYTES)
        if room <= 0:
            self._loop.remove_reader(self._fd)
            return
        try:
            data = os.read(self._fd, room)
        except BlockingIOError:
            return
        if data:
            self._agent.send_input(self._channel, data)
        else:
            self._loop.remove_reader(self._fd)
            self._agent.send(ToGuest.INPUT_END, self._channel)
            self._ended = True

    _ended = False

    def on_input_credit(self, size: int) -> None:
        if self._done is not None and not self._ended:
            self._loop.add_reader(self._fd, self._read)
