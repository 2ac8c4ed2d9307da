"""What BuildKit's Dockerfile frontend is asked for, as options of our builder. Pure."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass

from enisle.build.options import BuildOptions
from enisle.buildkit.control_messages import Definition, Op
from enisle.buildkit.protobuf import DecodeError
from enisle.errors import Invalid, NotSupported
from enisle.formats.json_document import parse_object
from enisle.model.image import Platform
from enisle.model.numbers import decimal
from enisle.model.resources import Resources, Ulimit

WALL = "ENISLE_BUILD_WALL"
"""The build argument that says behind which wall each RUN is: "container" or "vm"."""

IMAGE_SCHEME = "enisle-image://"
"""How the result of one build is named as an input of another."""

_RUNTIMES = {"": "", "container": "", "vm": "vm"}
_SYNTAX = re.compile(r"(docker\.io/)?docker/dockerfile(-upstream)?([:@].*)?")
_PLATFORM = re.compile(r"[a-z0-9_.-]+(/[a-z0-9_.-]+){0,2}")
_NETWORKS = {"": "", "sandbox": "", "default": "", "none": "none", "host": "host"}
_NOT_DONE = {"requestid": "subrequests (--call, --check, --print)", "hostname": "a hostname for RUN"}
_HOST_NETWORK = "network.host"


@dataclass(frozen=True, kw_only=True, slots=True)
class Locations:
    """Where a build's files are. ``context``: a URL; "" is the client's directory ``context_name``. ``dockerfile``: its
    name in the directory ``dockerfile_name``; in the context if that is ""."""

    context: str
    context_name: str
    dockerfile: str
    dockerfile_name: str


def check_frontend(frontend: str, attributes: Mapping[str, str]) -> None:
    """Raises NotSupported for what is no Dockerfile."""
    asked = attributes.get("source" if frontend == "gateway.v0" else "build-arg:BUILDKIT_SYNTAX", "").strip()
    source = asked.partition(" ")[0]
    known = _SYNTAX.fullmatch(source) is not None
    if known if frontend == "gateway.v0" else frontend == "dockerfile.v0" and (known or not source):
        return
    name = f"{frontend} {source}".strip()[:200]
    raise NotSupported(f"the frontend {name} is not offered: only Dockerfiles are built, without frontend images.")


def locations(attributes: Mapping[str, str]) -> Locations:
    """Where to look for the context and the Dockerfile."""
    context = attributes.get("context", "")
    dockerfile_name = attributes.get("dockerfilekey", "" if context else "dockerfile")
    return Locations(
        context=context,
        context_name=attributes.get("contextkey", "context"),
        dockerfile=attributes.get("filename", "") or "Dockerfile",
        dockerfile_name=dockerfile_name,
    )


def options(
    attributes: Mapping[str, str], *, inputs: Mapping[str, Definition], entitlements: list[str], keep: bool
) -> BuildOptions:
    """The options that the attributes stand for. Raises Invalid and NotSupported."""
    _check(attributes, entitlements)
    arguments = _below(attributes, "build-arg:")
    network = attributes.get("force-network-mode", "")
    if network not in _NETWORKS:
        raise Invalid(f"invalid netmode {network[:60]}")
    if network == "host" and _HOST_NETWORK not in entitlements:
        raise Invalid(f"{_HOST_NETWORK} is not allowed")
    wall = arguments.pop(WALL, "")
    if wall not in _RUNTIMES:
        raise Invalid(f"{WALL}={wall[:60]}: it is container or vm")
    no_cache = attributes.get("no-cache")
    return BuildOptions(
        dockerfile=attributes.get("filename", ""),
        target=attributes.get("target", ""),
        arguments=arguments,
        labels=_below(attributes, "label:"),
        no_cache=no_cache == "",
        no_cache_stages=tuple(name for name in (no_cache or "").split(",") if name),
        pull=attributes.get("image-resolve-mode") == "pull",
        platform=_platform(attributes.get("platform", "")),
        runtime=_RUNTIMES[wall],
        network_mode=_NETWORKS[network],
        extra_hosts=_extra_hosts(attributes.get("add-hosts", "")),
        shm_size_bytes=_number(attributes, "shm-size"),
        resources=_resources(attributes),
        ulimits=tuple(map(_ulimit, _fields(attributes.get("ulimit", "")))),
        cgroup_parent=attributes.get("cgroup-parent", ""),
        cache_from=_cache_from(attributes),
        also_own_cache=True,
        contexts=_contexts(attributes, inputs),
        keep=keep,
    )


def _check(attributes: Mapping[str, str], entitlements: list[str]) -> None:
    for name, what in _NOT_DONE.items():
        if attributes.get(name):
            raise NotSupported(f"{what}: not offered by this builder ({name}={attributes[name][:60]}).")
    for name, value in attributes.items():
        if name.startswith("attest:") and value != "disabled" and "disabled=true" not in value:
            raise NotSupported(f"attestations ({name[7:60]}) are not made by this builder.")
    for name in entitlements:
        if name != _HOST_NETWORK:
            raise Invalid(f"{name[:60]} is not allowed: every RUN stays behind its wall")


def _below(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in attributes.items() if name.startswith(prefix)}


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    if "," in text:
        raise NotSupported(f"one build makes an image for one platform, not for {text[:100]}: build them one by one.")
    if not _PLATFORM.fullmatch(text):
        raise Invalid(f'"{text[:60]}" is an invalid platform')
    parts = text.split("/")
    if len(parts) == 1:
        return Platform(architecture=parts[0])
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")


def _fields(text: str) -> list[str]:
    """Values in one, as a line of CSV."""
    try:
        return next(csv.reader([text]), []) if text else []
    except csv.Error as error:
        raise Invalid(f"invalid list of values: {text[:100]!r}") from error


def _extra_hosts(text: str) -> tuple[str, ...]:
    found = []
    for field in _fields(text):
        name, equals, address = field.partition("=")
        if not equals:
            raise Invalid(f"invalid key-value pair {field[:100]}")
        found.append(f"{name}:{address}")
    return tuple(found)


def _ulimit(text: str) -> Ulimit:
    match = re.fullmatch(r"([a-z]+)=(-?\d{1,18})(?::(-?\d{1,18}))?", text)
    if match is None:
        raise Invalid(f"invalid ulimit argument: {text[:100]}")
    return Ulimit(name=match[1], soft=int(match[2]), hard=int(match[3] or match[2]))


def _number(attributes: Mapping[str, str], name: str) -> int:
    text = attributes.get(name, "")
    number = decimal(text) if text else 0
    if number is None or number >= 1 << 62:
        raise Invalid(f"invalid {name} value: {text[:60]}")
    return number


def _resources(attributes: Mapping[str, str]) -> Resources:
    swap = attributes.get("memswap", "")
    return Resources(
        memory_bytes=_number(attributes, "memory"),
        memory_swap_bytes=-1 if swap == "-1" else _number(attributes, "memswap"),
        cpu_shares=_number(attributes, "cpushares"),
        cpu_period_us=_number(attributes, "cpuperiod"),
        cpu_quota_us=_number(attributes, "cpuquota"),
        cpuset_cpus=attributes.get("cpusetcpus", ""),
        cpuset_mems=attributes.get("cpusetmems", ""),
    )


def _cache_from(attributes: Mapping[str, str]) -> tuple[str, ...]:
    found = [name for name in attributes.get("cache-from", "").split(",") if name]
    return tuple(dict.fromkeys([*found, *(name for kind, name in _imports(attributes) if kind == "registry" and name)]))


def unread_caches(attributes: Mapping[str, str]) -> list[str]:
    """The kinds of caches that shall be read and cannot be: a build goes on without, as BuildKit's do."""
    return [kind for kind, name in _imports(attributes) if kind != "registry" or not name]


def _imports(attributes: Mapping[str, str]) -> list[tuple[str, str]]:
    """(kind, image or "")."""
    found = []
    if text := attributes.get("cache-imports", ""):
        document = parse_object(f'{{"entries": {text}}}'.encode("utf-8", "surrogateescape"), "cache-imports")
        for entry in document["entries"] or ():
            entry = entry if isinstance(entry, dict) else {}
            own = entry.get("Attrs")
            name = own.get("ref") if isinstance(own, dict) else None
            found.append((str(entry.get("Type"))[:60], name if isinstance(name, str) else ""))
    return found


def _contexts(attributes: Mapping[str, str], inputs: Mapping[str, Definition]) -> dict[str, str]:
    found = {}
    for name, value in _below(attributes, "context:").items():
        if value.startswith("input:"):
            value = f"docker-image://{image_of(inputs.get(value.removeprefix('input:')))}"
        found[name.partition("::")[0]] = value
    return found


def image_of(definition: Definition | None) -> str:
    """The id of the image that an input is: a result that we have given. Raises NotSupported for any other."""
    for data in definition.operations if definition else ():
        try:
            op = Op.decode(data)
        except DecodeError as error:
            raise Invalid(f"an input cannot be read: {error}") from error
        if op.source is not None and op.source.identifier.startswith(IMAGE_SCHEME):
            return op.source.identifier.removeprefix(IMAGE_SCHEME)
    raise NotSupported("an input in BuildKit's own language (LLB) is not built here: only Dockerfiles are.")
