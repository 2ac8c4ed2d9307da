"""Docker's tag Image."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker import image_filters, older, registry_auth
from enisle.api.docker.image_body import distribution_json, history_json, inspect_json, summary_json, variant_json
from enisle.api.progress import stream_progress
from enisle.api.reply import empty, json_response
from enisle.api.router import Route
from enisle.build.remote import is_url, read
from enisle.contracts import Progress, Removed
from enisle.errors import Invalid, NotSupported
from enisle.formats.json_document import parse_object
from enisle.formats.reference import parse_reference
from enisle.model.image import Platform

_VIRTUAL_UNTIL = (1, 44)
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
_ARCHITECTURES = frozenset("386 amd64 arm arm64 loong64 mips64le ppc64le riscv64 s390x".split())


def _with_virtual(call: Call) -> bool:
    return call.version < _VIRTUAL_UNTIL


async def list_all(call: Call) -> web.StreamResponse:
    query = call.query
    filters = query.filters(image_filters.ACCEPTED)
    if (name := query.text("filter")) and not call.at_least(1, 41):
        filters.setdefault("reference", []).append(name)
    engine = call.engine
    bounds = {}
    for name in ("before", "since"):
        if filters.get(name):
            bounds[name] = (await engine.images.get(filters[name][0])).created
    match = image_filters.matcher(filters, **bounds)
    found = await engine.images.all()
    if not query.flag("all") or filters.get("dangling"):
        found = image_filters.without_steps(found)
    chosen = [image for image in found if match(image)]
    chosen.sort(key=lambda image: image.created, reverse=True)
    shared = {}
    if query.flag("shared-size"):
        shared = engine.images.layer_sizes().shared_bytes([image.id for image in chosen])
    rows = []
    for image in chosen:
        row = summary_json(image, shared_bytes=shared.get(image.id, -1), with_virtual=_with_virtual(call))
        if query.flag("manifests") and call.at_least(1, 47):
            row["Manifests"] = [
                variant_json(variant, users=engine.images.used_by(variant.image))
                for variant in await engine.images.variants(image.id)
            ]
        rows.append(older.image_summary(row, call.version))
    return json_response(rows)


async def inspect(call: Call) -> web.StreamResponse:
    """``platform`` is of API 1.49, and no reason to serve that: clients of 1.47 do not send it, ours does."""
    image = await call.engine.images.get(call.name, platform_document(call.query.text("platform")))
    return json_response(inspect_json(image, with_virtual=_with_virtual(call)))


async def history(call: Call) -> web.StreamResponse:
    platform = platform_document(call.query.text("platform"))
    return json_response(history_json(await call.engine.images.history(call.name, platform)))


async def create(call: Call) -> web.StreamResponse:
    """Pull (``fromImage``) or import (``fromSrc``)."""
    query = call.query
    if name := query.text("fromImage"):
        return await _pull(call, join(name, query.text("tag")))
    if source := query.text("fromSrc"):
        return await _import(call, source)
    raise Invalid("bad parameter: fromImage or fromSrc must be given")


async def _pull(call: Call, reference: str) -> web.StreamResponse:
    platform = parse_platform(call.query.text("platform"))
    auth = registry_auth.from_header(call.request.headers.get("X-Registry-Auth", ""))

    async def pull(progress: Progress) -> None:
        named = parse_reference(reference)
        if named.tag or named.digest:
            wanted = [reference]
        else:  # `docker pull -a`; clients that mean latest say so
            wanted = [f"{reference}:{tag}" for tag in await call.engine.images.tags(reference, auth=auth)]
        for each in wanted:
            await call.engine.images.pull(each, platform=platform, auth=auth, progress=progress)

    return await stream_progress(call, pull)


async def _import(call: Call, source: str) -> web.StreamResponse:
    query = call.query
    repository, tag = query.text("repo"), query.text("tag")

    async def take_in(progress: Progress) -> None:
        if source == "-":
            await import_from(call.chunks(), progress)
            return
        if call.builder is None:
            raise NotSupported("importing from a URL is not offered.", remedy="Download the file and import that.")
        url = source if is_url(source) else f"http://{source}"
        progress({"status": f"Downloading from {url}"})
        async with call.builder.fetched(url) as path:
            await import_from(read(path), progress)

    async def import_from(archive: AsyncIterator[bytes], progress: Progress) -> None:
        image = await call.engine.images.import_tar(
            archive,
            reference=join(repository, tag) if repository else "",
            changes=query.texts("changes"),
            message=query.text("message"),
            platform=parse_platform(query.text("platform")),
        )
        progress({"status": image})

    return await stream_progress(call, take_in)


async def push(call: Call) -> web.StreamResponse:
    auth = registry_auth.from_header(call.request.headers.get("X-Registry-Auth", ""))
    reference = join(call.name, call.query.text("tag"))
    platform = platform_document(call.query.text("platform")) if call.at_least(1, 46) else None

    async def send(progress: Progress) -> None:
        await call.engine.images.push(reference, platform=platform, auth=auth, progress=progress)

    return await stream_progress(call, send)


async def tag(call: Call) -> web.StreamResponse:
    repository = call.query.text("repo")
    if not repository:
        raise Invalid("invalid reference format: repository name must not be empty")
    await call.engine.images.tag(call.name, join(repository, call.query.text("tag")))
    return empty(201)


async def remove(call: Call) -> web.StreamResponse:
    query = call.query
    if not call.name.strip():
        raise Invalid("image name cannot be blank")
    steps = await call.engine.images.remove(
        call.name, force=query.flag("force"), prune_parents=not query.flag("noprune")
    )
    return json_response([_removed_json(step) for step in steps])


def _removed_json(step: Removed) -> dict[str, str]:
    return {"Untagged": step.untagged} if step.untagged else {"Deleted": step.deleted}


async def prune(call: Call) -> web.StreamResponse:
    match, dangling_only = image_filters.prune_matcher(call.query.filters(image_filters.PRUNE_ACCEPTED))
    steps, reclaimed = await call.engine.images.prune(match, dangling_only=dangling_only)
    return json_response(
        {"ImagesDeleted": [_removed_json(step) for step in steps] or None, "SpaceReclaimed": reclaimed}
    )


async def save(call: Call) -> web.StreamResponse:
    names = [call.name] if call.name else [name for name in call.query.texts("names") if name]
    if not names:
        raise Invalid("bad parameter: no image names were given")
    async with await call.engine.images.save(names) as archive:
        return await call.send_all(archive, "application/x-tar")


async def load(call: Call) -> web.StreamResponse:
    quiet = call.query.flag("quiet")

    async def take_in(progress: Progress) -> None:
        for name in await call.engine.images.load(call.chunks(), progress=_ignore if quiet else progress):
            word = "Loaded image ID" if name.startswith("sha256:") else "Loaded image"
            progress({"stream": f"{word}: {name}\n"})

    # dockerd's status is 200 whatever comes, and clients look for the error in the stream.
    return await stream_progress(call, take_in, failure_status=False)


def _ignore(_message: dict[str, Any]) -> None:
    """Progress that nobody wants."""


async def search(_call: Call) -> web.StreamResponse:
    raise NotSupported("searching registries is not offered.", remedy="Search on the registry's web site.")


async def distribution(call: Call) -> web.StreamResponse:
    auth = registry_auth.from_header(call.request.headers.get("X-Registry-Auth", ""))
    descriptor, platforms = await call.engine.images.distribution(call.name, auth=auth)
    return json_response(distribution_json(descriptor, platforms))


def join(name: str, tag_or_digest: str) -> str:
    """A repository and a tag or digest, which clients send apart. A name that has its own tag or digest keeps it."""
    if not tag_or_digest:
        return name
    base = name.partition("@")[0]
    head, colon, own_tag = base.rpartition(":")
    repository = head if colon and "/" not in own_tag else base
    return f"{repository}@{tag_or_digest}" if ":" in tag_or_digest else f"{repository}:{tag_or_digest}"


def parse_platform(text: str) -> Platform | None:
    """ "os/architecture/variant", "os/architecture" or "architecture"; None for "". Raises Invalid."""
    if not text:
        return None
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(part.replace("_", "").replace("-", "").replace(".", "").isalnum() for part in parts):
        raise Invalid(f'"{text[:60]}" is an invalid platform')
    if len(parts) == 1:
        parts = [parts[0], "amd64"] if parts[0] == "linux" else ["linux", parts[0]]
        if parts[1] not in _ALIASES and parts[1] not in _ARCHITECTURES:
            raise Invalid(f'"{text[:60]}": unknown operating system or architecture: invalid argument')
    return Platform(
        os=parts[0], architecture=_ALIASES.get(parts[1], parts[1]), variant=parts[2] if len(parts) == 3 else ""
    )


def platform_document(text: str) -> Platform | None:
    """A platform as JSON; None for "". Raises Invalid."""
    if not text:
        return None
    document = parse_object(text.encode(), "platform")
    found = {key: document.get(key, "") for key in ("os", "architecture", "variant")}
    if not all(isinstance(value, str) for value in found.values()) or not found["os"] or not found["architecture"]:
        raise Invalid("invalid platform: both OS and Architecture must be provided")
    return Platform(os=found["os"], architecture=found["architecture"], variant=found["variant"])


ROUTES = [
    Route("GET", "images/json", list_all),
    Route("POST", "images/create", create, watch=True),
    Route("GET", "images/search", search),
    Route("POST", "images/prune", prune),
    Route("GET", "images/get", save, watch=True),
    Route("POST", "images/load", load, watch=True),
    Route("GET", "images/**/json", inspect),
    Route("GET", "images/**/history", history),
    Route("GET", "images/**/get", save, watch=True),
    Route("POST", "images/**/push", push, watch=True),
    Route("POST", "images/**/tag", tag),
    Route("DELETE", "images/**", remove),
    Route("GET", "distribution/**/json", distribution, watch=True),
]
