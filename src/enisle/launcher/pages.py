"""The launcher's memory, shared with its keepers again after they have touched it (see pages.c)."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterable

from enisle.launcher.sealed import SEALS
from enisle.linux.syscalls import fail

_LARGE = 256 * 1024  # of unnamed mappings only the interpreter's arenas are worth it


_LESSONS = 2  # from so many keepers it is learned what the next ones touch
_PAGE = 4096


class _Range(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("length", ctypes.c_uint64))


class SharedPages:
    """The launcher's writable memory as a file that lies beneath it and beneath every process forked from it.

    ``fd``: that file, sealed and close-on-exec; a process that wants to call ``drop_equal`` keeps it open.
    """

    def __init__(self, library: str) -> None:
        """Move the memory into the file; ``library`` is pages.c, compiled. OSError: it cannot be loaded or done."""
        code = ctypes.PyDLL(library, use_errno=True)  # holds the GIL: no instruction of the interpreter may interfere
        self._drop_equal, self._note, self._touch = code.pages_drop_equal, code.pages_note, code.pages_touch
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            found = worthwhile(maps, os.readlink("/proc/self/exe"))
        self._ranges = (_Range * len(found))(*(_Range(start, length) for start, length in found))
        self.fd = os.memfd_create("enisle-pages", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, sum(length for _start, length in found))
        if code.pages_share(self.fd, self._ranges, len(found)) < 0:
            raise fail("shared pages")
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)
        # Shared with all that is forked from here: how many have been learned from, and a bit for each page.
        self._lessons = mmap.mmap(-1, 1 - (-sum(length for _start, length in found) // _PAGE // 8))
        self._bits = ctypes.byref((ctypes.c_uint8 * len(self._lessons)).from_buffer(self._lessons), 1)

    def learns(self) -> bool:
        """Whether it is still to be learned what keepers touch."""
        return self._lessons[0] < _LESSONS

    def learn(self, pagemap: int) -> None:
        """Remember what this one has touched so far. ``pagemap``: a descriptor of its /proc/self/pagemap."""
        if self._note(pagemap, self._ranges, len(self._ranges), self._bits) == 0:
            self._lessons[0] += 1

    def touch(self) -> None:
        """Touch what keepers touch, while there is time for it."""
        if self._lessons[0]:
            self._touch(self._ranges, len(self._ranges), self._bits)

    def drop_equal(self) -> int:
        """Give up our own copies of pages that are as they were; how many they were, -1 when it cannot be told."""
        return int(self._drop_equal(self.fd, self._ranges, len(self._ranges)))


def worthwhile(maps: Iterable[str], executable: str) -> list[tuple[int, int]]:
    """Start and length of the C heap, the interpreter's arenas and its data, from lines of proc_pid_maps(5).

    Stacks are not among them, nor the C library's thread block, which the kernel writes to (rseq(2)).
    """
    found = []
    end_of_data = 0
    for line in maps:
        addresses, permissions, _offset, _device, _inode, *names = line.rstrip("\n").split(None, 5)
        if permissions != "rw-p":
            continue
        start, end = (int(word, 16) for word in addresses.split("-"))
        name = names[0] if names else ""
        is_data = name == executable or (not name and start == end_of_data)  # initialised, and what follows it zeroed
        if is_data:
            end_of_data = end
        if is_data or name == "[heap]" or (not name and end - start >= _LARGE):
            found.append((start, end - start))
    return found
