"""Directories of the host inside a VM: one virtiofsd each, which sees that directory alone.

The server runs in a mount namespace of its own, in which the directory (or a single file, in an otherwise empty
directory) is bound: read-only where the share is, without set-id programs and devices towards the host. Nothing is ever
mounted on the host itself. Who the server is there: :mod:`enisle.launcher.vm.identity`.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from enisle.launcher.sources import take, take_image
from enisle.launcher.vm.identity import Identity
from enisle.launcher.vm.protocol import GuestMount, MountKind
from enisle.launcher.vm.spawn import Program, spawn
from enisle.launcher.wall import WallError
from enisle.linux import mounts, user_namespace
from enisle.linux.namespaces import CLONE_NEWNS, unshare
from enisle.wire.plans import MountPlan

_FLAGS = {
    "ro": mounts.MS_RDONLY,
    "ro=top": mounts.MS_RDONLY,  # the file server serves all of it through one mount
    "nosuid": mounts.MS_NOSUID,
    "nodev": mounts.MS_NODEV,
    "noexec": mounts.MS_NOEXEC,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
}
_NO_DATA = frozenset({"rw", "suid", "dev", "exec", "bind", "rbind", "private", "rprivate", "slave", "rslave", "shared"})
_NO_DATA_TOO = frozenset({"rshared", "nocopy", "volume-nocopy", "unbindable", "runbindable", "z", "Z", "async", "sync"})


@dataclass(frozen=True, slots=True)
class Share:
    """One directory or file of the host to serve, or the ``layers`` of an image, topmost first.

    ``recursive``: with what is mounted below the directory.
    """

    source: str
    read_only: bool
    is_file: bool
    subpath: str = ""
    layers: tuple[str, ...] = ()
    recursive: bool = False


class Mounts(NamedTuple):
    """What the agent mounts, what must be served for it, and the sockets among it: descriptors that the caller owns."""

    guest: list[GuestMount]
    shares: list[Share]
    sockets: list[int]


def plan_mounts(plans: list[MountPlan]) -> Mounts:
    """What comes of the plans. WallError for a source that is not there."""
    planned = Mounts([], [], [])
    try:
        for plan in plans:
            planned.guest.append(_mount(plan, planned))
    except WallError:
        for fd in planned.sockets:
            os.close(fd)
        raise
    return planned


def _mount(plan: MountPlan, planned: Mounts) -> GuestMount:
    flags, data = mount_flags(plan.options)
    if plan.kind == "tmpfs":
        return GuestMount(MountKind.TMPFS, plan.target, data=data, flags=flags)
    if plan.kind not in ("bind", "volume", "image"):
        raise WallError("not_supported", f"a mount of kind {plan.kind} at {plan.target} is not for a VM", 128)
    share = _share(plan, planned.sockets, read_only=bool(flags & mounts.MS_RDONLY))
    if share is None:
        status = os.fstat(planned.sockets[-1])
        owner = f"uid={status.st_uid},gid={status.st_gid},mode={status.st_mode & 0o777:o}"
        return GuestMount(MountKind.SOCKET, plan.target, data=owner)
    tag = f"share{len(planned.shares)}"
    planned.shares.append(share)
    copy_up = plan.copy_up and not share.read_only
    return GuestMount(MountKind.SHARE, plan.target, tag, "file" if share.is_file else "", "", flags, copy_up)


def mount_flags(options: list[str]) -> tuple[int, str]:
    """(MS_* bits, what is left for the file system) of mount(8) words."""
    flags = 0
    rest: list[str] = []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option not in _NO_DATA and option not in _NO_DATA_TOO:
            rest.append(option)
    return flags, ",".join(rest)


def _share(plan: MountPlan, sockets: list[int], *, read_only: bool) -> Share | None:
    """None: it is a socket, which is now the last one of ``sockets``."""
    if plan.kind == "image":
        return Share(plan.source, True, False, plan.subpath, tuple(plan.layers))
    try:
        fd = take(plan.source, subpath=plan.subpath)
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            sockets.append(fd)
            return None
        os.close(fd)
    except OSError as error:
        raise _failure(plan.name or plan.source, plan.target, error) from error
    is_file = not stat.S_ISDIR(mode)
    recursive = not is_file and "bind" not in plan.options
    return Share(plan.source, read_only, is_file, plan.subpath, recursive=recursive)


def _failure(source: str, target: str, error: OSError) -> WallError:
    reason = (error.strerror or str(error)).lower()
    return WallError("invalid", f'error mounting "{source}" to "{target}": {reason}', 128)


class FileServer:
    """A running virtiofsd; ``connection`` is the socket that QEMU gets."""

    def __init__(
        self,
        program: str,
        share: Share,
        place: str,
        identity: Identity,
        *,
        join: Callable[[int], None] | None,
    ) -> None:
        self.connection, self.program = self._start(program, share, place, identity, join)

    def release_connection(self) -> None:
        """Close our copy of the connection: when QEMU's goes, the server ends."""
        if self.connection >= 0:
            os.close(self.connection)
            self.connection = -1

    @staticmethod
    def _start(
        program: str, share: Share, place: str, identity: Identity, join: Callable[[int], None] | None
    ) -> tuple[int, Program]:
        address = f"{place}.sock"
        source = -1
        if not share.layers:
            source = take(share.source, subpath=share.subpath, recursive=share.recursive)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.bind(address)
            listener.listen(1)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            connection.connect(address)
            os.unlink(address)
            if share.layers:
                namespace = identity.unmapped_namespace()
            else:
                namespace = identity.namespace_for(source, recursive=share.recursive)

            def prepare() -> None:
                _enter_share(source, share)
                if namespace is not None:
                    user_namespace.enter(namespace)

            words = command(program, _PLACE, listener.fileno())
            started = spawn(words, inherit=[listener.fileno()], prepare=prepare, join=join)
            return connection.detach(), started
        finally:
            if source >= 0:
                os.close(source)
            listener.close()

    def close(self) -> None:
        """Kill the server and all it started, and wait for it."""
        self.release_connection()
        try:
            os.killpg(self.program.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.program.pid, 0)
        os.close(self.program.pidfd)
        os.close(self.program.errors)


_PLACE = "/run/share"


def _enter_share(source: int, share: Share) -> None:
    """In the server's child: bind the source at _PLACE, in a mount namespace that nobody else is in.

    Below a new /run, which whoever the server becomes can walk through.
    """
    unshare(CLONE_NEWNS)
    mounts.set_tree_propagation("/", mounts.MS_PRIVATE)
    if share.layers:
        source = take_image(list(share.layers), "/run", subpath=share.subpath)
    attributes = mounts.ATTR_NOSUID | mounts.ATTR_NODEV | (mounts.ATTR_RDONLY if share.read_only else 0)
    mounts.set_attributes(source, add=attributes, recursive=share.recursive)
    run = os.open("/run", os.O_PATH | os.O_DIRECTORY)
    new = mounts.new("tmpfs", {"size": "64k", "mode": "755"}, attributes=mounts.ATTR_NODEV)
    mounts.attach(new, run)
    os.mkdir("share", 0o755, dir_fd=new)
    name = "share"
    if share.is_file:
        name = "share/file"
        os.close(os.open(name, os.O_CREAT | os.O_RDONLY, 0o644, dir_fd=new))
    target = os.open(name, os.O_PATH, dir_fd=new)
    mounts.attach(source, target)
    for fd in (run, new, target):
        os.close(fd)


_C_VIRTIOFSD = "/usr/lib/qemu/"


def command(program: str, place: str, listener: int) -> list[str]:
    """virtiofsd's command line: of QEMU's own (Debian 12), or of the one in Rust that followed it (Debian 13)."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 65536 if limit == resource.RLIM_INFINITY else min(limit, 65536)
    if not program.startswith(_C_VIRTIOFSD):
        words = [program, f"--fd={listener}", f"--shared-dir={place}", "--sandbox=namespace", "--cache=auto", "--xattr"]
        words += ["--announce-submounts", f"--rlimit-nofile={files}", "--log-level=error", "--inode-file-handles=never"]
        return words
    options = f"source={place},sandbox=namespace,cache=auto,xattr,announce_submounts"
    return [program, f"--fd={listener}", "-f", "-o", options, f"--rlimit-nofile={files}"]
