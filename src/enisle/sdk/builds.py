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
    credentials: Mapping[str, Credentials] | None = None,
) -> Request[Any]:
    """Build an image from a context: a tar, compressed or not, or a Dockerfile alone.

    ``options``: the parameters of Docker's POST /build (t, dockerfile, buildargs, ...); ``isolation`` "vm" runs every
    RUN in a virtual machine. ``secrets`` by id, never kept; ``ssh``: paths of agents' sockets on the daemon's host.
    """
    headers = {"Content-Type": "application/x-tar"}
    if credentials:
        fields = {registry: one.fields() for registry, one in credentials.items()}
        headers["X-Registry-Config"] = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
    if secrets or ssh:
        headers["X-Enisle-Build"] = _extras(secrets or {}, ssh or {})
    return Request("POST", "/build", query=dict(options), headers=headers, body=body, parse=as_json)


def _extras(secrets: Mapping[str, bytes], ssh: Mapping[str, str]) -> str:
    encoded = {name: base64.b64encode(data).decode() for name, data in secrets.items()}
    text = base64.b64encode(json.dumps({"secrets": encoded, "ssh": dict(ssh)}).encode()).decode()
    if len(text) > _EXTRAS_LIMIT_BYTES:
        raise Invalid("the secrets of one build may have about 30 KiB together", remedy="Give fewer or smaller ones.")
    return text


def prune() -> Request[dict[str, Any]]:
    """Forget what earlier builds have made, and remove what nothing else needs."""
    return Request("POST", "/build/prune", parse=as_json)
