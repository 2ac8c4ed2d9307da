"""The /dev of a container: the nodes every program expects, those asked for, and the cgroup rules to match."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from enisle.launcher.container.failure import ChildFailure
from enisle.launcher.container.root import Root
from enisle.linux.cgroup.devices import DeviceRule, parse_rule
from enisle.wire.plans import DevicePlan

_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
)
_DIRECTORIES = ("pts", "mqueue")  # where file systems of their own are mounted
STANDARD_NAMES = (*_DIRECTORIES, *(name for name, _major, _minor in _NODES), *(name for name, _target in _LINKS))


def rules(devices: Iterable[DevicePlan], extra: Sequence[str]) -> list[DeviceRule]:
    """What the cgroup allows. Making a node is allowed wherever using it in any way is."""
    found = [DeviceRule("c", major, minor, "rwm") for _name, major, minor in _NODES]
    found += [DeviceRule("c", 5, 2, "rwm"), DeviceRule("c", 136, -1, "rwm")]  # ptmx and its terminals
    for device in devices:
        found.append(DeviceRule(device.kind, device.major, device.minor, "".join(sorted({*device.access, "m"}))))
    return found + [parse_rule(text) for text in extra]


def make_standard_nodes(dev_fd: int) -> int:
    """Fill a fresh /dev; returns our own /dev/null (O_PATH), of which the masks are made (CVE-2025-31133)."""
    for name, major, minor in _NODES:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev_fd)
    for name, target in _LINKS:
        os.symlink(target, name, dir_fd=dev_fd)
    for name in _DIRECTORIES:
        os.mkdir(name, 0o755, dir_fd=dev_fd)
    return open_null(dev_fd)


def open_null(dev_fd: int) -> int:
    """The null device of that directory, which is checked to be it."""
    fd = os.open("null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev_fd)
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise ChildFailure("/dev/null is not the null device")
    return fd


def make_nodes(root: Root, devices: Iterable[DevicePlan]) -> None:
    """Make the nodes that were asked for; an existing one of the same name is replaced."""
    for device in devices:
        directory, _, name = device.path.rpartition("/")
        parent = root.target(directory or "/", directory=True)
        try:
            _make_node(parent, name, device)
        except OSError as error:
            raise ChildFailure(f"device {device.path} cannot be made: {error.strerror}") from error
        finally:
            os.close(parent)


def _make_node(parent: int, name: str, device: DevicePlan) -> None:
    path = f"/proc/self/fd/{parent}"
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    kind = stat.S_IFCHR if device.kind == "c" else stat.S_IFBLK
    os.mknod(f"{path}/{name}", kind | device.mode, os.makedev(device.major, device.minor))
    os.chown(f"{path}/{name}", device.uid, device.gid, follow_symlinks=False)
