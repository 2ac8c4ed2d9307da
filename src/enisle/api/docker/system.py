"""Docker's tag System."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker import build_cache, event_body, image_body, info_body, older, registry_auth
from enisle.api.docker.image_filters import without_steps
from enisle.api.docker.inspect_body import summary_json
from enisle.api.docker.request_types import AuthBody
from enisle.api.docker.volumes import volume_json
from enisle.api.reply import encode, json_response
from enisle.api.router import Route
from enisle.api.times import parse_time, rfc3339
from enisle.build.usage import CacheEntry
from enisle.engine.system import DiskUsage
from enisle.errors import Invalid
from enisle.model.event import Event

_DISK_TYPES = frozenset({"container", "image", "volume", "build-cache"})


async def ping(call: Call) -> web.StreamResponse:
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
        "Swarm": "inactive",
        "Builder-Version": "1" if call.buildkit is None else "2",
    }
    return web.Response(body=b"" if call.request.method == "HEAD" else b"OK", headers=headers)


async def version(call: Call) -> web.StreamResponse:
    return json_response(info_body.version_json(call.engine.system.version()))


async def info(call: Call) -> web.StreamResponse:
    facts = await call.engine.system.info()
    shown = info_body.info_json(facts, call.engine.system.version(), system_time=rfc3339(time.time_ns()))
    return json_response(older.info(shown, call.version))


async def auth(call: Call) -> web.StreamResponse:
    await call.engine.images.login(registry_auth.from_body(await call.body(AuthBody)))
    return json_response({"Status": "Login Succeeded", "IdentityToken": ""})


async def events(call: Call) -> web.StreamResponse:
    query = call.query
    since_ns, until_ns = parse_time(query.text("since")), parse_time(query.text("until"))
    if since_ns and until_ns and until_ns < since_ns:
        raise Invalid(f"`since` time ({query.text('since')}) cannot be after `until` time ({query.text('until')})")
    match = event_body.matcher(query.filters(event_body.ACCEPTED))
    source = call.engine.events.subscribe(since_ns=since_ns, until_ns=until_ns, match=match)
    async with aclosing(cast(AsyncGenerator[Event, None], source)):
        response = await call.stream("application/json")
        async for event in source:
            await response.write(encode(event_body.event_json(event)) + b"\n")
        await response.write_eof()
    return response


async def disk_usage(call: Call) -> web.StreamResponse:
    wanted = frozenset(call.query.texts("type")) or _DISK_TYPES
    if not wanted <= _DISK_TYPES:
        raise Invalid(f"unknown object type: {min(wanted - _DISK_TYPES)[:40]}")
    usage = await call.engine.system.disk_usage(wanted)
    kept = await call.builder.usage.entries() if call.builder and wanted & {"image", "build-cache"} else []
    result = _usage_json(usage, kept, wanted, with_virtual=not call.at_least(1, 44))
    if "build-cache" in wanted and not call.at_least(1, 42):
        result["BuilderSize"] = sum(entry.size_bytes for entry in kept if not entry.shared)
    return json_response(result)


def _images_json(usage: DiskUsage, kept: list[CacheEntry], *, with_virtual: bool) -> dict[str, Any]:
    """Images with what they take on the disk: blobs, unpacked layers, disks for VMs. What is a mere step of a build
    is no image here but the build cache's."""
    steps = frozenset(entry.image for entry in kept if entry.image is not None and not entry.shared)
    users = {image.id: count for image, count in usage.images}
    shown = [image for image in without_steps([image for image, _ in usage.images]) if image.id not in steps]
    shared = usage.store.shared_bytes([image.id for image in shown])
    return {
        "LayersSize": usage.store.bytes_without(steps),
        "Images": [
            image_body.summary_json(
                replace(image, size_bytes=usage.store.bytes_of(image.id)),
                containers=users[image.id],
                shared_bytes=shared[image.id],
                with_virtual=with_virtual,
            )
            for image in shown
        ],
    }


def _usage_json(
    usage: DiskUsage, kept: list[CacheEntry], wanted: frozenset[str], *, with_virtual: bool
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if "image" in wanted:
        result |= _images_json(usage, kept, with_virtual=with_virtual)
    if "container" in wanted:
        now = time.time_ns()
        result["Containers"] = [summary_json(instance, now, (own, all_)) for instance, own, all_ in usage.instances]
    if "volume" in wanted:
        result["Volumes"] = [volume_json(volume, (size, users)) for volume, size, users in usage.volumes]
    if "build-cache" in wanted:
        result["BuildCache"] = [build_cache.entry_json(entry) for entry in kept]
    return result


ROUTES = [
    Route("GET", "_ping", ping),
    Route("HEAD", "_ping", ping),
    Route("GET", "version", version),
    Route("GET", "info", info),
    Route("POST", "auth", auth, watch=True),
    Route("GET", "events", events, watch=True),
    Route("GET", "system/df", disk_usage, watch=True),
]
