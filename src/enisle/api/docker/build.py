"""Docker's tag Image, building: POST /build as the classic builder has it, and /build/prune."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

import msgspec
from aiohttp import web

from enisle.api.call import Call
from enisle.api.decode import decode
from enisle.api.docker import build_cache, buildkit_build, limits_body, registry_auth
from enisle.api.docker.images import parse_platform
from enisle.api.docker.request_types import AuthBody, Limits, Ulimit
from enisle.api.progress import stream_progress
from enisle.api.query import Query
from enisle.api.router import Route
from enisle.build.builder import Builder
from enisle.build.options import BuildOptions
from enisle.build.stage import StepFailed
from enisle.contracts import Progress, RegistryAuth
from enisle.errors import EnisleError, Invalid, NotSupported

_RUNTIMES = {"": "", "default": "", "process": "", "container": "", "vm": "vm"}
EXTRAS_HEADER = "X-Enisle-Build"
"""What Docker's classic builder has no word for, as base64 JSON."""


class _Extras(msgspec.Struct, kw_only=True):
    """``secrets``: base64 by id. ``ssh``: path on the daemon's host by id. ``contexts``, ``keep``: see BuildOptions."""

    secrets: dict[str, str] = {}
    ssh: dict[str, str] = {}
    contexts: dict[str, str] = {}
    keep: bool = True


async def build(call: Call) -> web.StreamResponse:
    if call.query.text("version") == "2":
        return await buildkit_build.build(call)
    builder = _builder(call)
    options = _options(call)
    body = call.chunks()

    async def work(progress: Progress) -> None:
        try:
            await builder.build(options, body, progress)
        except StepFailed as error:
            detail: dict[str, Any] = {"message": str(error)}
            detail |= {"code": error.exit_code} if error.exit_code else {}
            detail |= {"line": error.line} if error.line else {}
            progress({"errorDetail": detail, "error": str(error)})

    return await stream_progress(call, work)


def _builder(call: Call) -> Builder:
    if call.builder is None:
        raise NotSupported("building images is not offered by this engine.")
    return call.builder


def _options(call: Call) -> BuildOptions:
    query = call.query
    if outputs := query.text("outputs"):
        raise Invalid(f"outputs {outputs[:100]} need BuildKit: the result is an image")
    isolation = query.text("isolation")
    if isolation not in _RUNTIMES:
        raise Invalid(f'unsupported isolation: "{isolation[:40]}"')
    limits = _limits(query)
    warnings: list[str] = []
    extras = _extras(call.request.headers.get(EXTRAS_HEADER, ""))
    return BuildOptions(
        dockerfile=query.text("dockerfile"),
        remote=query.text("remote"),
        names=tuple(name for name in query.texts("t") if name),
        target=query.text("target"),
        arguments=query.json("buildargs", dict[str, str | None]) or {},
        labels=query.json("labels", dict[str, str]) or {},
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        squash=query.flag("squash"),
        quiet=query.flag("q"),
        remove=query.flag("rm", default=True),
        force_remove=query.flag("forcerm"),
        platform=parse_platform(query.text("platform")),
        runtime=_RUNTIMES[isolation],
        network_mode=_network(query.text("networkmode")),
        extra_hosts=_extra_hosts(query.texts("extrahosts")),
        shm_size_bytes=_size(query, "shmsize"),
        resources=limits_body.resources(limits, cpus=os.cpu_count() or 1, warnings=warnings),
        ulimits=limits_body.ulimits(limits),
        security_options=tuple(query.json("securityopt", list[str]) or ()),
        cgroup_parent=query.text("cgroupparent"),
        secrets=_secrets(extras),
        ssh=extras.ssh,
        contexts=extras.contexts,
        keep=extras.keep,
        cache_from=tuple(query.json("cachefrom", list[str]) or ()),
        credentials=_credentials(call.request.headers.get("X-Registry-Config", "")),
    )


def _limits(query: Query) -> Limits:
    return Limits(
        memory=query.number("memory") or 0,
        memory_swap=query.number("memswap") or 0,
        cpu_shares=query.number("cpushares") or 0,
        cpu_period=query.number("cpuperiod") or 0,
        cpu_quota=query.number("cpuquota") or 0,
        cpuset_cpus=query.text("cpusetcpus"),
        cpuset_mems=query.text("cpusetmems"),
        ulimits=query.json("ulimits", list[Ulimit]) or [],
    )


def _network(text: str) -> str:
    return "" if text in ("default", "bridge") else text


def _extra_hosts(values: list[str]) -> tuple[str, ...]:
    """ "name:address", several in one parameter as Docker's client sends them, or one each."""
    found: list[str] = []
    for value in values:
        if value.startswith("["):
            found += decode(value.encode(), list[str])
        elif value:
            found += value.split(",")
    return tuple(found)


def _size(query: Query, name: str) -> int:
    size = query.number(name) or 0
    if size < 0:
        raise Invalid("SHM size can not be less than 0")
    return size


def _extras(header: str) -> _Extras:
    if not header:
        return _Extras()
    try:
        return decode(base64.b64decode(header, validate=True), _Extras)
    except (binascii.Error, ValueError, EnisleError):
        raise Invalid(f"the header {EXTRAS_HEADER} cannot be read") from None


def _secrets(extras: _Extras) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(text, validate=True) for name, text in extras.secrets.items()}
    except (binascii.Error, ValueError):
        raise Invalid(f"the header {EXTRAS_HEADER} cannot be read") from None


def _credentials(header: str) -> dict[str, RegistryAuth]:
    """X-Registry-Config: base64 of an object, from registry to credentials. What cannot be read is no credentials."""
    if not header:
        return {}
    try:
        padded = header.replace("+", "-").replace("/", "_") + "=" * (-len(header) % 4)
        decoded = decode(base64.urlsafe_b64decode(padded), dict[str, AuthBody])
    except (binascii.Error, ValueError, EnisleError):
        return {}
    return {registry: registry_auth.from_body(body) for registry, body in decoded.items()}


ROUTES = [
    Route("POST", "build", build, watch=True),
    Route("POST", "build/cancel", buildkit_build.cancel),
    Route("POST", "build/prune", build_cache.prune),
]
