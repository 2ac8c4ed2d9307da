"""Enisle's own part of the API, below /enisle/v1: what Docker has no word for."""

from __future__ import annotations

import dataclasses

import msgspec
from aiohttp import web

from enisle.api.call import Call
from enisle.api.native import volumes
from enisle.api.progress import stream_progress
from enisle.api.reply import json_response
from enisle.api.router import Route
from enisle.build.files import image_files
from enisle.contracts import Progress
from enisle.errors import Invalid


class BootstrapBody(msgspec.Struct, kw_only=True):
    """``name``: debian:12, debian:13 or busybox."""

    name: str = ""


async def doctor(call: Call) -> web.StreamResponse:
    """What this host can and cannot do: a list of {name, ok, detail, remedy}."""
    return json_response([dataclasses.asdict(line) for line in await call.engine.system.doctor()])


async def info(call: Call) -> web.StreamResponse:
    """Facts about engine and host, as the engine names them; the walls among them."""
    return json_response(await call.engine.system.info())


async def bootstrap(call: Call) -> web.StreamResponse:
    """Make a base image from the distribution's packages; progress as of a pull."""
    body = await call.body(BootstrapBody)
    if not body.name:
        raise Invalid("bad parameter: missing name")

    async def make(progress: Progress) -> None:
        image = await call.engine.images.bootstrap(body.name, progress=progress)
        progress({"aux": {"ID": image.id}})

    return await stream_progress(call, make)


async def image_tar(call: Call) -> web.StreamResponse:
    """All files of an image as one tar."""
    async with image_files(call.engine.images, call.name) as pieces:
        return await call.send_all(pieces, "application/x-tar")


ROUTES = [
    *volumes.ROUTES,
    Route("GET", "doctor", doctor, watch=True),
    Route("GET", "info", info),
    Route("POST", "images/bootstrap", bootstrap, watch=True),
    Route("GET", "images/**/files", image_tar, watch=True),
]
