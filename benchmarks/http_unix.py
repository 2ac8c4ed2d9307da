"""A small HTTP client over a unix socket: one kept connection and no more than is needed, for it is measured, too.

Python's own client takes 0.1 ms more for each request, and sends it in two pieces.
"""

from __future__ import annotations

import json
import socket
from typing import Any

_TIMEOUT_S = 120


class Connection:
    """Sends requests and reads whole answers, one after the other."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(_TIMEOUT_S)
        self._sock.connect(path)
        self._buffer = b""

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of the answer. ConnectionError when there is none."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._sock.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        head_lines = self._until(b"\r\n\r\n").lower().split(b"\r\n")
        status = int(head_lines[0].split()[1])
        fields = dict(line.split(b":", 1) for line in head_lines[1:] if line)
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            return status, self._chunks()
        if b"content-length" in fields:
            return status, self._exactly(int(fields[b"content-length"]))
        return status, b"" if status in (204, 304) else self._rest()

    def close(self) -> None:
        self._sock.close()

    def _receive(self) -> None:
        data = self._sock.recv(1 << 18)
        if not data:
            raise ConnectionError("the connection ended within an answer")
        self._buffer += data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._receive()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._receive()
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return found

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            parts.append(self._exactly(size))
            self._until(b"\r\n")
        self._until(b"\r\n")
        return b"".join(parts)

    def _rest(self) -> bytes:
        """Until the connection is closed: a raw stream."""
        try:
            while True:
                self._receive()
        except ConnectionError:
            found, self._buffer = self._buffer, b""
            return found


class Api:
    """Docker's Engine API, as far as the measurements need it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: Connection | None = None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; the decoded answer. RuntimeError for a status of 400 and more."""
        if self._connection is None:
            self._connection = Connection(self._path)
        status, content = self._connection.ask(method, "/v1.41" + path, body)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {content[:300]!r}")
        return json.loads(content) if content.strip() else None

    def create(self, image: str, command: list[str], **host_config: Any) -> str:
        """Make a container; its id."""
        body = {"Image": image, "Cmd": command, "HostConfig": host_config}
        return str(self.call("POST", "/containers/create", body)["Id"])

    def start(self, instance: str) -> None:
        self.call("POST", f"/containers/{instance}/start")

    def wait(self, instance: str) -> int:
        return int(self.call("POST", f"/containers/{instance}/wait")["StatusCode"])

    def remove(self, instance: str, *, force: bool = False) -> None:
        self.call("DELETE", f"/containers/{instance}?force={int(force)}&v=1")

    def pid(self, instance: str) -> int:
        """The pid of its main process on the host."""
        return int(self.call("GET", f"/containers/{instance}/json")["State"]["Pid"])

    def exec(self, instance: str, command: list[str]) -> int:
        """Run a command in it; its exit code."""
        body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        exec_id = self.call("POST", f"/containers/{instance}/exec", body)["Id"]
        connection = Connection(self._path)
        connection.ask("POST", f"/v1.41/exec/{exec_id}/start", {"Detach": False, "Tty": False})
        connection.close()
        return int(self.call("GET", f"/exec/{exec_id}/json")["ExitCode"])
