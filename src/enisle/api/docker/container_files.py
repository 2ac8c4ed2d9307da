"""Docker's tag Container: files in and out (cp, export, diff), and commit."""

from __future__ import annotations

import base64

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker import request_types
from enisle.api.docker.create_body import image_config
from enisle.api.docker.images import join
from enisle.api.reply import empty, encode, json_response
from enisle.api.router import Route
from enisle.contracts import Files
from enisle.errors import Invalid, NotFound

_STAT_HEADER = "X-Docker-Container-Path-Stat"


def _path(call: Call) -> str:
    path = call.query.text("path")
    if not path:
        raise Invalid("bad parameter: missing path")
    if "\0" in path:
        raise Invalid("bad parameter: the path holds a NUL character")
    return path if path.startswith("/") else f"/{path}"


async def _stat_header(call: Call, files: Files, path: str) -> dict[str, str]:
    try:
        found = await files.stat(path)
    except NotFound as error:
        raise _no_such_file(call, path) from error
    return {_STAT_HEADER: base64.b64encode(encode(found)).decode()}


def _no_such_file(call: Call, path: str) -> NotFound:
    """In words that clients know; each wall has its own."""
    return NotFound(f"Could not find the file {path} in container {call.name}")


async def stat(call: Call) -> web.StreamResponse:
    path = _path(call)
    async with call.engine.instances.files(call.name) as files:
        header = await _stat_header(call, files, path)
    return web.Response(headers=header)


async def get(call: Call) -> web.StreamResponse:
    path = _path(call)
    async with call.engine.instances.files(call.name) as files:
        header = await _stat_header(call, files, path)
        call.engine.instances.tell(call.name, "archive-path")  # the client may be gone as soon as it has all
        return await call.send_all(await files.get(path), "application/x-tar", header)


async def put(call: Call) -> web.StreamResponse:
    path = _path(call)
    query = call.query
    async with call.engine.instances.files(call.name) as files:
        try:
            await files.put(
                path,
                call.chunks(),
                no_overwrite_dir_non_dir=query.flag("noOverwriteDirNonDir"),
                copy_uid_gid=query.flag("copyUIDGID"),
            )
        except NotFound as error:
            raise _no_such_file(call, path) from error
    call.engine.instances.tell(call.name, "extract-to-dir")
    return empty(200)


async def export(call: Call) -> web.StreamResponse:
    async with call.engine.instances.files(call.name) as files:
        call.engine.instances.tell(call.name, "export")
        return await call.send_all(await files.export(), "application/octet-stream")


async def changes(call: Call) -> web.StreamResponse:
    async with call.engine.instances.files(call.name) as files:
        found = await files.changes()
    return json_response([{"Path": path, "Kind": kind} for path, kind in found])


async def commit(call: Call) -> web.StreamResponse:
    query = call.query
    body = await call.body_or_default(request_types.Config)
    name = query.text("container")
    if not name:
        raise Invalid("bad parameter: missing container")
    repository, tag = query.text("repo"), query.text("tag")
    image = await call.engine.instances.commit(
        name,
        reference=join(repository, tag) if repository else "",
        config=None if body == request_types.Config() else image_config(body),
        changes=query.texts("changes"),
        author=query.text("author"),
        message=query.text("comment"),
        pause=query.flag("pause", default=True),
    )
    return json_response({"Id": image}, status=201)


ROUTES = [
    Route("HEAD", "containers/*/archive", stat, watch=True),
    Route("GET", "containers/*/archive", get, watch=True),
    Route("PUT", "containers/*/archive", put),
    Route("GET", "containers/*/export", export, watch=True),
    Route("GET", "containers/*/changes", changes, watch=True),
    Route("POST", "commit", commit),
]
