"""The command line of this process as ps and /proc/PID/cmdline show it."""

from __future__ import annotations

import ctypes

_ARG_START, _ARG_END = 45, 46  # fields 48 and 49 of /proc/PID/stat (proc(5)), counted behind the name


class CommandLine:
    """Where the kernel reads this process's arguments from; forks share the place, each with its own copy."""

    def __init__(self) -> None:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
        self._start, self._end = int(fields[_ARG_START]), int(fields[_ARG_END])

    def show(self, text: str) -> None:
        """Overwrite the arguments; text that is longer than they are is cut."""
        size = self._end - self._start
        if self._start and size > 2:
            # A last byte that is not NUL tells the kernel to show no more than the first string (setproctitle).
            shown = text.encode()[: size - 2].ljust(size - 1, b"\0") + b"."
            ctypes.memmove(self._start, shown, size)
