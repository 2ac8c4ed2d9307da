"""Failures between a child and its keeper: in words that name the object, with the exit code to report."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

PREFIX_CREATE = "OCI runtime create failed: unable to start container process: "
PREFIX_EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "
OUTSIDE = "it is outside of the root"
NOT_FOUND = "no such file or directory"
NOT_ON_PATH = "executable file not found in $PATH"
NO_INTERPRETER = f"{NOT_FOUND} (the interpreter it names is missing)"
NO_COMMAND = "no command specified"
NO_MULTIPLEXER = "/dev/pts/ptmx of the instance is no terminal multiplexer"
GO = b"go"
MAX_FDS = 253  # in one packet (SCM_MAX_FD, unix(7))
MAX_PACKET_BYTES = 64 << 10  # a third of what Linux lets one packet hold (net.core.wmem_default)


class ChildFailure(Exception):
    """``exit_code``: 127 command missing, 126 not executable, 128 anything before."""

    def __init__(self, message: str, *, exit_code: int = 128, kind: str = "invalid", whole: bool = False) -> None:
        """``whole``: the message needs no words around it."""
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.kind = kind
        self._whole = whole

    def sentence(self, prefix: str) -> str:
        """As clients get it; ``prefix`` is what a runtime says of such failures."""
        return self.message if self._whole else f"{prefix}{self.message}: unknown"


def describe(error: BaseException) -> str:
    """An exception as a clause: "path: reason", in lower case as Docker's clients know it."""
    if isinstance(error, OSError) and error.errno:
        reason = (error.strerror or os.strerror(error.errno)).lower()
        return f"{error.filename}: {reason}" if error.filename else reason
    return str(error) or repr(error)


def reason_of(error: OSError) -> str:
    """Why the call failed, in lower case, without what it was called for."""
    return os.strerror(error.errno or 0).lower()


def no_directory(path: str, reason: str, exit_code: int = 128) -> ChildFailure:
    return ChildFailure(f'chdir to cwd ("{path}") set in config.json failed: {reason}', exit_code=exit_code)


def not_executed(command: str, reason: str, exit_code: int = 126) -> ChildFailure:
    return ChildFailure(f'exec: "{command}": {reason}', exit_code=exit_code)


class Channel:
    """The child's end of the socket to its keeper: one JSON object per packet. Closed by exec, which is the news."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._socket = socket.socket(fileno=fd)

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Tell the keeper; descriptors travel along."""
        data = [json.dumps(message).encode()]
        if fds:
            socket.send_fds(self._socket, data, fds)
        else:
            self._socket.sendmsg(data)

    def fail(self, error: BaseException, prefix: str) -> None:
        """Report why the command was not started."""
        if not isinstance(error, ChildFailure):
            kind = "invalid" if isinstance(error, OSError) else "internal"
            error = ChildFailure(describe(error), kind=kind)
        self.send({"error": error.sentence(prefix), "exit_code": error.exit_code, "kind": error.kind})

    def receive(self) -> tuple[bytes, list[int]]:
        """A packet and the descriptors that came with it, close-on-exec; no bytes when the keeper is gone."""
        data, fds, _flags, _address = socket.recv_fds(self._socket, MAX_PACKET_BYTES, MAX_FDS)
        for fd in fds:
            os.set_inheritable(fd, False)  # recv_fds pays no heed to MSG_CMSG_CLOEXEC; nobody execs in between
        return data, fds

    def wait_go(self) -> None:
        """Wait until the keeper has made cgroup and links. OSError when it is gone."""
        if not self._socket.recv(16):
            raise ConnectionResetError("the keeper has ended")

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()
