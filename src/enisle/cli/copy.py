"""Where ``cp`` puts things: the rules of docker cp, apart from doing it."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from enisle.errors import Invalid, NotFound

GO_DIRECTORY = 1 << 31  # bits of Go's os.FileMode, which the API speaks
GO_LINK = 1 << 27


class Place(NamedTuple):
    """One side of a copy: a path of an instance, or of ours when ``instance`` is ""."""

    instance: str
    path: str

    @property
    def contents_only(self) -> bool:
        """Whether ``dir/.`` was written: what is in it, not the directory itself."""
        return self.path.endswith("/.") or self.path == "."

    @property
    def must_be_directory(self) -> bool:
        """Whether the path is written as a directory's."""
        return self.path.endswith("/") or self.contents_only

    @property
    def base(self) -> str:
        """The last component of the path."""
        return os.path.basename(os.path.normpath(self.path))


class Landing(NamedTuple):
    """Where to unpack: into ``directory``, with ``top`` in place of the first component of all names."""

    directory: str
    top: str


def place(text: str) -> Place:
    """``INSTANCE:PATH`` or a path of ours; one that begins with . or / is ours whatever follows."""
    if text.startswith((".", "/")) or ":" not in text:
        return Place("", text)
    instance, _, path = text.partition(":")
    if not instance:
        raise Invalid(f"{text!r}: the instance's name is missing before the colon.")
    return Place(instance, path or "/")


def landing(
    destination: str, *, source: Place, source_is_directory: bool, kind: str, must_be_directory: bool = False
) -> Landing:
    """Where a copy of ``source`` lands. ``kind`` of what is at the destination: directory, file, or "" for nothing.

    Raises Invalid when a directory would replace a file, NotFound when a file was to go into a directory that is not.
    """
    if kind == "directory":
        return Landing(destination, "." if source.contents_only else source.base or ".")
    if kind == "file":
        if source_is_directory:
            raise Invalid(f"cannot copy a directory to the file {destination}")
        if must_be_directory:
            raise Invalid(f"{destination} is not a directory")
    elif must_be_directory and not source_is_directory:
        raise NotFound(f"no such directory: {destination}")
    clean = os.path.normpath(destination)
    return Landing(os.path.dirname(clean) or ".", os.path.basename(clean))


def local_kind(path: str) -> str:
    """What is at a path of ours, links followed."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}.") from error
    return "directory" if stat.S_ISDIR(status.st_mode) else "file"
