"""Making the file system of a volume, as a detached mount. Runs in a child: it may wait for a server that is gone."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from enisle.launcher.container.options import Options, parse
from enisle.launcher.container.task import Answer
from enisle.launcher.wall import WallError
from enisle.linux import loop_devices, mounts
from enisle.wire.frames import Message

_EXT4_RESIZE = 0x40086610  # EXT4_IOC_RESIZE_FS: the number of blocks
_GENERAL = frozenset({"defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users"})  # fstab(5)'s own


_REMOTE = frozenset({"nfs", "nfs4", "cifs"})


def make(message: Message) -> Answer:
    """The answer's descriptor is the mount. WallError tells what could not be mounted, and why, in Docker's words."""
    filesystem, source = str(message["filesystem"]), str(message["source"])
    words = [word for word in message.get("options", []) if word and word not in _GENERAL]
    try:
        if filesystem == "image":
            return {"fds": [_image(source, int(message["size"]))]}
        return {"fds": [_filesystem(filesystem, source, parse(words))]}
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno == 19 and filesystem not in _known():  # ENODEV
            reason += f" (this host's kernel has no file system {filesystem})"
        data = f", data: {','.join(words)}" if words else ""
        text = f"failed to mount local volume: mount {source}:{message['key']}{data}: {reason}"
        raise WallError("denied" if error.errno == 1 else "internal", text) from error


def grow(message: Message, there: Answer) -> Answer:
    """Bring a mounted image to its size, if it is smaller."""
    source, size_bytes = str(message["source"]), int(message["size"])
    if os.stat(source).st_size < size_bytes:
        os.truncate(source, size_bytes)
        device, _name = loop_devices.attach(source)
        loop_devices.update_size(device)
        os.close(device)
    inside = os.open(there["place"], os.O_RDONLY | os.O_DIRECTORY)
    try:
        _grow(source, inside, size_bytes)
    finally:
        os.close(inside)
    return there


def _known() -> set[str]:
    with open("/proc/filesystems") as file:
        return {line.split()[-1] for line in file}


def _filesystem(filesystem: str, source: str, options: Options) -> int:
    data = dict(options.data)
    if filesystem in _REMOTE and (server := data.get("addr")):
        data["addr"] = _address(server)
    if options.read_only and filesystem != "tmpfs":
        data["ro"] = None  # of the file system itself: its device may be read-only
    return mounts.new(filesystem, data, attributes=options.add, source=source)


def _address(server: str) -> str:
    """The kernel takes addresses only; who has one of IPv4 is asked there, as dockerd does."""
    try:
        found = socket.getaddrinfo(server, None, type=socket.SOCK_STREAM)
    except OSError as error:
        text = f"error resolving passed in network volume address: {server}: {error.strerror}"
        raise WallError("internal", text) from error
    return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])


def _image(path: str, size_bytes: int) -> int:
    """An image file, first brought to its size: growing it may have been cut short."""
    if os.stat(path).st_size < size_bytes:
        os.truncate(path, size_bytes)
    device, name = loop_devices.attach(path)
    try:
        loop_devices.update_size(device)
        mount = mounts.new("ext4", {"discard": None}, source=name)
    finally:
        os.close(device)
    inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
    try:
        _grow(path, inside, size_bytes)
        if os.listdir(inside) == ["lost+found"]:
            os.rmdir("lost+found", dir_fd=inside)  # a new volume is empty; e2fsck makes it when it is needed
    finally:
        os.close(inside)
    return mount


def _grow(path: str, directory: int, size_bytes: int) -> None:
    """Let a mounted file system fill its file. EPERM without CAP_SYS_RESOURCE."""
    blocks, block_bytes = _ext4_size(path)
    wanted = size_bytes // block_bytes
    if blocks < wanted:
        fcntl.ioctl(directory, _EXT4_RESIZE, struct.pack("=Q", wanted))


def _ext4_size(path: str) -> tuple[int, int]:
    """(blocks, bytes of one) of the file system in a file, from its superblock (ext4(5), "Super Block")."""
    with open(path, "rb") as file:
        superblock = os.pread(file.fileno(), 1024, 1024)
    (low,), (shift,) = struct.unpack_from("<I", superblock, 4), struct.unpack_from("<I", superblock, 24)
    (high,) = struct.unpack_from("<I", superblock, 0x150)
    return high << 32 | low, 1024 << shift
