"""renameat2(2) with flags."""

from __future__ import annotations

import ctypes
import os

from enisle.linux.syscalls import PathLike, c_function, fail

_AT_FDCWD = -100
_EXCHANGE = 2
_renameat2 = c_function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def exchange(one: PathLike, other: PathLike) -> None:
    """Let two files or directories of one file system change places: at no moment is either name without one."""
    if _renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) < 0:
        raise fail(os.fsdecode(one))
