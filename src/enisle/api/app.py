"""The API: from a request to its handler, and from failures to answers."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker import build, buildkit, containers, exec, images, networks, refusals, system, volumes
from enisle.api.docker.versions import DEFAULT, checked_version, common_headers
from enisle.api.native import routes as native
from enisle.api.reply import error_response, status_of
from enisle.api.router import Route, Router
from enisle.errors import Denied, EnisleError, Invalid, NotFound, exhaustion

if TYPE_CHECKING:
    from enisle.build.builder import Builder
    from enisle.buildkit.service import BuildKit
    from enisle.engine.engine import Engine

_log = logging.getLogger(__name__)
_VERSIONED = re.compile(r"/v([0-9][0-9.]*)(/.*)")
_NATIVE_PREFIX = "/enisle/v1/"


class Api:
    """Answers requests for one engine; serve it with :func:`enisle.api.server.serve`."""

    def __init__(self, engine: Engine, builder: Builder | None) -> None:
        self._engine = engine
        self._builder = builder
        self._buildkit: BuildKit | None = None
        self._docker = Router(
            [
                route
                for module in (build, buildkit, containers, exec, images, networks, volumes, system, refusals)
                for route in module.ROUTES
            ]
        )
        self._native = Router(native.ROUTES)
        self._headers = common_headers(engine.system.version())

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await self._answer(request)
        except EnisleError as error:
            response = error_response(status_of(error), str(error))
        except web.HTTPRequestEntityTooLarge:
            response = error_response(413, "http: request body too large")
        except web.RequestPayloadError as error:
            response = error_response(400, f"cannot read the request body: {error}")
        except ConnectionError:
            raise
        except Exception as error:
            spent = exhaustion(error)
            if spent is None:
                _log.exception("%s %s failed", request.method, request.path)
            response = error_response(500, str(spent or "internal error: see the daemon's log"))
        if not response.prepared:
            response.headers.update(self._headers)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        _refuse_other_sites(request)
        call, route = self._find(request)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        if not route.watch:
            return await route.handler(call)
        with call.watched():
            return await route.handler(call)

    def _find(self, request: web.BaseRequest) -> tuple[Call, Route]:
        path = request.path
        version = DEFAULT
        if match := _VERSIONED.fullmatch(path):
            version = checked_version(match[1])
            path = match[2]
        if path.startswith(_NATIVE_PREFIX):
            found = self._native.find(request.method, path.removeprefix(_NATIVE_PREFIX))
        else:
            found = self._docker.find(request.method, path[1:])
        if found is None:
            raise NotFound("page not found")
        route, name = found
        if "\0" in path:
            raise Invalid("the path holds a NUL character")
        return Call(
            request, self._engine, version, name, self._headers, self._builder, self._kit if self._builder else None
        ), route

    def _kit(self) -> BuildKit:
        if self._buildkit is None:
            from enisle.buildkit.service import BuildKit

            assert self._builder is not None
            self._buildkit = BuildKit(self._builder, str(self._engine.system.version()["version"]))
        return self._buildkit

    async def close(self) -> None:
        """End what goes on on connections that are no longer HTTP: builds are called off."""
        if self._buildkit is not None:
            await self._buildkit.close()


def _refuse_other_sites(request: web.BaseRequest) -> None:
    """No web page may drive the API through its visitor's browser (CSRF, DNS rebinding, web sockets)."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host", ""):
        raise Denied("requests from web pages of other origins are refused")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Denied("requests from web pages of other sites are refused")


def make_app(engine: Engine, builder: Builder | None = None) -> Api:
    """The API over an engine. ``builder`` None: images are not built."""
    return Api(engine, builder)
