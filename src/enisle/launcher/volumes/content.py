"""What is done with the files of a volume: each in a child of the keeper's, by descriptors that cannot be left."""

from __future__ import annotations

import os
from collections.abc import Callable

from enisle.archive import beneath
from enisle.archive.apply import Policy, apply_entries
from enisle.archive.entry import ArchiveError
from enisle.archive.pack import pack_exact
from enisle.archive.reader import TarReader
from enisle.archive.tree_copy import copy_tree
from enisle.launcher.container.files import PipeEnd
from enisle.launcher.container.task import Answer
from enisle.launcher.wall import WallError
from enisle.linux import capabilities, quotas
from enisle.linux.syncfs import syncfs
from enisle.wire.frames import Message

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _pack(message: Message, fds: list[int]) -> Answer:
    root = os.open(message["path"], _DIRECTORY)
    try:
        pack_exact(root, PipeEnd(fds[0]))
    except BrokenPipeError:
        pass  # whoever asked has enough
    return {}


def _obey_quotas() -> None:
    """The kernel lets whoever has SYS_RESOURCE go beyond a limit: what is put into a volume would not fit into it."""
    capabilities.set_current(capabilities.effective() & ~capabilities.mask(["SYS_RESOURCE"]))


def _unpack(message: Message, fds: list[int]) -> Answer:
    _obey_quotas()
    root = os.open(message["path"], _DIRECTORY)
    try:
        done = apply_entries(root, TarReader(PipeEnd(fds[0]), overlay_xattrs=True), Policy())
    except ArchiveError as error:
        raise WallError("invalid", str(error)) from error
    syncfs(root)
    return {"entries": done.entries, "bytes": done.size}


def _copy(message: Message, _fds: list[int]) -> Answer:
    _obey_quotas()
    source, target = os.open(message["source"], _DIRECTORY), os.open(message["target"], _DIRECTORY)
    copy_tree(source, target)
    syncfs(target)
    return {}


def _remove(message: Message, _fds: list[int]) -> Answer:
    above, name = os.path.split(os.fsencode(message["path"]))
    beneath.remove(os.open(above, _DIRECTORY), name)
    return {}


def _limit(message: Message, _fds: list[int]) -> Answer:
    try:
        quotas.limit(os.open(message["path"], _DIRECTORY), int(message["size"]))
    except ProcessLookupError as error:  # quotactl(2): no quotas of this kind are on
        reason = "the file system of the data root has no project quotas (any more): mount it with prjquota"
        raise WallError("not_supported", reason) from error
    return {}


def _unlimit(message: Message, _fds: list[int]) -> Answer:
    quotas.unlimit(os.open(message["path"], _DIRECTORY))
    return {}


VERBS: dict[object, Callable[[Message, list[int]], Answer]] = {
    "pack": _pack,
    "unpack": _unpack,
    "copy": _copy,
    "remove": _remove,
    "limit": _limit,
    "unlimit": _unlimit,
}
