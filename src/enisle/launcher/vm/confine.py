"""What QEMU's process gives up before it becomes QEMU: identity, capabilities, network, and nearly all files."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from enisle.linux import landlock, mounts
from enisle.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, unshare
from enisle.linux.syscalls import PR_CAPBSET_DROP, PR_CAPBSET_READ, PR_SET_NO_NEW_PRIVS, prctl

_KVM = "/dev/kvm"
_NODES = ("null", "urandom", "random")
_LIBRARIES = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.preload")


def confine_qemu(uid: int, gid: int, *, kvm: bool, readable: Sequence[int]) -> None:
    """In QEMU's child: an identity of its own, no capability, no network, and of the file system what it needs.

    The identity is changed before exec: QEMU's own -runas and its -sandbox kill each other (SIGSYS, QEMU 7.2).
    ``readable``: descriptors of files that it opens again by name (kernel and initramfs).
    """
    unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)
    mounts.set_tree_propagation("/", mounts.MS_PRIVATE)
    groups = [] if _own_devices(uid, gid, kvm=kvm) or not kvm else _kvm_groups()
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_READ, capability)
        except OSError:
            break
        prctl(PR_CAPBSET_DROP, capability)
    if uid:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    rules: list[tuple[int | str, int]] = [(place, landlock.READ_EXECUTE) for place in _LIBRARIES]
    rules += [("/proc", landlock.READ), ("/sys/devices", landlock.READ), ("/dev/urandom", landlock.READ)]
    rules += [("/dev/null", landlock.READ_WRITE)]
    rules += [(fd, landlock.READ) for fd in readable]
    if kvm:
        rules.append((_KVM, landlock.READ_WRITE))
    landlock.restrict_self(rules)


def _own_devices(uid: int, gid: int, *, kvm: bool) -> bool:
    """Mount a /dev that only this process sees, with a /dev/kvm that belongs to it.

    So KVM can be had where the host's node is for root alone, and nothing about the host's node is changed (QEMU takes
    no descriptor for it). False where device nodes may not be made: the host's /dev stays.
    """
    place = -1
    try:
        place = mounts.new("tmpfs", {"size": "16k", "mode": "755"}, attributes=mounts.ATTR_NOSUID | mounts.ATTR_NOEXEC)
        for name in _NODES:
            _make_node(place, name, mode=0o666)
        if kvm:
            _make_node(place, "kvm", mode=0o600)
            os.chown("kvm", uid, gid, dir_fd=place)
        os.symlink("/proc/self/fd", "fd", dir_fd=place)
        target = os.open("/dev", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mounts.attach(place, target)
        finally:
            os.close(target)
        return True
    except OSError:
        return False
    finally:
        if place >= 0:
            os.close(place)


def _make_node(directory: int, name: str, *, mode: int) -> None:
    number = os.stat(f"/dev/{name}").st_rdev
    os.mknod(name, stat.S_IFCHR | mode, number, dir_fd=directory)
    os.chmod(name, mode, dir_fd=directory)
    os.close(os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory))  # a device cgroup may allow the one only


def _kvm_groups() -> list[int]:
    """The group that may use /dev/kvm, where that is how it is given out."""
    try:
        status = os.stat(_KVM)
    except OSError:
        return []
    return [status.st_gid] if status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP else []
