"""Requests about volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enisle.sdk.request import Body, Request, as_json, nothing, segment

if TYPE_CHECKING:
    from enisle.sdk.types import Pruned, VolumeDetails, VolumeSnapshot

Filters = dict[str, list[str]]


def list_all(*, filters: Filters | None = None) -> Request[list[VolumeDetails]]:
    """All volumes."""
    return Request(
        "GET",
        "/volumes",
        query={"filters": filters or None},
        parse=lambda reply: (reply.json() or {}).get("Volumes") or [],
    )


def get(name: str) -> Request[VolumeDetails]:
    """Everything about one volume."""
    return Request("GET", f"/volumes/{segment(name)}", parse=as_json)


def create(
    name: str = "",
    *,
    driver: str = "local",
    options: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> Request[VolumeDetails]:
    """A volume; without a name it gets a random one. One that exists is given back as it is."""
    body = {"Name": name, "Driver": driver, "DriverOpts": options or {}, "Labels": labels or {}}
    return Request("POST", "/volumes/create", json_body=body, parse=as_json)


def remove(name: str, *, force: bool = False) -> Request[None]:
    """Remove it with all it holds. Conflict while an instance uses it."""
    return Request("DELETE", f"/volumes/{segment(name)}", query={"force": force or None}, parse=nothing)


def prune(*, filters: Filters | None = None) -> Request[Pruned]:
    """Remove anonymous volumes nobody uses; with the filter all=true named ones too."""
    return Request("POST", "/volumes/prune", query={"filters": filters or None}, parse=as_json)


def _native(name: str, verb: str) -> str:
    return f"/enisle/v1/volumes/{segment(name)}/{verb}"


def export(name: str, *, snapshot: str = "") -> Request[bytes]:
    """A tar of its files, or of a snapshot's; equal content gives equal bytes."""
    query = {"snapshot": snapshot or None}
    return Request("GET", _native(name, "export"), query=query, parse=lambda reply: reply.body, native=True)


def import_tar(name: str, body: Body, *, replace: bool = False, size: str = "") -> Request[VolumeDetails]:
    """A new volume of a tar's content; ``replace``: in the place of what the volume has, if it is there."""
    return Request(
        "POST",
        _native(name, "import"),
        query={"replace": replace or None, "size": size or None},
        headers={"Content-Type": "application/x-tar"},
        body=body,
        parse=as_json,
        native=True,
    )


def clone(name: str, target: str, *, snapshot: str = "", size: str = "") -> Request[VolumeDetails]:
    """A new volume with the same content; another limit with ``size``."""
    body = {"name": target, "snapshot": snapshot, "size": size}
    return Request("POST", _native(name, "clone"), json_body=body, parse=as_json, native=True)


def rename(name: str, target: str) -> Request[VolumeDetails]:
    """Conflict while an instance mentions it."""
    return Request("POST", _native(name, "rename"), json_body={"name": target}, parse=as_json, native=True)


def resize(name: str, size: str) -> Request[VolumeDetails]:
    """Another size limit ("2g")."""
    return Request("POST", _native(name, "resize"), json_body={"size": size}, parse=as_json, native=True)


def snapshots(name: str) -> Request[list[VolumeSnapshot]]:
    """Oldest first."""
    return Request("GET", _native(name, "snapshots"), parse=as_json, native=True)


def take_snapshot(name: str, snapshot: str = "") -> Request[VolumeSnapshot]:
    """Keep the files as they are; the name is made of the time unless it is given."""
    return Request("POST", _native(name, "snapshots"), json_body={"name": snapshot}, parse=as_json, native=True)


def restore(name: str, snapshot: str) -> Request[None]:
    """Put a snapshot's files in the place of the volume's. Conflict while a running instance uses it."""
    path = _native(name, "snapshots/restore")
    return Request("POST", path, json_body={"name": snapshot}, parse=nothing, native=True)


def remove_snapshot(name: str, snapshot: str) -> Request[None]:
    """Remove one snapshot."""
    return Request("DELETE", _native(name, "snapshots"), query={"name": snapshot}, parse=nothing, native=True)
