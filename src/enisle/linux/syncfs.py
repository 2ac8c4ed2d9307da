"""syncfs(2): write one file system to its disk."""

from __future__ import annotations

import ctypes

from enisle.linux.syscalls import c_function, fail

_syncfs = c_function("syncfs", ctypes.c_int)


def syncfs(fd: int) -> None:
    """Write everything of the file system that holds ``fd`` to the disk; EIO if some of it was lost."""
    if _syncfs(fd) < 0:
        raise fail("syncfs")
