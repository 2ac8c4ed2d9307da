"""docker run --init: a first process that passes signals on to the program and reaps what it leaves behind."""

from __future__ import annotations

import os
import signal

from enisle.launcher.container.failure import Channel
from enisle.linux.command_line import CommandLine
from enisle.linux.syscalls import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, close_range, prctl, set_process_name

_OWN = (signal.SIGCHLD, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTRAP)

# Found before any fork: an instance must not read in its first process how the launcher was called.
_COMMAND_LINE = CommandLine()


def supervise(channel: Channel, *, terminal: bool) -> None:
    """Fork; returns in the child, which becomes the program. The parent is the init and ends with its exit code."""
    everything = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, everything)
    set_process_name("init")  # before the program is there to look
    _COMMAND_LINE.show("init")
    child = os.fork()
    if child:
        channel.close()
        _serve(child, everything)
    os.setpgid(0, 0)
    if terminal:
        os.tcsetpgrp(0, os.getpid())  # SIGTTOU is blocked here
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _serve(child: int, everything: set[signal.Signals]) -> None:
    """Never returns."""
    close_range(0)
    status = 255
    try:
        while True:
            information = signal.sigwaitinfo(everything)
            if information.si_signo == signal.SIGCHLD:
                ended = _reap(child)
                if ended is not None:
                    status = ended
                    return
            elif information.si_signo not in _OWN:
                _pass_on(child, information.si_signo)
    finally:
        os._exit(status)


def _pass_on(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except OSError:
        pass  # it has just ended, or has become somebody else


def _reap(child: int) -> int | None:
    """Collect whoever has ended; the exit code once that is the program itself."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
