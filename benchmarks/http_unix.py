"""A small HTTP client over a unix socket: one kept connection, so that the client costs next to nothing."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """Docker's Engine API, as far as the measurements need it."""

    def __init__(self, path: str) -> None:
        self._connection = UnixConnection(path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; the decoded answer. RuntimeError for a status of 400 and more."""
        data = None if body is None else json.dumps(body)
        self._connection.request(method, "/v1.41" + path, data, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:300]!r}")
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
        connection = UnixConnection(self._connection._path)
        connection.request(
            "POST",
            f"/v1.41/exec/{exec_id}/start",
            json.dumps({"Detach": False, "Tty": False}),
            {"Content-Type": "application/json"},
        )
        connection.getresponse().read()
        connection.close()
        return int(self.call("GET", f"/exec/{exec_id}/json")["ExitCode"])
