"""Volumes: what Docker has no word for."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker.volumes import volume_json
from enisle.api.reply import empty, json_response
from enisle.api.router import Route
from enisle.api.times import rfc3339
from enisle.errors import Invalid
from enisle.model.volume import Snapshot


class CloneBody(msgspec.Struct, kw_only=True):
    """``name``: the new volume's. ``size``: its limit, "" for the original's. ``snapshot``: of the original."""

    name: str = ""
    size: str = ""
    snapshot: str = ""


class NameBody(msgspec.Struct, kw_only=True):
    """``name``: the new name; of a snapshot, "" for one made of the time."""

    name: str = ""


class SizeBody(msgspec.Struct, kw_only=True):
    """``size``: "2g" and the like."""

    size: str = ""


async def export(call: Call) -> web.StreamResponse:
    """A tar of the volume's files, or of its ``snapshot``'s."""
    async with call.engine.volume_copies.export(call.name, snapshot=call.query.text("snapshot")) as pieces:
        return await call.send_all(pieces, "application/x-tar")


async def import_tar(call: Call) -> web.StreamResponse:
    """A new volume of the tar in the body; with ``replace`` its content takes the place of a volume's."""
    volume = await call.engine.volume_copies.import_tar(
        call.name, call.chunks(), replaces=call.query.flag("replace"), size=call.query.text("size")
    )
    return json_response(volume_json(volume), status=201)


async def clone(call: Call) -> web.StreamResponse:
    body = await call.body(CloneBody)
    _check_given(body.name, "name")
    volume = await call.engine.volume_copies.clone(call.name, body.name, snapshot=body.snapshot, size=body.size)
    return json_response(volume_json(volume), status=201)


async def rename(call: Call) -> web.StreamResponse:
    body = await call.body(NameBody)
    _check_given(body.name, "name")
    return json_response(volume_json(await call.engine.volume_copies.rename(call.name, body.name)))


async def resize(call: Call) -> web.StreamResponse:
    body = await call.body(SizeBody)
    _check_given(body.size, "size")
    return json_response(volume_json(await call.engine.volume_copies.resize(call.name, body.size)))


async def snapshots(call: Call) -> web.StreamResponse:
    volume = await call.engine.volumes.get(call.name)
    return json_response([_snapshot_json(snapshot) for snapshot in volume.snapshots])


async def take_snapshot(call: Call) -> web.StreamResponse:
    body = await call.body_or_default(NameBody)
    return json_response(_snapshot_json(await call.engine.volume_copies.snapshot(call.name, body.name)), status=201)


async def restore(call: Call) -> web.StreamResponse:
    body = await call.body(NameBody)
    _check_given(body.name, "name")
    await call.engine.volume_copies.restore(call.name, body.name)
    return empty()


async def remove_snapshot(call: Call) -> web.StreamResponse:
    """``name`` in the query: the snapshot's."""
    _check_given(call.query.text("name"), "name")
    await call.engine.volume_copies.remove_snapshot(call.name, call.query.text("name"))
    return empty()


def _snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    return {"Name": snapshot.name, "CreatedAt": rfc3339(snapshot.created_at)}


def _check_given(value: str, name: str) -> None:
    if not value:
        raise Invalid(f"bad parameter: missing {name}")


ROUTES = [
    Route("GET", "volumes/*/export", export, watch=True),
    Route("POST", "volumes/*/import", import_tar),
    Route("POST", "volumes/*/clone", clone),
    Route("POST", "volumes/*/rename", rename),
    Route("POST", "volumes/*/resize", resize),
    Route("GET", "volumes/*/snapshots", snapshots),
    Route("POST", "volumes/*/snapshots", take_snapshot),
    Route("POST", "volumes/*/snapshots/restore", restore),
    Route("DELETE", "volumes/*/snapshots", remove_snapshot),
]
