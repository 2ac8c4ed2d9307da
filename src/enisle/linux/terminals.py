"""Pseudo-terminals (pty(7)) of a given devpts instance, without walking any path but its ptmx."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_SLAVE_MAJORS = range(136, 144)


def open_pair(ptmx_fd: int) -> tuple[int, int]:
    """(``ptmx_fd`` itself as master, new slave). The slave is opened through the master, never by name."""
    fcntl.ioctl(ptmx_fd, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(ptmx_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return ptmx_fd, slave


def is_slave(device: int) -> bool:
    """Whether a device number is that of a pseudo-terminal's slave."""
    return os.major(device) in _SLAVE_MAJORS


def number(master_fd: int) -> int:
    """N of the slave's /dev/pts/N."""
    return int(struct.unpack("i", fcntl.ioctl(master_fd, _TIOCGPTN, b"\0\0\0\0"))[0])


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def make_controlling(fd: int) -> None:
    """Make the terminal the controlling one of this session, whose leader we are."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
