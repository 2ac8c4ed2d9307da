"""Starting the program in C that becomes a container's processes (program/program.h)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from typing import Any

from enisle.wire.frames import close_all

FURTHER, FIRST = "enisle-enter", "enisle-first"
_CHANNEL = 3


def start(program: int, name: str, fds: Sequence[int], stdio: Sequence[int]) -> int:
    """Start it, of which ``program`` is a descriptor, with its channel and what else it gets as ``fds``, from 3 on.

    ``name``: which part of it is wanted. ``stdio``: three, or none for the null device. The result is its pid. OSError.
    The C library does that without a copy of our memory (posix_spawn(3)).
    """
    given = [program, *fds, *stdio]
    lowest_free = _CHANNEL + len(fds)  # of the descriptors that it is started with, none may lie where another is to be
    moved = [fd if fd >= lowest_free else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest_free) for fd in given]
    try:
        targets = [*range(_CHANNEL, lowest_free), *range(len(stdio))]
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(moved[1:], targets, strict=True)
        ]
        if not stdio:
            actions.append((os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0))
            actions += [(os.POSIX_SPAWN_DUP2, 0, target) for target in (1, 2)]
        return os.posix_spawn(f"/proc/self/fd/{moved[0]}", [name], {}, file_actions=actions)
    finally:
        close_all([fd for fd in moved if fd not in given])
