"""The last steps before a program runs: identity, capabilities, filter, and the search for the command.

All of it happens inside the instance's root, so nothing may be loaded or imported any more (see watch_for_imports).
"""

from __future__ import annotations

import binascii
import errno
import os
import signal
import stat
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from enisle.launcher.container import identity, reaper
from enisle.launcher.container.failure import (
    NO_COMMAND,
    NO_INTERPRETER,
    NO_MULTIPLEXER,
    NOT_FOUND,
    NOT_ON_PATH,
    OUTSIDE,
    Channel,
    ChildFailure,
    describe,
    no_directory,
    not_executed,
    reason_of,
)
from enisle.launcher.container.root import Root
from enisle.linux import capabilities, rlimits, terminals
from enisle.linux.syscalls import (
    PR_SET_DUMPABLE,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    RESOLVE_NO_MAGICLINKS,
    openat2,
    prctl,
    set_seccomp_filter,
)
from enisle.wire.plans import ProcessPlan

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOADING = frozenset({"import", "compile", "exec", "ctypes.dlopen", "subprocess.Popen", "os.system"})
_SIGNALS = tuple(number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP))


def watch_for_imports(channel: Channel) -> None:
    """End this process at once should it ever load code: what it would find here is the image's (CVE-2019-14271)."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _LOADING:
            channel.send({"error": f"keeper: {event} inside the instance", "exit_code": 128, "kind": "internal"})
            os._exit(125)

    sys.addaudithook(refuse)


def lower_oom_priority(adjustment: int) -> list[str]:
    """Set oom_score_adj; to be called while /proc is the host's. Warns where it cannot be lowered that far."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(adjustment).encode())
        finally:
            os.close(fd)
    except OSError as error:
        return [f"oom_score_adj {adjustment} is not set: {describe(error)}"]
    return []


def reset_signals() -> None:
    """Give the program the signals it expects: everything at its default, whatever whoever started enisled ignores,
    and nothing blocked."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def take_terminal(slave: int, size: list[int]) -> None:
    """Make the terminal this session's controlling one, and stdin, stdout and stderr."""
    if any(size):
        terminals.set_size(slave, *size)
    terminals.make_controlling(slave)
    for fd in (0, 1, 2):
        os.dup2(slave, fd, inheritable=True)


def execute(
    process: ProcessPlan, channel: Channel, warnings: list[str], *, appear: Callable[[], None] | None = None
) -> NoReturn:
    """Become the program. Raises ChildFailure (or OSError) when that cannot be.

    ``appear`` is called as soon as this process may do no more than its program.
    """
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    root = Root(root_fd)
    who = identity.resolve(process.user, process.groups, root.read)
    environment = environment_of(process.env)
    if not environment.get(b"HOME"):
        environment[b"HOME"] = os.fsencode(who.home)
    cwd_fd = _working_directory(root, process.cwd or "/")
    warnings += rlimits.set_limits(process.rlimits)
    _own_stdio(who)
    os.close(root_fd)
    if warnings:
        channel.send({"warnings": warnings})
    become(process, who, cwd_fd)
    if appear is not None:
        appear()
    if process.init:
        reaper.supervise(channel, terminal=process.terminal)
    _run(process.args, environment, channel)


def become(process: ProcessPlan, who: identity.Identity, cwd_fd: int) -> None:
    """Take on identity, directory, capabilities and filter, in the order that keeps each step permitted."""
    keep = capabilities.mask(process.capabilities)
    capabilities.limit_bounding(keep)
    if who.uid:
        prctl(PR_SET_KEEPCAPS, 1)  # until the directory was entered and the filter is in
    os.setgroups(who.groups)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)
    prctl(PR_SET_DUMPABLE, 0)
    _enter_directory(cwd_fd, process.cwd)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of identity, which clears it
    os.umask(process.umask)
    if process.no_new_privileges:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    program = binascii.a2b_base64(process.seccomp_bpf)
    if program and not process.no_new_privileges:
        _filter_with_privilege(keep, who)
        set_seccomp_filter(program)
        capabilities.set_current(0 if who.uid else keep)
    else:
        capabilities.set_current(0 if who.uid else keep)
        if program:
            set_seccomp_filter(program)


def _filter_with_privilege(keep: int, who: identity.Identity) -> None:
    """Without no_new_privs a filter needs CAP_SYS_ADMIN, which must be effective again after the change of uid."""
    wanted = (0 if who.uid else keep) | capabilities.mask(["SYS_ADMIN"])
    capabilities.set_current(wanted)


def _enter_directory(cwd_fd: int, path: str) -> None:
    """As the user that the program runs as, who may have no right to it."""
    try:
        os.fchdir(cwd_fd)
        inside = os.getcwd()
    except OSError as error:
        raise no_directory(path, reason_of(error)) from error
    os.close(cwd_fd)
    if not inside.startswith("/"):
        raise no_directory(path, OUTSIDE)


def _working_directory(root: Root, path: str) -> int:
    """The directory to start in (an instance's own was made with its mounts); never by way of /proc/self/fd
    (CVE-2024-21626)."""
    try:
        return root.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise no_directory(path, NOT_FOUND, 127) from error
    except OSError as error:
        raise no_directory(path, reason_of(error)) from error


def _own_stdio(who: identity.Identity) -> None:
    """Let a program that is not root open its own /dev/stdout; a device that others use as well is left alone."""
    if not who.uid:
        return
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        is_terminal = stat.S_ISCHR(status.st_mode) and terminals.is_slave(status.st_rdev)
        if stat.S_ISFIFO(status.st_mode) or is_terminal:
            os.fchown(fd, who.uid, -1)


def environment_of(words: list[str]) -> dict[bytes, bytes]:
    """The variables of "KEY=value" words; of several for a key the last one counts."""
    found: dict[bytes, bytes] = {}
    for word in words:
        key, separator, value = os.fsencode(word).partition(b"=")
        if key and separator:
            found[key] = value
    return found


def _run(arguments: list[str], environment: dict[bytes, bytes], channel: Channel) -> NoReturn:
    if not arguments or not arguments[0]:
        raise ChildFailure(NO_COMMAND, exit_code=127)
    command = arguments[0]
    argv = [os.fsencode(word) for word in arguments]
    channel.send({"exec": True})
    if "/" in command:
        _replace(command, command, argv, environment)
    path = os.fsdecode(environment.get(b"PATH", DEFAULT_PATH.encode()))
    denied = False
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{command}"
        try:
            mode = os.stat(candidate).st_mode
        except OSError as error:
            denied = denied or error.errno == errno.EACCES
            continue
        if stat.S_ISDIR(mode):
            continue
        if not mode & 0o111:
            denied = True
            continue
        _replace(command, candidate, argv, environment)
    if denied:
        raise not_executed(command, "permission denied")
    raise not_executed(command, NOT_ON_PATH, 127)


def _replace(command: str, path: str, argv: list[bytes], environment: dict[bytes, bytes]) -> NoReturn:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise not_executed(command, f"stat {path}: {NOT_FOUND}", 127) from error
    except OSError as error:
        raise not_executed(command, reason_of(error)) from error
    if stat.S_ISDIR(mode):
        raise not_executed(command, "is a directory")
    if not mode & 0o111:
        raise not_executed(command, "permission denied")
    try:
        os.execve(path, argv, environment)
    except FileNotFoundError as error:
        raise not_executed(command, NO_INTERPRETER, 127) from error
    except OSError as error:
        raise not_executed(command, reason_of(error)) from error


def open_container_ptmx() -> int:
    """The multiplexer of the instance's own devpts, checked to be one; for a process that has entered the instance."""
    fd = openat2(-100, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK, resolve=RESOLVE_NO_MAGICLINKS)
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(5, 2):
        os.close(fd)
        raise ChildFailure(NO_MULTIPLEXER)
    return fd
