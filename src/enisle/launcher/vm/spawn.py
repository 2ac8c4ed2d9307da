"""Starting QEMU and its file servers from the keeper: fork, give up what they must not have, exec."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from enisle.linux.syscalls import PR_SET_PDEATHSIG, close_range, prctl

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(slots=True)
class Program:
    """A program that runs. ``errors`` is the reading end of a pipe of what it complains about."""

    pid: int
    pidfd: int
    errors: int


def spawn(
    arguments: Sequence[str],
    *,
    inherit: Sequence[int],
    prepare: Callable[[], None],
    join: Callable[[int], None] | None = None,
) -> Program:
    """Fork and exec; only ``inherit`` and 0 to 2 stay open. ``prepare`` runs in the child, and its failure ends it.

    ``join``: called with the child's pid before it goes on (to put it into a cgroup).
    """
    errors, their_errors = os.pipe2(os.O_CLOEXEC)
    go, their_go = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(their_go)
            os.read(go, 1)
            _become(arguments, inherit, their_errors, prepare)
        except BaseException as error:
            os.write(their_errors, f"{type(error).__name__}: {error}".encode()[:1000])
        finally:
            os._exit(127)
    os.close(their_errors)
    os.close(go)
    pidfd = os.pidfd_open(pid)
    try:
        if join is not None:
            join(pid)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)
        os.close(errors)
        raise
    finally:
        os.close(their_go)  # which lets the child go on
    os.set_blocking(errors, False)
    return Program(pid, pidfd, errors)


def _become(arguments: Sequence[str], inherit: Sequence[int], errors: int, prepare: Callable[[], None]) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    os.dup2(errors, 2)
    for signum in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the guest's memory
    prepare()
    prctl(
        PR_SET_PDEATHSIG, signal.SIGKILL
    )  # after the change of identity, which clears it: a killed keeper leaves no VM
    _close_others({0, 1, 2, *inherit})
    for fd in inherit:
        os.set_inheritable(fd, True)
    os.execve(arguments[0], list(arguments), _ENVIRONMENT)


def _close_others(kept: set[int]) -> None:
    first = 0
    for fd in sorted(kept):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def read_errors(fd: int, *, limit: int = 2000) -> str:
    """What a program has complained about so far, its last lines, fit for a message."""
    data = b""
    try:
        while piece := os.read(fd, 65536):
            data = (data + piece)[-limit:]
    except BlockingIOError:
        pass
    text = data.decode("utf-8", "replace").strip()
    return " / ".join(line.strip() for line in text.splitlines()[-3:] if line.strip())
