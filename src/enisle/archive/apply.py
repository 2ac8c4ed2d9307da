"""Unpacking a tar stream into a directory that it cannot leave."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from enum import StrEnum

from enisle.archive.beneath import Parents, look, remove
from enisle.archive.entry import ArchiveError, Entry, FileKind, TooLargeError, components, shown
from enisle.archive.reader import ByteSource, TarReader

_TIME_LIMIT_NS = (1 << 33) * 1_000_000_000  # what every file system of today can hold, and far from overflow
_STORAGE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
OPAQUE_XATTR = b"trusted.overlay.opaque"


class Whiteouts(StrEnum):
    """What names that begin with .wh. (image-spec, layer.md) become."""

    OVERLAY = "overlay"  # overlayfs's own marks: devices 0:0 and the opaque attribute
    DELETE = "delete"  # what they name is removed: layers applied one over the other
    NONE = "none"  # files like others


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one archive may hold. ``total_bytes`` counts stored file content."""

    entries: int = 5_000_000
    total_bytes: int = 1 << 40
    file_bytes: int = 1 << 44


@dataclass(slots=True, kw_only=True)
class Applied:
    """What was unpacked. ``size`` is the sum of file sizes; ``made``: parents that the archive did not describe."""

    entries: int = 0
    size: int = 0
    made: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to unpack. ``owner``: instead of the archive's (uid, gid). ``keep_kind`` refuses to replace a directory by
    anything else or anything else by a directory. ``within``: a directory below the root that names start from.
    ``root_attributes``: an entry for the archive's own root (".") sets owner, mode and time of the directory."""

    whiteouts: Whiteouts = Whiteouts.NONE
    limits: Limits = Limits()
    owner: tuple[int, int] | None = None
    keep_kind: bool = False
    within: tuple[bytes, ...] = ()
    root_attributes: bool = True


def apply(root: int, stream: ByteSource, *, whiteouts: str = Whiteouts.NONE, limits: Limits | None = None) -> Applied:
    """Unpack an uncompressed tar into the directory ``root``, which must be a readable descriptor.

    Raises ArchiveError for what is wrong with the archive and OSError where the disk is full or broken; what was
    unpacked until then stays. Sets the process's umask meanwhile: call it in a process of one thread.
    """
    return apply_with(root, stream, Policy(whiteouts=Whiteouts(whiteouts), limits=limits or Limits()))


def apply_with(root: int, stream: ByteSource, policy: Policy) -> Applied:
    """As :func:`apply`, under any policy."""
    return apply_entries(root, TarReader(stream), policy)


def apply_entries(root: int, reader: TarReader, policy: Policy) -> Applied:
    """As :func:`apply_with`, from a reader (which may give its entries other names)."""
    mask = os.umask(0)
    target = _Target(root, policy)
    try:
        return target.run(reader)
    finally:
        target.parents.close()
        os.umask(mask)


class _Target:
    """The directory being filled."""

    def __init__(self, root: int, policy: Policy) -> None:
        self.root = root
        self.policy = policy
        self.parents = Parents(root)
        self.done = Applied(made=self.parents.made)
        self.stored = 0
        self.directory_times: dict[tuple[bytes, ...], int] = {}
        self.seen: set[tuple[bytes, ...]] = set()  # only for Whiteouts.DELETE: what this archive itself made

    def run(self, reader: TarReader) -> Applied:
        for entry in reader:
            self.count(entry)
            try:
                self.place(entry, reader)
            except OSError as error:
                if error.errno in _STORAGE:
                    raise
                raise ArchiveError(f"{shown(entry.name)}: {error.strerror or error}") from error
        reader.drain()
        self.set_directory_times()
        return self.done

    def count(self, entry: Entry) -> None:
        limits = self.policy.limits
        self.done.entries += 1
        self.done.size += entry.size
        self.stored += entry.stored
        if self.done.entries > limits.entries:
            raise ArchiveError(f"the archive holds more than the limit of {limits.entries} files")
        if self.stored > limits.total_bytes:
            raise TooLargeError(f"the archive unpacks to more than the limit of {limits.total_bytes} bytes")
        if entry.size > limits.file_bytes:
            raise ArchiveError(f"{shown(entry.name)}: larger than the limit of {limits.file_bytes} bytes")

    def place(self, entry: Entry, reader: TarReader) -> None:
        own = components(entry.name)
        if not own:
            if entry.kind is FileKind.DIRECTORY and self.policy.root_attributes:
                self.directory_attributes(self.parents.get(self.policy.within), entry, self.policy.within)
            return
        path = (*self.policy.within, *own)
        if self.policy.whiteouts is not Whiteouts.NONE and own[-1].startswith(_WHITEOUT):
            self.whiteout(path, entry)
            return
        parent = self.parents.get(path[:-1])
        if self.policy.whiteouts is Whiteouts.DELETE:
            self.seen.update(path[:count] for count in range(1, len(path) + 1))
        match entry.kind:
            case FileKind.REGULAR:
                self.regular(parent, path, entry, reader)
            case FileKind.DIRECTORY:
                self.directory(parent, path, entry)
            case FileKind.SYMBOLIC_LINK:
                self.symbolic_link(parent, path, entry)
            case FileKind.HARD_LINK:
                self.hard_link(path, entry)
            case _:
                self.special(parent, path, entry)

    # --- kinds ---

    def regular(self, parent: int, path: tuple[bytes, ...], entry: Entry, reader: TarReader) -> None:
        try:
            fd = os.open(path[-1], _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            parent = self.clear(path, entry)
            fd = os.open(path[-1], _NEW_FILE, 0o600, dir_fd=parent)
        try:
            if entry.sparse is None:
                for _, piece in reader.data():
                    _write(fd, piece)
            else:
                os.ftruncate(fd, entry.size)
                for offset, piece in reader.data():
                    os.lseek(fd, offset, os.SEEK_SET)
                    _write(fd, piece)
            os.fchown(fd, *self.owner(entry))
            os.fchmod(fd, entry.mode)
            _set_xattrs(fd, entry)  # last: chown and writes clear file capabilities
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)

    def directory(self, parent: int, path: tuple[bytes, ...], entry: Entry) -> None:
        hides = False
        try:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            status = look(parent, path[-1])
            if status is None or not stat.S_ISDIR(status.st_mode):
                hides = status is not None and _is_whiteout(status)
                parent = self.clear(path, entry)
                os.mkdir(path[-1], 0o700, dir_fd=parent)
        fd = os.open(path[-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self.directory_attributes(fd, entry, path)
            if hides and self.policy.whiteouts is Whiteouts.OVERLAY:
                os.setxattr(fd, OPAQUE_XATTR, b"y")
        finally:
            os.close(fd)

    def directory_attributes(self, fd: int, entry: Entry, path: tuple[bytes, ...]) -> None:
        os.fchown(fd, *self.owner(entry))
        os.fchmod(fd, entry.mode)
        _set_xattrs(fd, entry)
        self.directory_times[path] = _times(entry)[1]

    def symbolic_link(self, parent: int, path: tuple[bytes, ...], entry: Entry) -> None:
        if b"\0" in entry.target or not entry.target:
            raise ArchiveError(f"{shown(entry.name)}: the link's target is empty or holds a NUL byte")
        try:
            os.symlink(entry.target, path[-1], dir_fd=parent)
        except FileExistsError:
            parent = self.clear(path, entry)
            os.symlink(entry.target, path[-1], dir_fd=parent)
        self.attributes(parent, path[-1], entry)

    def hard_link(self, path: tuple[bytes, ...], entry: Entry) -> None:
        target = (*self.policy.within, *components(entry.target))
        if target == path:
            return
        if len(target) == len(self.policy.within):
            raise ArchiveError(f"{shown(entry.name)}: a hard link to the archive's root")
        if look(self.parents.get(path[:-1]), path[-1]) is not None:
            self.clear(path, entry)
        try:
            source = os.dup(self.parents.get(target[:-1], make=False))
        except FileNotFoundError:
            source = -1
        try:
            if source < 0 or look(source, target[-1]) is None:
                raise ArchiveError(f"{shown(entry.name)}: hard link to {shown(entry.target)}, which is not there")
            parent = self.parents.get(path[:-1])
            os.link(target[-1], path[-1], src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            if source >= 0:
                os.close(source)

    def special(self, parent: int, path: tuple[bytes, ...], entry: Entry) -> None:
        kinds = {FileKind.FIFO: stat.S_IFIFO, FileKind.CHARACTER: stat.S_IFCHR, FileKind.BLOCK: stat.S_IFBLK}
        mode = kinds[entry.kind] | entry.mode
        major, minor = entry.device if entry.kind is not FileKind.FIFO else (0, 0)
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):  # what the kernel's dev_t holds
            raise ArchiveError(f"{shown(entry.name)}: no device has the number {major}:{minor}")
        device = os.makedev(major, minor)
        try:
            os.mknod(path[-1], mode, device, dir_fd=parent)
        except FileExistsError:
            parent = self.clear(path, entry)
            os.mknod(path[-1], mode, device, dir_fd=parent)
        self.attributes(parent, path[-1], entry)

    def attributes(self, parent: int, name: bytes, entry: Entry) -> None:
        """Owner and time of what cannot be opened. Its mode came with its creation; links have none."""
        os.chown(name, *self.owner(entry), dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=_times(entry), dir_fd=parent, follow_symlinks=False)

    # --- what was there before ---

    def clear(self, path: tuple[bytes, ...], entry: Entry) -> int:
        """Remove what stands where an entry is to be; the parent's descriptor."""
        parent = self.parents.get(path[:-1])
        status = look(parent, path[-1])
        if status is None:
            return parent
        was_directory = stat.S_ISDIR(status.st_mode)
        if self.policy.keep_kind and was_directory != (entry.kind is FileKind.DIRECTORY):
            kinds = ("directory", "non-directory") if was_directory else ("non-directory", "directory")
            place = "/" + shown(b"/".join(path))
            raise ArchiveError(
                f'cannot overwrite {kinds[0]} "{place}" with {kinds[1]} "{shown(entry.name.rstrip(b"/"))}"'
            )
        remove(parent, path[-1])
        if not stat.S_ISREG(status.st_mode):
            self.parents.forget()
            for known in [key for key in self.directory_times if key[: len(path)] == path]:
                del self.directory_times[known]
        return self.parents.get(path[:-1])

    def whiteout(self, path: tuple[bytes, ...], entry: Entry) -> None:
        name, above = path[-1], path[:-1]
        hidden = name[len(_WHITEOUT) :]
        if name == _OPAQUE:
            self.opaque(above)
        elif name.startswith(_WHITEOUT * 2):
            return  # housekeeping of aufs, meaningless elsewhere
        elif hidden in (b"", b".", b".."):
            raise ArchiveError(f"{shown(entry.name)}: a whiteout of nothing that could be there")
        elif self.policy.whiteouts is Whiteouts.OVERLAY:
            self.mark(above, hidden)
        elif (*above, hidden) not in self.seen:
            remove(self.parents.get(above), hidden)
            self.parents.forget()

    def mark(self, above: tuple[bytes, ...], hidden: bytes) -> None:
        parent = self.parents.get(above)
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:  # this layer made it anew, so it hides what is below; a directory has to be told to
            status = look(parent, hidden)
            if status is not None and stat.S_ISDIR(status.st_mode):
                os.setxattr(self.parents.get((*above, hidden)), OPAQUE_XATTR, b"y")

    def opaque(self, above: tuple[bytes, ...]) -> None:
        parent = self.parents.get(above)
        if self.policy.whiteouts is Whiteouts.OVERLAY:
            os.setxattr(parent, OPAQUE_XATTR, b"y")
            return
        with os.scandir(parent) as found:
            names = [os.fsencode(item.name) for item in found]
        for name in names:
            if (*above, name) not in self.seen:
                remove(parent, name)
        self.parents.forget()

    def set_directory_times(self) -> None:
        """Last of all, because each file made in a directory moves its time."""
        for path, time_ns in self.directory_times.items():
            try:
                os.utime(self.parents.get(path, make=False), ns=(time_ns, time_ns))
            except (FileNotFoundError, NotADirectoryError):
                continue

    def owner(self, entry: Entry) -> tuple[int, int]:
        return self.policy.owner or (entry.uid, entry.gid)


def _write(fd: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(fd, piece) :]


def _times(entry: Entry) -> tuple[int, int]:
    time_ns = max(0, min(entry.mtime_ns, _TIME_LIMIT_NS))
    return time_ns, time_ns


def _set_xattrs(fd: int, entry: Entry) -> None:
    for name, value in entry.xattrs.items():
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):  # the file system has none, or not that one
                raise


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
