"""Answers: JSON, and errors in Docker's shape."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from enisle.errors import EnisleError, Kind, StartFailed

_encoder = msgspec.json.Encoder()
_JSON = {"Content-Type": "application/json"}
_FAILED_BEFORE_COMMAND = 128

STATUS = {
    Kind.NOT_FOUND: 404,
    Kind.INVALID: 400,
    Kind.CONFLICT: 409,
    Kind.DENIED: 403,
    Kind.UNAUTHENTICATED: 401,
    Kind.NOT_MODIFIED: 304,
    Kind.NOT_SUPPORTED: 501,
    Kind.UNAVAILABLE: 503,
    Kind.EXHAUSTED: 500,
    Kind.INTERNAL: 500,
}


def encode(value: Any) -> bytes:
    """A value as compact JSON."""
    return _encoder.encode(value)


def json_response(value: Any, *, status: int = 200) -> web.Response:
    """The value as JSON, ended by a line feed as dockerd does."""
    return web.Response(body=_encoder.encode(value) + b"\n", status=status, headers=_JSON)


def empty(status: int = 204) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status)


def status_of(error: EnisleError) -> int:
    """The HTTP status for a failure."""
    if isinstance(error, StartFailed) and error.exit_code == _FAILED_BEFORE_COMMAND:
        return 500
    return STATUS[error.kind]


def error_response(status: int, message: str) -> web.Response:
    """{"message": ...} with a status; 304 has no body."""
    return empty(304) if status == 304 else json_response({"message": as_unicode(message)}, status=status)


def as_unicode(text: str) -> str:
    """The text without the stray bytes that a message may quote from a request's head, which JSON cannot hold."""
    return text.encode("utf-8", "replace").decode()
