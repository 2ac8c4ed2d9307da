"""An HTTP server on a unix socket that answers as a test tells it, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Asked:
    """One request. ``query`` has the last value of each name."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    connection: socket.socket

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """``body``: bytes or JSON; ``pieces`` instead are sent in chunks; ``hijack`` gets the bare connection."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Iterable[bytes] | None = None
    hijack: Callable[[socket.socket], None] | None = None
    close: bool = False


Handler = Callable[[Asked], Answer]


class FakeServer:
    """Routes are (method, regular expression on the path without version)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Asked] = []
        self.connections = 0
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self) -> str:
        return f"unix://{self.path}"

    def on(self, method: str, pattern: str, answer: Answer | Handler | Any) -> None:
        """Answer requests that match; what is neither an Answer nor callable is a JSON body."""
        if isinstance(answer, Answer):
            fixed = answer
        elif callable(answer):
            self._routes.append((method, re.compile(pattern), answer))
            return
        else:
            fixed = Answer(body=answer)
        self._routes.append((method, re.compile(pattern), lambda asked: fixed))

    def requests(self, method: str, pattern: str) -> list[Asked]:
        """Requests seen that match."""
        return [asked for asked in self.asked if asked.method == method and re.fullmatch(pattern, asked.path)]

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # A handler raises ConnectionError to break off; the client may do so itself.
        with connection, contextlib.suppress(ConnectionError):
            file = connection.makefile("rb")
            while asked := _read(file, connection):
                self.asked.append(asked)
                answer = self._answer(asked)
                if not _send(connection, asked, answer):
                    return

    def _answer(self, asked: Asked) -> Answer:
        for method, pattern, handler in self._routes:
            if method == asked.method and pattern.fullmatch(asked.path):
                return handler(asked)
        return Answer(404, {"message": "page not found"})


def _read(file: Any, connection: socket.socket) -> Asked | None:
    first = file.readline().decode().split()
    if len(first) != 3:
        return None
    headers = {}
    while line := file.readline().strip().decode():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(file.readline(), 16):
            body += file.read(size)
            file.readline()
        file.readline()
    else:
        body = file.read(int(headers.get("content-length", 0)))
    parts = urlsplit(first[1])
    path = re.sub(r"^/v\d+\.\d+", "", unquote(parts.path))
    query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    return Asked(first[0], path, query, headers, body, connection)


def _send(connection: socket.socket, asked: Asked, answer: Answer) -> bool:
    """Whether the connection can serve another request."""
    headers = dict(answer.headers)
    if answer.hijack is not None:
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        answer.hijack(connection)
        return False
    if answer.pieces is not None:
        headers["Transfer-Encoding"] = "chunked"
        body = b""
    else:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        headers["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(
        f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode() + (b"" if asked.method == "HEAD" else body)
    )
    for piece in answer.pieces or ():
        connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    if answer.pieces is not None:
        connection.sendall(b"0\r\n\r\n")
    return not answer.close


def frame(stream: int, data: bytes) -> bytes:
    """Docker's framing."""
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data
