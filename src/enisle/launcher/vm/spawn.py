"""Starting QEMU and its file servers from the keeper: fork, give up what they must not have, exec."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from enisle.linux import landlock
from enisle.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, unshare
from enisle.linux.syscalls import (
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    close_range,
    prctl,
)

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_KVM = "/dev/kvm"
_LIBRARIES = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.preload")


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


def confine_qemu(uid: int, gid: int, *, kvm: bool, readable: Sequence[int]) -> None:
    """In QEMU's child: an identity of its own, no capability, no network, and of the file system what it needs.

    The identity is changed before exec: QEMU's own -runas and its -sandbox kill each other (SIGSYS, QEMU 7.2).
    ``readable``: descriptors of files that it opens again by name (kernel and initramfs).
    """
    unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_READ, capability)
        except OSError:
            break
        prctl(PR_CAPBSET_DROP, capability)
    if uid:
        os.setgroups(_kvm_groups() if kvm else [])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    rules: list[tuple[int | str, int]] = [(place, landlock.READ_EXECUTE) for place in _LIBRARIES]
    rules += [("/proc", landlock.READ), ("/sys/devices", landlock.READ), ("/dev/urandom", landlock.READ)]
    rules += [("/dev/null", landlock.READ_WRITE)]
    rules += [(fd, landlock.READ) for fd in readable]
    if kvm:
        rules.append((_KVM, landlock.READ_WRITE))
    landlock.restrict_self(rules)


def _kvm_groups() -> list[int]:
    """The group that may use /dev/kvm, where that is how it is given out."""
    try:
        status = os.stat(_KVM)
    except OSError:
        return []
    return [status.st_gid] if status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP else []


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
