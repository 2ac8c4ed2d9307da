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
from enisle.linux import quotas
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


def _unpack(message: Message, fds: list[int]) -> Answer:
    root = os.open(message["path"], _DIRECTORY)
    try:
        done = apply_entries(root, TarReader(PipeEnd(fds[0]), overlay_xattrs=True), Policy())
    except ArchiveError as error:
        raise WallError("invalid", str(error)) from error
    syncfs(root)
    return {"entries": done.entries, "bytes": done.size}


def _copy(message: Message, _fds: list[int]) -> Answer:
    source, target = os.open(message["source"], _DIRECTORY), os.open(message["target"], _DIRECTORY)
    copy_tree(source, target)
    syncfs(target)
    return {}


def _remove(message: Message, _fds: list[int]) -> Answer:
    above, name = os.path.split(os.fsencode(message["path"]))
    beneath.remove(os.open(above, _DIRECTORY), name)
    return {}


def _limit(message: Message, _fds: list[int]) -> Answer:
    quotas.limit(os.open(message["path"], _DIRECTORY), int(message["size"]))
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
