"""Requests about the daemon and its host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from enisle.sdk.request import Request, as_json

if TYPE_CHECKING:
    from enisle.sdk.credentials import Credentials
    from enisle.sdk.types import Capability

Filters = dict[str, list[str]]


def ping() -> Request[str]:
    """The version of Docker's API that the daemon speaks."""
    return Request("GET", "/_ping", parse=lambda reply: reply.headers.get("api-version", ""), native=True)


def version() -> Request[dict[str, Any]]:
    """Versions of the daemon and its parts."""
    return Request("GET", "/version", parse=as_json)


def info() -> Request[dict[str, Any]]:
    """Facts and counts."""
    return Request("GET", "/info", parse=as_json)


def disk_usage(*, kinds: tuple[str, ...] = ()) -> Request[dict[str, Any]]:
    """What images, instances and volumes take; ``kinds``: image, container, volume."""
    return Request("GET", "/system/df", query={"type": kinds or None}, parse=as_json)


def events(*, since: str = "", until: str = "", filters: Filters | None = None) -> Request[Any]:
    """Events as they happen, beginning at ``since``; ends at ``until``. Both in seconds with a fraction."""
    query = {"since": since or None, "until": until or None, "filters": filters or None}
    return Request("GET", "/events", query=query, parse=as_json)


def login(credentials: Credentials) -> Request[dict[str, Any]]:
    """Whether the registry takes these credentials. Raises Unauthenticated."""
    return Request("POST", "/auth", json_body=credentials.fields(), parse=as_json)


def doctor() -> Request[list[Capability]]:
    """What the daemon's host can and cannot do."""
    return Request("GET", "/enisle/v1/doctor", parse=as_json, native=True)
