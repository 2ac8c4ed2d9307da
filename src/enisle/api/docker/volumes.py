"""Docker's tag Volume."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker.list_filters import until
from enisle.api.docker.request_types import VolumeCreateBody
from enisle.api.query import flag_filter, labels_match
from enisle.api.reply import empty, json_response
from enisle.api.router import Route
from enisle.api.times import rfc3339
from enisle.errors import Unavailable
from enisle.model.volume import Volume

_LIST_FILTERS = frozenset({"dangling", "driver", "label", "name"})
_PRUNE_FILTERS = frozenset({"all", "label", "label!", "until"})

_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


def volume_json(volume: Volume, usage: tuple[int, int] | None = None) -> dict[str, Any]:
    """``usage``: bytes, number of instances that mount it."""
    result: dict[str, Any] = {
        "CreatedAt": rfc3339(volume.created_at),
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }
    if usage is not None:
        result["UsageData"] = {"Size": usage[0], "RefCount": usage[1]}
    return result


async def list_all(call: Call) -> web.StreamResponse:
    filters = call.query.filters(_LIST_FILTERS)
    dangling = flag_filter(filters, "dangling")
    names, drivers = filters.get("name", []), filters.get("driver", [])
    volumes = [
        volume_json(volume)
        for volume in call.engine.volumes.all()
        if labels_match(filters.get("label", []), volume.labels)
        and (not names or any(name in volume.name for name in names))
        and (not drivers or volume.driver in drivers)
        and (dangling is None or dangling is not bool(call.engine.volumes.in_use_by(volume.name)))
    ]
    return json_response({"Volumes": volumes, "Warnings": None})


async def create(call: Call) -> web.StreamResponse:
    body = await call.body(VolumeCreateBody)
    if body.cluster_volume_spec is not None:
        raise Unavailable(_NO_SWARM)
    volume = await call.engine.volumes.create(
        body.name,
        driver=body.driver or "local",
        options={key: value or "" for key, value in body.driver_opts.items()},
        labels={key: value or "" for key, value in body.labels.items()},
    )
    return json_response(volume_json(volume), status=201)


async def inspect(call: Call) -> web.StreamResponse:
    return json_response(volume_json(await call.engine.volumes.get(call.name)))


async def update(call: Call) -> web.StreamResponse:
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def remove(call: Call) -> web.StreamResponse:
    await call.engine.volumes.remove(call.name, force=call.query.flag("force"))
    return empty()


async def prune(call: Call) -> web.StreamResponse:
    filters = call.query.filters(_PRUNE_FILTERS)
    # Since API 1.42 named volumes are kept unless they are asked for.
    everything = flag_filter(filters, "all") or not call.at_least(1, 42)
    until_ns = until(filters)
    wanted, unwanted = filters.get("label", []), filters.get("label!", [])

    def match(volume: Volume) -> bool:
        return (
            (everything or volume.anonymous)
            and (not until_ns or volume.created_at < until_ns)
            and labels_match(wanted, volume.labels)
            and not (unwanted and labels_match(unwanted, volume.labels))
        )

    deleted, reclaimed = await call.engine.volumes.prune(match)
    return json_response({"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed})


ROUTES = [
    Route("GET", "volumes", list_all),
    Route("POST", "volumes/create", create),
    Route("POST", "volumes/prune", prune),
    Route("GET", "volumes/*", inspect),
    Route("PUT", "volumes/*", update),
    Route("DELETE", "volumes/*", remove),
]
