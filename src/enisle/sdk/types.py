"""Shapes of the API's JSON, as far as this package and the command line read them (Docker Engine API 1.47).

Foreign JSON, so TypedDicts in the API's own spelling; all keys may be missing.
"""

from __future__ import annotations

from typing import Any, TypedDict

Labels = dict[str, str]


class Port(TypedDict, total=False):
    IP: str
    PrivatePort: int
    PublicPort: int
    Type: str


class InstanceSummary(TypedDict, total=False):
    """One line of the list of instances. ``Isolation`` is Enisle's own: container or vm."""

    Id: str
    Names: list[str]
    Image: str
    ImageID: str
    Command: str
    Created: int
    Ports: list[Port]
    Labels: Labels
    State: str
    Status: str
    SizeRw: int
    SizeRootFs: int
    Mounts: list[dict[str, Any]]
    NetworkSettings: dict[str, Any]
    HostConfig: dict[str, Any]
    Isolation: str


class InstanceDetails(TypedDict, total=False):
    Id: str
    Name: str
    Created: str
    Path: str
    Args: list[str]
    State: dict[str, Any]
    Image: str
    Config: dict[str, Any]
    HostConfig: dict[str, Any]
    NetworkSettings: dict[str, Any]
    Mounts: list[dict[str, Any]]


class Created(TypedDict, total=False):
    Id: str
    Warnings: list[str]


class Waited(TypedDict, total=False):
    StatusCode: int
    Error: dict[str, str] | None


class Processes(TypedDict, total=False):
    Titles: list[str]
    Processes: list[list[str]]


class Change(TypedDict, total=False):
    """``Kind``: 0 modified, 1 added, 2 deleted."""

    Path: str
    Kind: int


class PathStat(TypedDict, total=False):
    """``mode`` has Go's os.FileMode bits."""

    name: str
    size: int
    mode: int
    mtime: str
    linkTarget: str


class ExecDetails(TypedDict, total=False):
    ID: str
    Running: bool
    ExitCode: int | None
    Pid: int


class ImageSummary(TypedDict, total=False):
    Id: str
    ParentId: str
    RepoTags: list[str] | None
    RepoDigests: list[str] | None
    Created: int
    Size: int
    SharedSize: int
    Labels: Labels | None
    Containers: int


class HistoryLine(TypedDict, total=False):
    Id: str
    Created: int
    CreatedBy: str
    Tags: list[str] | None
    Size: int
    Comment: str


class Removal(TypedDict, total=False):
    Untagged: str
    Deleted: str


class VolumeDetails(TypedDict, total=False):
    Name: str
    Driver: str
    Mountpoint: str
    CreatedAt: str
    Labels: Labels | None
    Options: Labels | None
    Scope: str
    UsageData: dict[str, int] | None


class VolumeSnapshot(TypedDict, total=False):
    Name: str
    CreatedAt: str


class NetworkDetails(TypedDict, total=False):
    Id: str
    Name: str
    Driver: str
    Scope: str
    Created: str
    IPAM: dict[str, Any]
    Internal: bool
    EnableIPv6: bool
    Containers: dict[str, Any]
    Labels: Labels


class Pruned(TypedDict, total=False):
    """What a prune removed; which of the lists is there depends on what was pruned."""

    ContainersDeleted: list[str] | None
    ImagesDeleted: list[Removal] | None
    VolumesDeleted: list[str] | None
    NetworksDeleted: list[str] | None
    SpaceReclaimed: int


class Capability(TypedDict, total=False):
    """One line of the doctor's report; ``wall``: which wall cannot work without it (container, vm, both), or ""."""

    name: str
    ok: bool
    detail: str
    remedy: str
    wall: str
