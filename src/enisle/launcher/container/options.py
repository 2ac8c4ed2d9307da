"""mount(8)'s words, sorted into what the kernel's calls want. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from enisle.linux import mounts

_ADD = {
    "ro": mounts.ATTR_RDONLY,
    "nosuid": mounts.ATTR_NOSUID,
    "nodev": mounts.ATTR_NODEV,
    "noexec": mounts.ATTR_NOEXEC,
    "nodiratime": mounts.ATTR_NODIRATIME,
    "nosymfollow": mounts.ATTR_NOSYMFOLLOW,
}
_REMOVE = {
    "rw": mounts.ATTR_RDONLY,
    "suid": mounts.ATTR_NOSUID,
    "dev": mounts.ATTR_NODEV,
    "exec": mounts.ATTR_NOEXEC,
    "diratime": mounts.ATTR_NODIRATIME,
}
_ATIME = {"relatime": 0, "noatime": mounts.ATTR_NOATIME, "strictatime": mounts.ATTR_STRICTATIME}
_PROPAGATION = {
    "private": mounts.MS_PRIVATE,
    "slave": mounts.MS_SLAVE,
    "shared": mounts.MS_SHARED,
    "unbindable": mounts.MS_UNBINDABLE,
}
_IGNORED = frozenset({"bind", "defaults", "nocopy", "copy", "z", "Z", "cached", "delegated", "consistent"})

READ_ONLY_TOP = "ro=top"
"""Read-only, while what is mounted below stays as it is (Docker's ReadOnlyNonRecursive); plain "ro" is for all."""


@dataclass(slots=True)
class Options:
    """``data``: what is left for the file system itself, in order. ``propagation`` 0: private.

    ``top_only``: attributes are for the mount itself, not for those below it.
    """

    add: int = 0
    remove: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    recursive: bool = False
    top_only: bool = False
    data: dict[str, str | None] = field(default_factory=dict)

    @property
    def propagation_of_bind(self) -> tuple[int, bool]:
        """The MS_* kind of a bind mount, and whether those below it get it too."""
        return self.propagation or mounts.MS_PRIVATE, self.propagation_recursive or not self.propagation

    @property
    def attributes_of_bind(self) -> tuple[int, int, bool]:
        """ATTR_* to add and to remove of a bind mount, and whether of those below it too."""
        return self.add, self.remove & mounts.ATTR_ATIME_MASK, self.recursive and not self.top_only

    @property
    def read_only(self) -> bool:
        """Whether writing is to be refused."""
        return bool(self.add & mounts.ATTR_RDONLY)


def parse(words: Iterable[str]) -> Options:
    """Later words win over earlier ones."""
    options = Options()
    for word in words:
        if word == READ_ONLY_TOP:
            options.add |= mounts.ATTR_RDONLY
            options.top_only = True
        elif word in _ADD:
            options.add |= _ADD[word]
            options.remove &= ~_ADD[word]
        elif word in _REMOVE:
            options.remove |= _REMOVE[word]
            options.add &= ~_REMOVE[word]
        elif word in _ATIME:
            options.remove |= mounts.ATTR_ATIME_MASK
            options.add = options.add & ~mounts.ATTR_ATIME_MASK | _ATIME[word]
        elif word.removeprefix("r") in _PROPAGATION and word != "r":
            options.propagation = _PROPAGATION[word.removeprefix("r")]
            options.propagation_recursive = word.startswith("r")
        elif word == "rbind":
            options.recursive = True
        elif word not in _IGNORED:
            key, separator, value = word.partition("=")
            options.data[key] = value if separator else None
    return options
