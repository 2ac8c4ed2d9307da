"""Attributes of files that chattr(1) sets (ioctl_iflags(2))."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

_GETFLAGS = 0x80086601
_SETFLAGS = 0x40086602
_TOPDIR = 0x00020000


def spread_subdirectories(directory: Path) -> None:
    """Tell ext4 that its subdirectories are unrelated trees, so that each gets block groups of its own.

    Writers then do not share one group's bitmaps; and new trees do not begin where others were just removed, where ext4
    without a journal passes, one by one, over each inode that was deleted within the last minutes. File systems without
    such a mark are left as they are.
    """
    with suppress(OSError):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = bytearray(struct.calcsize("l"))
            fcntl.ioctl(fd, _GETFLAGS, flags)
            fcntl.ioctl(fd, _SETFLAGS, struct.pack("l", struct.unpack("l", flags)[0] | _TOPDIR))
        finally:
            os.close(fd)
