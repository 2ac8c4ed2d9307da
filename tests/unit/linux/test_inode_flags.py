"""Attributes of directories, where the file system of the tests has them."""

import fcntl
import os
import struct
from pathlib import Path

from enisle.linux.inode_flags import spread_subdirectories

_GETFLAGS = 0x80086601
_TOPDIR = 0x00020000


def _flags(directory: Path) -> int | None:
    """None where the file system has no flags."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        buffer = bytearray(8)
        fcntl.ioctl(fd, _GETFLAGS, buffer)
    except OSError:
        return None
    finally:
        os.close(fd)
    return int(struct.unpack("l", buffer)[0])


def test_only_the_directory_itself_is_marked_as_a_top(tmp_path: Path) -> None:
    before = _flags(tmp_path)
    spread_subdirectories(tmp_path)
    (tmp_path / "below").mkdir()
    after, below = _flags(tmp_path), _flags(tmp_path / "below")
    if before is None or after == before:  # a file system without it
        return
    assert after == before | _TOPDIR
    assert below is not None and not below & _TOPDIR


def test_a_directory_that_cannot_be_marked_is_no_error(tmp_path: Path) -> None:
    spread_subdirectories(tmp_path / "missing")
