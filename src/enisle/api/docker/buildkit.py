"""BuildKit's protocol: connections that become HTTP/2, with calls of the client's, or with calls to it (a session)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from enisle.api.call import Call
from enisle.api.router import Route
from enisle.errors import Invalid, NotSupported

if TYPE_CHECKING:
    from enisle.buildkit.service import BuildKit

_PROTOCOL = "h2c"
_SESSION = "X-Docker-Expose-Session-"


def offered(call: Call) -> BuildKit:
    """What serves BuildKit's clients. Raises NotSupported where nothing is built."""
    if call.buildkit is None:
        raise NotSupported("building images is not offered by this engine.")
    return call.buildkit()


def _check_upgrade(call: Call) -> None:
    protocol = call.request.headers.get("Upgrade", "")
    if not protocol:
        raise Invalid("no upgrade proto in request")
    if protocol != _PROTOCOL:
        raise Invalid(f"protocol {protocol[:60]} not supported")


async def grpc(call: Call) -> web.StreamResponse:
    kit = offered(call)
    _check_upgrade(call)
    taken = call.upgrade(_PROTOCOL)
    kit.serve(taken.fd, taken.initial)
    return web.Response()


async def session(call: Call) -> web.StreamResponse:
    kit = offered(call)
    _check_upgrade(call)
    headers = call.request.headers
    identity = headers.get(f"{_SESSION}Uuid", "")
    kit.sessions.check(identity)
    taken = call.upgrade(_PROTOCOL)
    kit.serve_session(
        taken.fd,
        taken.initial,
        identity=identity,
        methods=headers.getall(f"{_SESSION}Grpc-Method", []),
        shared_key=headers.get(f"{_SESSION}Sharedkey", ""),
    )
    return web.Response()


ROUTES = [
    Route("POST", "grpc", grpc),
    Route("POST", "session", session),
]
