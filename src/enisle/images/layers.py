"""Unpacked layers: a directory each, made aside and renamed when whole."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from enisle.archive.beneath import LITERALLY, open_directory, remove
from enisle.archive.overlay import is_whiteout
from enisle.archive.pack import read_xattrs
from enisle.contracts import layer_digest
from enisle.linux.disk_usage import allocated_bytes
from enisle.linux.inode_flags import spread_subdirectories
from enisle.model.ids import Digest

_log = logging.getLogger(__name__)
_NAME_DIGITS = 26  # 104 bits. Short, because all names of an image have to fit into one page of mount options
_RESERVED_BYTES = 64 << 20  # left free for records, logs and whatever removal needs


class LayerStore:
    """A directory of layers. Calls block for as long as their file operations do."""

    def __init__(self, root: Path) -> None:
        self._root = root / "layers"
        self._staging = root / "staging"
        self._measured: dict[Digest, int] = {}
        for path in (self._root, self._staging):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread_subdirectories(self._staging)

    def path(self, chain: Digest) -> Path:
        """Where the layer that completes this chain is, or would be."""
        return self._root / layer_digest(chain)[:_NAME_DIGITS]

    def has(self, chain: Digest) -> bool:
        """Whether that layer is unpacked."""
        return self.path(chain).is_dir()

    def disk_bytes(self, chain: Digest) -> int:
        """Bytes on the disk. Reads the whole layer the first time: it never changes."""
        if chain not in self._measured:
            self._measured[chain] = allocated_bytes(self.path(chain))
        return self._measured[chain]

    def stage(self) -> Path:
        """A new empty directory to unpack into."""
        path = self._staging / secrets.token_hex(8)
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        return path

    def free_bytes(self) -> int:
        """What may be unpacked before the disk is too full."""
        return max(0, shutil.disk_usage(self._root).free - _RESERVED_BYTES)

    def commit(self, staged: Path, chain: Digest, made: Iterable[str], below: Sequence[Digest]) -> None:
        """Make a staged directory the layer. ``below``: the layers under it, topmost first.

        Directories that the layer's archive took for granted (``made``) get the attributes they have below; otherwise
        overlayfs would show the defaults they were made with.
        """
        lowers = [os.open(self.path(lower), os.O_RDONLY | os.O_DIRECTORY) for lower in below]
        root = os.open(staged, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in sorted(made, reverse=True):  # children before parents
                _inherit(root, lowers, name.encode("latin-1"))
        finally:
            for fd in (*lowers, root):
                os.close(fd)
        try:
            staged.rename(self.path(chain))
        except OSError:
            if not self.has(chain):
                raise
            self.discard(staged)

    def discard(self, staged: Path) -> None:
        """Remove a staged directory."""
        remove_tree(staged)

    def delete(self, chain: Digest) -> None:
        """Remove a layer: at once out of sight, then file by file."""
        doomed = self._staging / secrets.token_hex(8)
        self._measured.pop(chain, None)
        try:
            self.path(chain).rename(doomed)
        except FileNotFoundError:
            return
        remove_tree(doomed)

    def sweep(self, keep: Iterable[Digest]) -> None:
        """Remove all layers but these, and whatever was being made or removed."""
        kept = {self.path(chain) for chain in keep}
        for path in [*self._staging.iterdir(), *self._root.iterdir()]:
            if path in kept:
                continue
            try:
                remove_tree(path)
            except OSError as error:  # rubbish on the disk is no reason not to start
                _log.warning("%s cannot be removed: %s", path, error)


def remove_tree(path: Path) -> None:
    """Remove a directory of the store, mounts excepted: see :func:`enisle.archive.beneath.remove`."""
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove(parent, os.fsencode(path.name))
    finally:
        os.close(parent)


def _inherit(root: int, lowers: Sequence[int], name: bytes) -> None:
    above, _, last = name.rpartition(b"/")
    for lower in lowers:
        try:
            parent = open_directory(lower, above, resolve=LITERALLY)
        except OSError:
            continue
        try:
            status = os.stat(last, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            continue
        finally:
            os.close(parent)
        if is_whiteout(status) or not stat.S_ISDIR(status.st_mode):
            return
        _copy_attributes(lower, root, name, status)
        return


def _copy_attributes(source: int, target: int, name: bytes, status: os.stat_result) -> None:
    try:
        to = open_directory(target, name, resolve=LITERALLY)
    except OSError:  # the layer itself replaced or removed it later on
        return
    try:
        below = open_directory(source, name, resolve=LITERALLY)
        try:
            for key, value in read_xattrs(below).items():
                os.setxattr(to, key, value)
        finally:
            os.close(below)
        os.fchown(to, status.st_uid, status.st_gid)
        os.fchmod(to, stat.S_IMODE(status.st_mode))
        os.utime(to, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(to)
