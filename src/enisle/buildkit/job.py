"""One build of a BuildKit client: from its request to what is told of the result."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from enisle.build.builder import Builder
from enisle.buildkit import attributes as attribute
from enisle.buildkit import export
from enisle.buildkit.context import ClientContext
from enisle.buildkit.control_messages import (
    Any,
    CacheOptions,
    Definition,
    Exporter,
    Op,
    OpInput,
    OpMetadata,
    Source,
    Status,
)
from enisle.buildkit.gateway_messages import Ref, Result, ReturnRequest
from enisle.buildkit.grpc import CallFailed, Code
from enisle.buildkit.report import Report, words_of
from enisle.buildkit.session_client import SessionClient
from enisle.buildkit.sessions import Session
from enisle.buildkit.status import Progress
from enisle.errors import EnisleError, NotSupported
from enisle.model.ids import ImageId

_SOURCE_TYPE = "github.com/moby/buildkit/errdefs.Source+json"
_SOURCE_LIMIT_BYTES = 64 << 10  # travels in a header


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What shall be done with the result. ``entitlements``: what the user allows."""

    exporters: list[Exporter]
    entitlements: list[str]
    cache: CacheOptions

    def check(self) -> None:
        """Raises NotSupported and Invalid."""
        export.check(self.exporters)
        for entry in self.cache.exports:
            if entry.kind != "inline":  # which needs nothing: an image's history is enough for --cache-from
                raise NotSupported(f"a cache of the kind {entry.kind[:60]} is not written: there is inline.")
        if self.cache.old_export:
            raise NotSupported("a cache in a registry is not written: there is inline.")


class Job:
    """A build that is under way. A context: what it holds is let go at its end, and those who watch it are told."""

    def __init__(self, ref: str, builder: Builder, session: Session | None, demand: Demand) -> None:
        self.ref = ref
        self.session = session
        self.progress = Progress(ref)
        self._builder = builder
        self._demand = demand
        self._stack = AsyncExitStack()
        self.task = asyncio.current_task()
        self._returned: asyncio.Future[ReturnRequest] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Job:
        self._demand.check()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.progress.end()
        await self._stack.aclose()
        if kind is not asyncio.CancelledError:
            await self.progress.heard()

    # --- building ---

    async def build(self, frontend: str, attributes: Mapping[str, str], inputs: Mapping[str, Definition]) -> ImageId:
        """The image, which stays as long as the job. Raises CallFailed in BuildKit's words."""
        attribute.check_frontend(frontend, attributes)
        wants_image = any(exporter.kind in export.IMAGE_EXPORTERS for exporter in self._demand.exporters)
        options = attribute.options(attributes, inputs=inputs, entitlements=self._demand.entitlements, keep=wants_image)
        report = Report(self.progress, self._hold)
        for kind in attribute.unread_caches(attributes):
            report.warn(f"the cache of the kind {kind} is not read: only images are")
        if self.session is None:
            raise CallFailed(Code.INVALID_ARGUMENT, "a build needs the session of a client that has its files")
        try:
            async with SessionClient(self.session, self._builder.secrets) as client:
                places = attribute.locations(attributes)
                options = replace(options, client=client)
                context = ClientContext(places, options, client, self.progress)
                return await self._builder.run(options, context.opened, report)
        except EnisleError as error:
            raise failure_of(error, report) from error
        finally:
            report.abandon()

    def _hold(self, image: ImageId) -> None:
        images = self._builder.engine.images
        images.hold(image)
        self._stack.callback(images.release, image)

    async def export(self, image: ImageId) -> dict[str, str]:
        """Do with the image what was asked for; what the client is told."""
        return await export.Export(self._builder.engine.images, self.session, self.progress).run(
            image, self._demand.exporters
        )

    # --- a client that is its own frontend ---

    def give_back(self, request: ReturnRequest) -> None:
        """The client's last word."""
        if not self._returned.done():
            self._returned.set_result(request)

    async def returned(self) -> ImageId | None:
        """The result that the client wants exported; None for nothing. Raises CallFailed with its failure."""
        request = await self._returned
        error = request.error
        if error is not None and error.code:
            raise CallFailed(error.code, error.message, error.encode())
        return _image(request.result or Result())


def result_of(image: ImageId) -> Result:
    """An image as a result that a client may return, or use as an input of another build."""
    source = Op(source=Source(identifier=f"{attribute.IMAGE_SCHEME}{image}")).encode()
    end = Op(inputs=[OpInput(digest=_digest(source))]).encode()
    metadata = {_digest(one): OpMetadata() for one in (source, end)}
    return Result(ref=Ref(id=image, definition=Definition(operations=[source, end], metadata=metadata)))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _image(result: Result) -> ImageId | None:
    found = result.ref.id if result.ref else result.old_ref
    if not found and result.refs:
        refs = [ref.id for ref in result.refs.refs.values() if ref.id]
        if len(refs) > 1:
            raise NotSupported("one build makes one image, not one for each of several platforms.")
        found = refs[0] if refs else ""
    return ImageId(found) if found else None


def failure_of(error: EnisleError, report: Report) -> CallFailed:
    """A failure in BuildKit's words, with the line of the Dockerfile."""
    message = words_of(error)
    if report.source is None:
        return CallFailed(Code.UNKNOWN, message)
    text, name, line = report.source
    data = text.encode("utf-8", "replace")
    if len(data) > _SOURCE_LIMIT_BYTES:
        return CallFailed(Code.UNKNOWN, message)
    position = {"line": line, "character": 0}
    document = {
        "info": {"filename": name, "data": base64.b64encode(data).decode(), "language": "Dockerfile"},
        "ranges": [{"start": position, "end": position}],
    }
    detail = Any(type_url=_SOURCE_TYPE, value=json.dumps(document).encode())
    return CallFailed(Code.UNKNOWN, message, Status(code=Code.UNKNOWN, message=message, details=[detail]).encode())
