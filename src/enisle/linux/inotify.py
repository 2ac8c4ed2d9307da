"""Changes of files (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

from enisle.linux.syscalls import c_function, fail

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_IGNORED = 0x8000

_EVENT = struct.Struct("iIII")
_inotify_init1 = c_function("inotify_init1", ctypes.c_int)
_inotify_add_watch = c_function("inotify_add_watch", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


@dataclass(frozen=True, slots=True)
class Change:
    """``watch`` as given by ``add``; ``name`` is "" for the watched file itself."""

    watch: int
    mask: int
    name: str


class Inotify:
    """A non-blocking inotify descriptor, which it owns."""

    def __init__(self) -> None:
        self._fd = _inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise fail("inotify")

    def fileno(self) -> int:
        """For a loop to wait on."""
        return self._fd

    def add(self, path: str, mask: int) -> int:
        """Watch a file or directory."""
        watch = _inotify_add_watch(self._fd, os.fsencode(path), mask)
        if watch < 0:
            raise fail(path)
        return watch

    def read(self) -> list[Change]:
        """What has happened since; empty when nothing did."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        changes, offset = [], 0
        while offset < len(data):
            watch, mask, _cookie, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            changes.append(Change(watch, mask, os.fsdecode(data[offset : offset + length].rstrip(b"\0"))))
            offset += length
        return changes

    def detach(self) -> int:
        """Give the descriptor away; this object is closed then."""
        fd, self._fd = self._fd, -1
        return fd

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
