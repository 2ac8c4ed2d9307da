"""Loop devices (loop(4)): a file as a block device, taken down by the kernel with its last user."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_SET_CAPACITY = 0x4C07
_AUTOCLEAR = 4
_NAME_BYTES = 64
# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt_type, key_size, flags; names, key, init
_INFO = struct.Struct(f"=5Q4I{_NAME_BYTES}s{_NAME_BYTES}s32s2Q")
_CONFIG = struct.Struct(f"=II{_INFO.size}s8Q")
_ATTEMPTS = 64
_MAJOR = 7


def attach(path: str) -> tuple[int, str]:
    """A descriptor of the loop device that shows the file, and the device's path.

    One that shows it already is used again: two devices of one file would be two file systems that destroy each other.
    The device goes when nobody has it open or mounted any more. OSError; ENODEV where there are no loop devices.
    """
    backing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _find(os.fstat(backing)) or _configure(backing)
    finally:
        os.close(backing)


def update_size(device: int) -> None:
    """Let the device have the size that its file has by now."""
    fcntl.ioctl(device, _LOOP_SET_CAPACITY, 0)


def _find(wanted: os.stat_result) -> tuple[int, str] | None:
    for name in os.listdir("/sys/block"):
        if not name.startswith("loop") or not os.path.exists(f"/sys/block/{name}/loop/backing_file"):
            continue
        try:
            device = _open(int(name.removeprefix("loop")))
        except (OSError, ValueError):
            continue
        if _shows(device, wanted):  # and goes on doing so: it is cleared when nobody has it open
            return device, f"/dev/{name}"
        os.close(device)
    return None


def _shows(device: int, wanted: os.stat_result) -> bool:
    info = bytearray(_INFO.size)
    try:
        fcntl.ioctl(device, _LOOP_GET_STATUS64, info)
    except OSError:
        return False
    values = _INFO.unpack(info)
    return (values[0], values[1]) == (wanted.st_dev, wanted.st_ino)


def _configure(backing: int) -> tuple[int, str]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _attempt in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = _open(number)
            info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"enisle", b"", b"", 0, 0)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, _CONFIG.pack(backing, 0, info, *[0] * 8))
                return device, f"/dev/loop{number}"
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else took it
                    raise
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/dev/loop-control")
    finally:
        os.close(control)


def _open(number: int) -> int:
    """A device's node may be missing in an environment without udev: it is made then."""
    path = f"/dev/loop{number}"
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        os.mknod(path, 0o600 | 0o060000, os.makedev(_MAJOR, number))
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
