"""Running an OCI runtime's command line, and its complaints in Docker's words."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from enisle.launcher.container.execute import reset_signals
from enisle.launcher.descriptors import keep_only, place
from enisle.launcher.wall import WallError
from enisle.linux.syscalls import PR_SET_PDEATHSIG, prctl
from enisle.wire.plans import RuntimePlan

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_TIMEOUT_S = 120.0  # a virtual machine may take its time; one that hangs must not hang the keeper for ever
_MAX_LOG_BYTES = 1 << 20
_GONE = ("not running", "cannot exec in a stopped", "does not exist", "no such process")
_MISSING = ("executable file not found", "executable file `", "no such file or directory")
_REFUSED = ("permission denied", "is a directory", "not a directory")


class RuntimeFailure(Exception):
    """The runtime's own words."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """One container as its runtime knows it. ``directory``: for its state and all that it is told."""

    plan: RuntimePlan
    container: str
    directory: str

    @property
    def state(self) -> str:
        """Where the runtime keeps its records."""
        return f"{self.directory}/state"

    @property
    def is_known(self) -> bool:
        """Whether the runtime has a record of the container."""
        return os.path.isdir(f"{self.state}/{self.container}")

    def run(
        self,
        verb: str,
        *words: str,
        last: Sequence[str] = (),
        stdio: Sequence[int] = (),
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """``runtime verb words container last``; ``stdio`` becomes its stdin, stdout and stderr. RuntimeFailure.

        Waits: for a task's child, or for what is short. It ends with the calling process.
        """
        log = f"{self.directory}/{verb}-{os.getpid()}.log"
        options = ["--root", self.state, "--log", log, "--log-format", "json"]
        arguments = [self.plan.path, *self.plan.options, *options, verb, *words, self.container, *last]
        try:
            status = _execute(arguments, list(stdio), timeout_s)
            if status:
                raise RuntimeFailure(complaint(_read(log)) or f"{self.plan.path} {verb} ended with code {status}")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise RuntimeFailure(f"runtime {self.plan.name}: {self.plan.path} cannot be run: {reason}") from error
        finally:
            _unlink(log)


def complaint(log: str) -> str:
    """The last error of a runtime's log: a JSON object with "level" and "msg" per line."""
    for line in reversed(log.splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal") and entry.get("msg"):
            return str(entry["msg"]).strip()
    return ""


def failure(what: str, text: str) -> WallError:
    """The error of a start ("create") or a session ("exec"), with the exit code that Docker's clients expect."""
    lower = text.lower()
    if what == "exec" and any(words in lower for words in _GONE):
        return WallError("conflict", f"OCI runtime exec failed: {text}: unknown", 128)
    code = 128
    if "cannot be run:" not in lower:  # which is the runtime itself
        if any(words in lower for words in _MISSING):
            code = 127
        elif any(words in lower for words in _REFUSED):
            code = 126
    return WallError("invalid", f"OCI runtime {what} failed: {text}: unknown", code)


def _execute(arguments: list[str], stdio: list[int], timeout_s: float) -> int:
    """Exit code; 128+n for signal n. OSError when it cannot be run."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(arguments, stdio, tell)
    os.close(tell)
    with os.fdopen(told, "rb", buffering=0) as source:
        problem = source.read(16)
    if problem:
        os.waitpid(pid, 0)
        raise OSError(int(problem), os.strerror(int(problem)))
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - code if code < 0 else code


def _become(arguments: list[str], stdio: list[int], tell: int) -> None:
    """In the child. Does not return."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        reset_signals()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        place(stdio or [null, null, null])
        keep_only([tell])
        os.execve(arguments[0], arguments, _ENVIRONMENT)
    except OSError as error:
        os.write(tell, str(error.errno).encode())
    finally:
        os._exit(127)


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(_MAX_LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
