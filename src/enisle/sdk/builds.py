"""Requests about builds. A build answers with JSON objects of progress."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from enisle.errors import Invalid
from enisle.sdk.credentials import Credentials
from enisle.sdk.request import Body, Request, as_json

_EXTRAS_LIMIT_BYTES = 60_000  # of one header field


def build(
    body: Body,
    *,
    options: Mapping[str, Any],
    secrets: Mapping[str, bytes] | None = None,
    ssh: Mapping[str, str] | None = None,
    contexts: Mapping[str, str] | None = None,
    keep: bool = True,
    credentials: Mapping[str, Credentials] | None = None,
) -> Request[Any]:
    """Build an image from a context: a tar, compressed or not, or a Dockerfile alone.

    ``options``: the parameters of Docker's POST /build (t, dockerfile, buildargs, ...); ``isolation`` "vm" runs every
    RUN in a virtual machine. ``secrets`` by id, never kept; ``ssh``: paths of agents' sockets on the daemon's host.
    ``contexts`` by name: "docker-image://…", a git repository, the URL of a tar, or "input:DIRECTORY" of ``body``.
    Without ``keep`` the result is no image of its own unless it gets a name, and goes when room is needed.
    """
    headers = {"Content-Type": "application/x-tar"}
    if credentials:
        fields = {registry: one.fields() for registry, one in credentials.items()}
        headers["X-Registry-Config"] = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
    encoded = {name: base64.b64encode(data).decode() for name, data in (secrets or {}).items()}
    extras = {"secrets": encoded, "ssh": dict(ssh or {}), "contexts": dict(contexts or {}), "keep": keep}
    if secrets or ssh or contexts or not keep:
        headers["X-Enisle-Build"] = _header(extras)
    return Request("POST", "/build", query=dict(options), headers=headers, body=body, parse=as_json)


def _header(extras: Mapping[str, Any]) -> str:
    text = base64.b64encode(json.dumps(extras).encode()).decode()
    if len(text) > _EXTRAS_LIMIT_BYTES:
        raise Invalid("the secrets of one build may have about 30 KiB together", remedy="Give fewer or smaller ones.")
    return text


def prune(
    *, everything: bool = False, filters: Mapping[str, list[str]] | None = None, keep_bytes: int = 0
) -> Request[dict[str, Any]]:
    """Remove what earlier builds have left and none uses now, the longest unused first, until ``keep_bytes`` are left.

    ``everything``: also forget results that images share.
    """
    query: dict[str, Any] = {
        "all": everything or None,
        "filters": dict(filters) if filters else None,
        "keep-storage": keep_bytes or None,
    }
    return Request("POST", "/build/prune", query=query, parse=as_json)
