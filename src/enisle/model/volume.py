"""Volumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Backing(StrEnum):
    """Where a volume's files are."""

    DIRECTORY = "directory"  # a directory of ours
    PROJECT = "project"  # the same, with a limit by the file system
    IMAGE = "image"  # a file of ours that holds a file system of limited size
    BIND = "bind"  # a directory of the host's
    MOUNT = "mount"  # whatever is mounted with the user's options


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The files of a volume as they once were; ``created_at`` in ns since the epoch."""

    name: str
    created_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """Files that outlive instances; ``mountpoint`` on the host, ``created_at`` in ns since the epoch.

    ``size_bytes``: its limit, 0 for none. ``moving_from``: the name its directory still has.
    """

    name: str
    mountpoint: str
    driver: str = "local"
    created_at: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    backing: Backing = Backing.DIRECTORY
    size_bytes: int = 0
    snapshots: tuple[Snapshot, ...] = ()
    moving_from: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether its files are kept below the data root."""
        return self.backing in (Backing.DIRECTORY, Backing.PROJECT, Backing.IMAGE)

    @property
    def is_mounted(self) -> bool:
        """Whether something has to be mounted before it can be used."""
        return self.backing in (Backing.IMAGE, Backing.MOUNT)
