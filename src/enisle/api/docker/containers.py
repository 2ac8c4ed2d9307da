"""Docker's tag Container: making, listing, starting, ending."""

from __future__ import annotations

import os
import time
from typing import Any

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker import limits_body, list_filters, older, request_types
from enisle.api.docker.container_files import ROUTES as FILE_ROUTES
from enisle.api.docker.container_streams import ROUTES as STREAM_ROUTES
from enisle.api.docker.create_body import instance_spec
from enisle.api.docker.inspect_body import inspect_json, summary_json
from enisle.api.query import Filters
from enisle.api.reply import empty, encode, json_response
from enisle.api.router import Route
from enisle.errors import EnisleError, Invalid, NotFound, NotSupported
from enisle.model.instance import ALIVE

_WAIT_CONDITIONS = ("", "not-running", "next-exit", "removed")
_EMPTY_JSON_BYTES = 7  # what dockerd still takes for an empty body
_MAX_TERMINAL = 65535


async def create(call: Call) -> web.StreamResponse:
    body = await call.body(request_types.CreateBody)
    warnings: list[str] = []
    spec = instance_spec(body, cpus=os.cpu_count() or 1, platform=call.query.text("platform"), warnings=warnings)
    name = call.query.text("name").removeprefix("/") or None
    instance = await call.engine.instances.create(spec, name=name, warnings=warnings)
    return json_response({"Id": instance.id, "Warnings": warnings}, status=201)


async def list_all(call: Call) -> web.StreamResponse:
    query = call.query
    limit = query.number("limit") or 0
    filters = query.filters(list_filters.ACCEPTED)
    match = list_filters.matcher(filters, await _named(call, filters))
    everything = query.flag("all") or limit > 0 or bool(filters.get("status"))
    chosen = [
        instance
        for instance in call.engine.instances.all()
        if (everything or instance.state.status in ALIVE) and match(instance)
    ]
    chosen.sort(key=lambda instance: instance.created_at, reverse=True)
    if limit > 0:
        chosen = chosen[:limit]
    now = time.time_ns()
    with_size = query.flag("size")
    summaries = []
    for instance in chosen:
        try:
            sizes = await call.engine.instances.size(instance.id) if with_size else None
        except NotFound:
            continue
        summaries.append(summary_json(instance, now, sizes))
    return json_response(summaries)


async def _named(call: Call, filters: Filters) -> list_filters.Named:
    """What the names in the filters stand for."""
    found = {}
    for name in ("before", "since"):
        values = filters.get(name, [])
        if len(values) > 1:
            raise Invalid(f"more than one {name} filter specified")
        if values:
            found[name] = (await call.engine.instances.get(values[0])).created_at
    images = set()
    for reference in filters.get("ancestor", []):
        try:
            images.add(str((await call.engine.images.get(reference)).id))
        except EnisleError:
            continue
    network_ids = set()
    for reference in filters.get("network", []):
        try:
            network_ids.add(str((await call.engine.networks.get(reference)).id))
        except EnisleError:
            continue
    return list_filters.Named(
        before=found.get("before", 0),
        since=found.get("since", 0),
        images=frozenset(images),
        network_ids=frozenset(network_ids),
    )


async def inspect(call: Call) -> web.StreamResponse:
    engine = call.engine
    instance = await engine.instances.get(call.name)
    sizes = await engine.instances.size(instance.id) if call.query.flag("size") else None
    shown = inspect_json(
        instance,
        directory=str(engine.instances.directory(instance.id)),
        exec_ids=engine.execs.of(instance.id),
        sizes=sizes,
    )
    return json_response(older.container(shown, call.version))


async def start(call: Call) -> web.StreamResponse:
    if call.query.text("checkpoint"):
        raise NotSupported("checkpoints are not offered by this engine: a container can be started anew only")
    if len(await call.request.read()) > _EMPTY_JSON_BYTES:
        raise Invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await call.engine.instances.start(call.name)
    return empty()


async def stop(call: Call) -> web.StreamResponse:
    await call.engine.instances.stop(call.name, timeout_s=call.query.number("t"), signal=call.query.text("signal"))
    return empty()


async def restart(call: Call) -> web.StreamResponse:
    await call.engine.instances.restart(call.name, timeout_s=call.query.number("t"), signal=call.query.text("signal"))
    return empty()


async def kill(call: Call) -> web.StreamResponse:
    await call.engine.instances.kill(call.name, call.query.text("signal"))
    return empty()


async def pause(call: Call) -> web.StreamResponse:
    await call.engine.instances.pause(call.name)
    return empty()


async def unpause(call: Call) -> web.StreamResponse:
    await call.engine.instances.unpause(call.name)
    return empty()


async def rename(call: Call) -> web.StreamResponse:
    name = call.query.text("name").removeprefix("/")
    if not name:
        raise Invalid("Neither old nor new names may be empty")
    await call.engine.instances.rename(call.name, name)
    return empty()


async def remove(call: Call) -> web.StreamResponse:
    query = call.query
    await call.engine.instances.remove(
        call.name, force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link")
    )
    return empty()


async def remove_link(call: Call) -> web.StreamResponse:
    """Only a link is called by two words, "name/alias", but for a checkpoint: "name/checkpoints/checkpoint"."""
    if "/checkpoints/" in call.name:
        instance = await call.engine.instances.get(call.name.partition("/")[0])
        raise NotFound(f"checkpoint {call.name.rpartition('/')[2][:60]} does not exist for container {instance.name}")
    if not call.query.flag("link"):
        raise NotFound("page not found")
    return await remove(call)


async def update(call: Call) -> web.StreamResponse:
    body = await call.body(request_types.UpdateBody)
    instance = await call.engine.instances.get(call.name)
    warnings: list[str] = []
    merged = limits_body.merged(instance.spec.resources, body)
    resources = limits_body.resources(merged, cpus=os.cpu_count() or 1, warnings=warnings)
    policy = limits_body.restart_policy(body.restart_policy) if body.restart_policy.name else None
    if policy is not None and instance.spec.auto_remove and policy.kind != "no":
        raise Invalid("Restart policy cannot be updated because AutoRemove is enabled for the container")
    warnings += await call.engine.instances.update(
        instance.id, resources=resources if resources != instance.spec.resources else None, restart=policy
    )
    return json_response({"Warnings": warnings})


async def wait(call: Call) -> web.StreamResponse:
    condition = call.query.text("condition")
    if condition not in _WAIT_CONDITIONS:
        raise Invalid(f'invalid condition: "{condition[:40]}"')
    waiter = await call.engine.instances.prepare_wait(call.name, condition or "not-running")
    # The head goes out at once: docker run starts the instance only after it has it.
    response = await call.stream("application/json")
    result: dict[str, Any]
    try:
        # Why an instance could not be started is told to whoever started it; Error is for failed waiting and removal.
        result = {"StatusCode": (await waiter).exit_code}
    except EnisleError as error:
        result = {"StatusCode": 125, "Error": {"Message": str(error)}}
    await response.write_eof(encode(result) + b"\n")
    return response


async def resize(call: Call) -> web.StreamResponse:
    rows, columns = terminal_size(call)
    await call.engine.instances.resize(call.name, rows, columns)
    return empty(200)


def terminal_size(call: Call) -> tuple[int, int]:
    """Rows and columns of a resize request. Raises Invalid."""
    sizes = []
    for name in ("h", "w"):
        number = call.query.number(name)
        if number is None:
            raise Invalid('strconv.ParseUint: parsing "": invalid syntax')
        if not 0 <= number <= _MAX_TERMINAL:
            raise Invalid(f'strconv.ParseUint: parsing "{number}": value out of range')
        sizes.append(number)
    return sizes[0], sizes[1]


async def top(call: Call) -> web.StreamResponse:
    titles, processes = await call.engine.instances.top(call.name, call.query.text("ps_args"))
    return json_response({"Titles": titles, "Processes": processes})


async def prune(call: Call) -> web.StreamResponse:
    match = list_filters.prune_matcher(call.query.filters(list_filters.PRUNE_ACCEPTED))
    deleted, reclaimed = await call.engine.instances.prune(match)
    return json_response({"ContainersDeleted": deleted or None, "SpaceReclaimed": reclaimed})


ROUTES = [
    Route("GET", "containers/json", list_all),
    Route("GET", "containers/ps", list_all),
    Route("POST", "containers/create", create),
    Route("POST", "containers/prune", prune),
    Route("GET", "containers/*/json", inspect),
    Route("POST", "containers/*/start", start),
    Route("POST", "containers/*/stop", stop),
    Route("POST", "containers/*/restart", restart),
    Route("POST", "containers/*/kill", kill),
    Route("POST", "containers/*/pause", pause),
    Route("POST", "containers/*/unpause", unpause),
    Route("POST", "containers/*/rename", rename),
    Route("POST", "containers/*/update", update),
    Route("POST", "containers/*/wait", wait, watch=True),
    Route("POST", "containers/*/resize", resize),
    Route("GET", "containers/*/top", top, watch=True),
    Route("DELETE", "containers/*", remove),
    Route("DELETE", "containers/**", remove_link),
    *FILE_ROUTES,
    *STREAM_ROUTES,
]
