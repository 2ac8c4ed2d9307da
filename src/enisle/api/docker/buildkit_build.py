"""POST /build with version=2: BuildKit's builds as docker clients from 18.09 to 22 ask for them, without buildx."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from typing import TYPE_CHECKING, Any

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker.buildkit import offered
from enisle.api.docker.request_types import Ulimit
from enisle.api.progress import stream_progress
from enisle.api.query import Query
from enisle.api.reply import empty
from enisle.contracts import Progress
from enisle.errors import Invalid, NotSupported

if TYPE_CHECKING:
    from enisle.buildkit.control_messages import Exporter, SolveRequest
    from enisle.buildkit.service import BuildKit

_CLIENT = "client-session"
_UPLOAD = "upload-request"
_TRACE = "moby.buildkit.trace"
_IMAGE = "moby.image.id"
_NETWORKS = {"": "", "default": "", "bridge": "", "host": "host", "none": "none"}


async def build(call: Call) -> web.StreamResponse:
    from enisle.buildkit.grpc import CallFailed

    kit = offered(call)
    request = _request(call.query)

    async def work(progress: Progress) -> None:
        try:
            await _carry_out(kit, request, progress)
        except CallFailed as failure:
            progress({"errorDetail": {"message": failure.message}, "error": failure.message})

    return await stream_progress(call, work)


async def _carry_out(kit: BuildKit, request: SolveRequest, progress: Progress) -> None:
    async with kit.jobs.job(request) as job:

        async def tell() -> None:
            async for response in job.progress.responses():
                progress({"id": _TRACE, "aux": base64.b64encode(response.encode()).decode()})

        telling = asyncio.create_task(tell())
        try:
            image = await job.build(request.frontend, request.attributes, request.inputs)
            await job.export(image)
            progress({"id": _IMAGE, "aux": {"ID": image}})
        finally:
            job.progress.end()
            await asyncio.wait([telling])


async def cancel(call: Call) -> web.StreamResponse:
    """A build of the classic kind is cancelled by closing its connection; one of BuildKit's has a name."""
    if call.buildkit is not None:
        call.buildkit().jobs.cancel(call.query.text("id"))
    return empty(200)


def _request(query: Query) -> SolveRequest:
    from enisle.buildkit.control_messages import SolveRequest

    network = query.text("networkmode")
    if network not in _NETWORKS:
        raise Invalid(f'network mode "{network[:60]}" not supported by buildkit')
    return SolveRequest(
        ref=query.text("buildid") or secrets.token_hex(12),
        session=query.text("session"),
        frontend="dockerfile.v0",
        attributes=_attributes(query) | ({"force-network-mode": network} if _NETWORKS[network] else {}),
        exporters=_exporters(query),
        entitlements=["network.host"] if network == "host" else [],
    )


def _attributes(query: Query) -> dict[str, str]:
    remote = query.text("remote")
    if remote == _UPLOAD or query.text("buildid").startswith(f"{_UPLOAD}:"):
        raise NotSupported("a context from standard input is taken by buildx, or with DOCKER_BUILDKIT=0.")
    given = {
        "filename": query.text("dockerfile"),
        "target": query.text("target"),
        "platform": query.text("platform"),
        "context": "" if remote == _CLIENT else remote,
        "image-resolve-mode": "pull" if query.flag("pull") else "",
        "shm-size": query.text("shmsize"),
        "cgroup-parent": query.text("cgroupparent"),
        "cache-from": ",".join(query.json("cachefrom", list[str]) or []),
        "add-hosts": ",".join(host.replace(":", "=", 1) for host in query.texts("extrahosts") if host),
        "ulimit": ",".join(f"{u.name}={u.soft}:{u.hard}" for u in query.json("ulimits", list[Ulimit]) or []),
    }
    found = {name: value for name, value in given.items() if value and value != "0"}
    arguments = query.json("buildargs", dict[str, str | None]) or {}
    found |= {f"build-arg:{name}": value for name, value in arguments.items() if value is not None}
    found |= {f"label:{name}": value for name, value in (query.json("labels", dict[str, str]) or {}).items()}
    return found | ({"no-cache": ""} if query.flag("nocache") else {})


def _exporters(query: Query) -> list[Exporter]:
    from enisle.buildkit.control_messages import Exporter

    names = {"name": ",".join(name for name in query.texts("t") if name)}
    outputs = query.json("outputs", list[dict[str, Any]]) or []
    if len(outputs) > 1:
        raise Invalid("multiple outputs not supported")
    if not outputs:
        return [Exporter(kind="moby", attributes=names)]
    kind, attributes = outputs[0].get("Type", ""), outputs[0].get("Attrs") or {}
    if not isinstance(kind, str) or not isinstance(attributes, dict):
        raise Invalid(f"invalid outputs: {json.dumps(outputs)[:100]}")
    if kind == "cacheonly":
        return []
    own = {str(name): str(value) for name, value in attributes.items()}
    return [Exporter(kind=kind, attributes=names | own if kind in ("moby", "image") else own)]
