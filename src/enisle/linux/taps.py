"""Tap devices: NICs whose frames a process reads and writes. Standard library only."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from enisle.linux.route import Route

_TUNSETIFF, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454D8
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_IFREQ = struct.Struct("=16sH22x")


def open_tap(name: str, *, vnet_header: bool = True) -> int:
    """Make (or open) a tap device and return its descriptor; the device goes when the last descriptor is closed.

    ``vnet_header``: frames carry a virtio_net_hdr, so that checksums and segmentation can be left to the host.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_header else 0)
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, f"open tap {name}: {error.strerror}") from error
    return fd


def open_macvtap(route: Route, name: str) -> int:
    """The descriptor of a macvtap that is there, for frames with a virtio_net_hdr. OSError.

    The device stays when the descriptor is closed: who has made it deletes it.
    """
    index = route.index_of(name)
    try:
        fd = os.open(f"/dev/tap{index}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        fd = _open_by_number(name, index)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(b"", _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, f"open macvtap {name}: {error.strerror}") from error
    return fd


def _open_by_number(name: str, index: int) -> int:
    """Where /dev is no devtmpfs, or nobody has made the node in it: by a node of our own, for a moment."""
    try:
        major, minor = Path(f"/sys/class/net/{name}/tap{index}/dev").read_text().strip().split(":")
    except OSError as error:
        raise OSError(errno.ENODEV, f"open macvtap {name}: no /dev/tap{index} on this host") from error
    node = f"/dev/.enisle-tap{index}"
    os.mknod(node, 0o600 | 0o020000, os.makedev(int(major), int(minor)))
    try:
        return os.open(node, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.unlink(node)
