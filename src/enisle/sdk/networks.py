"""Requests about networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enisle.sdk.request import Request, as_json, nothing, segment

if TYPE_CHECKING:
    from enisle.sdk.types import Created, NetworkDetails, Pruned

Filters = dict[str, list[str]]


def list_all(*, filters: Filters | None = None) -> Request[list[NetworkDetails]]:
    """All networks."""
    return Request("GET", "/networks", query={"filters": filters or None}, parse=as_json)


def get(ref: str, *, verbose: bool = False) -> Request[NetworkDetails]:
    """Everything about one network, by name, id or unique prefix."""
    return Request("GET", f"/networks/{segment(ref)}", query={"verbose": verbose or None}, parse=as_json)


def create(body: dict[str, Any]) -> Request[Created]:
    """A network; ``body`` as Docker's NetworkCreateRequest."""
    return Request("POST", "/networks/create", json_body=body, parse=as_json)


def remove(ref: str) -> Request[None]:
    """Remove it. Conflict while instances are on it."""
    return Request("DELETE", f"/networks/{segment(ref)}", parse=nothing)


def connect(ref: str, instance: str, *, endpoint: dict[str, Any] | None = None) -> Request[None]:
    """Put an instance on it; ``endpoint`` as Docker's EndpointSettings."""
    body = {"Container": instance, "EndpointConfig": endpoint or {}}
    return Request("POST", f"/networks/{segment(ref)}/connect", json_body=body, parse=nothing)


def disconnect(ref: str, instance: str, *, force: bool = False) -> Request[None]:
    """Take an instance off it."""
    body = {"Container": instance, "Force": force}
    return Request("POST", f"/networks/{segment(ref)}/disconnect", json_body=body, parse=nothing)


def prune(*, filters: Filters | None = None) -> Request[Pruned]:
    """Remove those that no instance is on."""
    return Request("POST", "/networks/prune", query={"filters": filters or None}, parse=as_json)
