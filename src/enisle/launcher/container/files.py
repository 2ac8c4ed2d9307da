"""The files of a container, running or not: each request in a child that holds its root as a descriptor.

The child never enters the root, so nothing of the image can be loaded or run (CVE-2019-14271, CVE-2026-41567); the
archive package finds every path relative to the descriptor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.archive import copy, overlay, pack
from enisle.archive.entry import ArchiveError
from enisle.launcher.container import identity
from enisle.launcher.container.failure import ChildFailure
from enisle.launcher.container.root import Root
from enisle.launcher.container.rootfs import Rootfs
from enisle.launcher.container.task import Answer, Task
from enisle.launcher.wall import WallError
from enisle.linux import mounts, user_namespace
from enisle.linux.namespaces import CLONE_NEWNS, unshare
from enisle.wire.frames import close_all
from enisle.wire.plans import ContainerPlan

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop

_WITH_STREAM = frozenset({"get", "put", "export", "upper"})
_ON_DISK = frozenset({"changes", "upper"})  # read from the layers' directories, which are the host's
_MOUNTED = frozenset({"bind", "volume", "image"})
Done = Callable[[dict[str, Any] | WallError], None]


class PipeEnd:
    """The archive package's source and sink over a blocking pipe."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, True)
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        return os.read(self._fd, size)

    def write(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


def open_stopped(loop: EpollLoop, plan: ContainerPlan, done: Callable[[int | WallError], None]) -> Task:
    """Mount the root with its volumes where nobody can see it; ``done`` gets a descriptor that keeps it mounted."""

    def work() -> Answer:
        unshare(CLONE_NEWNS)
        rootfs = Rootfs(plan.lower, plan.upper, plan.work)
        planned = [mount for mount in plan.mounts if mount.kind in _MOUNTED]
        try:
            rootfs.take_sources(planned)
            rootfs.mount_root()
            for mount in planned:
                rootfs.mount(mount, lambda _options, _attach: None)
        except ChildFailure as error:
            raise WallError("invalid", error.message) from error
        return {"fds": [mounts.clone_tree(rootfs.root.fd, recursive=True)]}

    def opened(answer: Answer | WallError) -> None:
        if isinstance(answer, WallError):
            done(answer)
        elif not answer.get("fds"):
            done(WallError("internal", "the root file system did not arrive"))
        else:
            done(answer["fds"][0])

    return Task(loop, work, [], opened)


def request(
    loop: EpollLoop,
    plan: ContainerPlan,
    root_fd: int,
    message: dict[str, Any],
    fds: list[int],
    done: Done,
    *,
    userns_fd: int = -1,
) -> Task:
    """Carry out one ``files`` request; ``root_fd``, ``fds`` and ``userns_fd`` are taken over. WallError for what is no
    request.

    ``userns_fd``: the container's own user namespace, from which its files are looked at: with its ids and its rights.
    """
    verb = message.get("verb")
    owned = [fd for fd in (root_fd, *fds, userns_fd) if fd >= 0]
    if verb not in _VERBS or (verb in _WITH_STREAM) != (len(fds) == 1):
        close_all(owned)
        raise WallError("invalid", f"files: {verb!r} with {len(fds)} streams")
    stream = fds[0] if fds else -1

    def work() -> Answer:
        try:
            if userns_fd >= 0 and verb not in _ON_DISK:
                user_namespace.enter(userns_fd)
            return _VERBS[verb](plan, root_fd, message, stream)
        except FileNotFoundError as error:
            text = f"Could not find the file {message.get('path', '/')} in container {plan.id}"
            raise WallError("not_found", text) from error
        except BrokenPipeError:
            return {}  # whoever asked has enough
        except (ArchiveError, ChildFailure) as error:
            raise WallError("invalid", str(error)) from error

    try:
        return Task(loop, work, owned, done)
    finally:
        close_all(owned)


def _stat(_plan: ContainerPlan, root: int, message: dict[str, Any], _stream: int) -> Answer:
    return {"stat": copy.stat(root, message["path"])}


def _get(_plan: ContainerPlan, root: int, message: dict[str, Any], stream: int) -> Answer:
    pack.pack(root, message["path"], PipeEnd(stream))
    return {}


def _put(plan: ContainerPlan, root: int, message: dict[str, Any], stream: int) -> Answer:
    owner = None
    if message.get("copy_uid_gid") and plan.process.user:
        who = identity.resolve(plan.process.user, [], Root(root).read)
        owner = (who.uid, who.gid)
    keep_kind = bool(message.get("no_overwrite_dir_non_dir"))
    copy.put(root, message["path"], PipeEnd(stream), keep_kind=keep_kind, owner=owner)
    return {}


def _export(_plan: ContainerPlan, root: int, _message: dict[str, Any], stream: int) -> Answer:
    pack.export(root, PipeEnd(stream))
    return {}


def _changes(plan: ContainerPlan, _root: int, _message: dict[str, Any], _stream: int) -> Answer:
    lowers, upper = _layers(plan)
    return {"changes": overlay.changes(lowers, upper)}


def _upper(plan: ContainerPlan, _root: int, _message: dict[str, Any], stream: int) -> Answer:
    lowers, upper = _layers(plan)
    overlay.layer(lowers, upper, PipeEnd(stream))
    return {}


def _layers(plan: ContainerPlan) -> tuple[list[int], int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return [os.open(path, flags) for path in plan.lower], os.open(plan.upper, flags)


_VERBS: dict[Any, Callable[[ContainerPlan, int, dict[str, Any], int], Answer]] = {
    "stat": _stat,
    "get": _get,
    "put": _put,
    "export": _export,
    "changes": _changes,
    "upper": _upper,
}
