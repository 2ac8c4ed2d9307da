"""A proxy between a generator of requests and a test's engine, which judges every answer.

The generator sees 599 for what must not happen: a server error other than 501 and 503, a traceback, an answer that the
description does not allow, no answer within 5 s (more on a machine that has more to do). Everything else it sees as it
is, but 501 and 503, which are allowed, as 400; and of answers that have no end it gets what came within a moment.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.api.contract.description import find
from tests.api.contract.http1 import Message, Reader, answer_length, parse_head, request_length
from tests.api.contract.recorder import faults

HANG_S = 5.0
MOMENT_S = 0.05
FAULT = 599
_ALLOWED = frozenset({501, 503})
_CHUNK_BYTES = 1 << 16

ENDLESS = frozenset(
    {
        "GET /events",
        "GET /containers/{id}/logs",
        "GET /containers/{id}/stats",
        "GET /containers/{id}/attach/ws",
        "POST /containers/{id}/attach",
        "POST /containers/{id}/wait",
        "POST /exec/{id}/start",
        "POST /session",
    }
)
"""Their answers go on for as long as the client wants; the head has to come at once all the same."""

SLOW = frozenset({"POST /containers/{id}/stop", "POST /containers/{id}/restart"})
"""Take as long as the request says: ``t`` seconds."""


class Judge:
    """Listens on a port of 127.0.0.1; ``faults`` are the answers that must not be."""

    def __init__(self, engine: Path) -> None:
        self._engine = engine
        self.faults: dict[str, str] = {}
        self.answers: dict[str, int] = {}
        self.slowest: dict[str, float] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        buffer = bytearray()
        with client, suppress(OSError):
            while (raw := _read_request(client, buffer)) is not None:
                client.sendall(self._judged(raw))

    def _judged(self, raw: bytes) -> bytes:
        request = parse_head(raw.partition(b"\r\n\r\n")[0])
        method, target, *_ = [*request.start.split(" "), "", ""]
        operation, version = find(method, target)
        name = operation.name if operation else f"{method} ?"
        begun = time.monotonic()
        limit_s = HANG_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        answer = _ask(self._engine, raw, method, limit_s, endless=name in ENDLESS)
        took = time.monotonic() - begun
        fault = ""
        if answer is None:
            fault = "" if name in SLOW else f"no answer within {limit_s:.0f} s"
        elif answer.status >= 500 and answer.status not in _ALLOWED:
            fault = f"{answer.status}: {bytes(answer.body or b'')[:300]!r}"
        else:
            fault = "; ".join(faults(operation, version, answer))
        with self._lock:
            status = answer.status if answer else 0
            self.answers[f"{name} {status}"] = self.answers.get(f"{name} {status}", 0) + 1
            if name not in SLOW:
                self.slowest[name] = max(self.slowest.get(name, 0.0), took)
            if fault:
                self.faults.setdefault(f"{name}: {fault}", raw[:2000].decode("utf-8", "replace"))
        return _for_generator(answer, fault, method)


def _read_request(client: socket.socket, buffer: bytearray) -> bytes | None:
    """The next request whole, one that comes in chunks with them; None at the end."""
    requests: list[Message] = []
    finished: list[Message] = []

    def opened(request: Message) -> int | None:
        requests.append(request)
        return request_length(request)

    reader = Reader(opened, finished.append)
    raw = bytearray()
    while not finished:
        data = bytes(buffer) or client.recv(_CHUNK_BYTES)
        buffer.clear()
        if not data:
            return None
        raw += data
        reader.feed(data)
    return bytes(raw)


def _ask(engine: Path, raw: bytes, method: str, limit_s: float, *, endless: bool) -> Message | None:
    """The engine's answer, as far as it has come; None without a head in time, or without an end that should come."""
    found: list[Message] = []
    finished: list[Message] = []

    def opened(answer: Message) -> int | None:
        if answer.status != 100:
            found.append(answer)
        return 0 if answer.status == 101 else answer_length(answer, method)

    reader = Reader(opened, lambda answer: None if answer.status == 100 else finished.append(answer))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(limit_s)
        sock.connect(str(engine))
        deadline = time.monotonic() + limit_s
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(raw)
        while not finished:
            if endless and found and found[0].status < 400:
                deadline = min(deadline, time.monotonic() + MOMENT_S)
                if time.monotonic() > deadline:  # it would go on saying what has been for longer than anybody listens
                    return found[0]
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = sock.recv(_CHUNK_BYTES)
            except TimeoutError:
                return found[0] if found and endless else None
            except ConnectionResetError:
                data = b""
            if not data:
                reader.end()
                break
            with suppress(ValueError):
                reader.feed(data)
    return found[0] if found else Message("HTTP/1.1 500 no answer", {}, bytearray(b"the connection was closed"))


def _for_generator(answer: Message | None, fault: str, method: str) -> bytes:
    status = FAULT if fault else 400 if answer is None or answer.status in _ALLOWED else answer.status
    body = fault.encode() if fault else bytes((answer.body if answer else b"") or b"")
    if status < 200 or status in (204, 304):
        status, body = (200 if status < 200 else status), b""
    media_type = answer.media_type if answer and not fault else "text/plain"
    head = f"HTTP/1.1 {status} x\r\nContent-Type: {media_type}\r\n"
    if status not in (204, 304):
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode("latin-1", "replace") + b"\r\n" + (b"" if method == "HEAD" else body)
