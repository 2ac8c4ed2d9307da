"""Writing cpio archives of the "newc" kind, which the Linux kernel takes as its initramfs (initramfs-buffer-format)."""

from __future__ import annotations

import stat
from typing import BinaryIO


class CpioWriter:
    """Writes one archive. All members belong to root and have no time, so that equal input gives equal bytes."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._inode = 0

    def add_file(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        """A regular file."""
        self._add(name, stat.S_IFREG | mode, content)

    def add_directory(self, name: str, *, mode: int = 0o755) -> None:
        """A directory; it must come before what lies in it."""
        self._add(name, stat.S_IFDIR | mode, b"")

    def add_character_device(self, name: str, major: int, minor: int, *, mode: int = 0o600) -> None:
        """A character device node."""
        self._add(name, stat.S_IFCHR | mode, b"", device=(major, minor))

    def close(self) -> None:
        """End the archive; the file stays open."""
        self._add("TRAILER!!!", 0, b"")

    def _add(self, name: str, mode: int, content: bytes, *, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        raw_name = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device (2), node's device (2), length of the name, checksum
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(raw_name), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw_name
        self._target.write(head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4))
