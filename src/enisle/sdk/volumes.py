"""Requests about volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enisle.sdk.request import Request, as_json, nothing, segment

if TYPE_CHECKING:
    from enisle.sdk.types import Pruned, VolumeDetails

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
