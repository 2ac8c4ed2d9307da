"""The distribution specification's requests: manifests, blobs, uploads."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from enisle.errors import EnisleError, Invalid, NotFound, Unauthenticated, Unavailable
from enisle.formats.json_document import SIZE_LIMIT_BYTES, parse_object
from enisle.formats.oci import ACCEPT
from enisle.formats.reference import Reference, check_tag
from enisle.images.content import digest_of
from enisle.images.registry.transport import TRIES, Transport
from enisle.model.ids import Digest, is_digest
from enisle.model.image import Descriptor

_CHUNK = 1 << 18
_UPLOAD_CHUNK_BYTES = 16 << 20
_ERROR_LIMIT_BYTES = 64 << 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A manifest or index as a registry sent it; its digest is computed here."""

    data: bytes
    media_type: str
    digest: Digest


class Repository:
    """One repository of one registry."""

    def __init__(self, transport: Transport, reference: Reference) -> None:
        self._transport = transport
        self._reference = reference
        self._base = transport.base / "v2" / reference.path
        self._pull = (f"repository:{reference.path}:pull",)
        self._push = (f"repository:{reference.path}:pull,push",)

    def held(self) -> AbstractAsyncContextManager[object]:
        """Keep the connections open for the block, whoever else closes them meanwhile."""
        return self._transport

    async def manifest(self, name: str, *, size: int | None = None) -> Document:
        """The document under a tag or digest. One fetched by digest is verified; ``size`` is checked if given."""
        async with self._transport.request(
            "GET", self._base / "manifests" / name, scopes=self._pull, headers={"Accept": ACCEPT}
        ) as response:
            if response.status != 200:
                raise await self._failure(response, f"manifest for {self._shown(name)}")
            data = await _read_bounded(response, SIZE_LIMIT_BYTES, "manifest")
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        found = digest_of(data)
        if (is_digest(name) and found != name) or (size is not None and len(data) != size):
            raise Invalid(f"manifest verification failed for digest {name}: what was sent is {found}")
        return Document(data=data, media_type=media_type, digest=found)

    async def tags(self) -> list[str]:
        """All tags of the repository, page by page."""
        url: URL | None = self._base / "tags" / "list"
        found: list[str] = []
        while url is not None:
            async with self._transport.request("GET", url, scopes=self._pull) as response:
                if response.status != 200:
                    raise await self._failure(response, f"repository {self._reference.familiar_name}")
                document = parse_object(await _read_bounded(response, SIZE_LIMIT_BYTES, "tags"), "list of tags")
                following = response.links.get("next")
                url = self._transport.resolve(str(following["url"]), response.url) if following else None
            tags = document.get("tags") or []
            new = [check_tag(tag) for tag in tags if isinstance(tag, str) and tag not in found]
            if not new:
                break
            found += new
        return found

    def _shown(self, name: str) -> str:
        return self._reference.familiar_name + ("@" if is_digest(name) else ":") + name

    async def small_blob(self, blob: Descriptor) -> bytes:
        """A blob small enough for memory (a config), verified."""
        if blob.size > SIZE_LIMIT_BYTES:
            raise Invalid(f"image config {blob.digest}: {blob.size} bytes, over the limit of {SIZE_LIMIT_BYTES}")
        async with self._transport.request("GET", self._base / "blobs" / blob.digest, scopes=self._pull) as response:
            if response.status != 200:
                raise await self._failure(response, f"image config {blob.digest}")
            data = await _read_bounded(response, blob.size, "image config")
        if digest_of(data) != blob.digest or len(data) != blob.size:
            raise Invalid(f"image config verification failed for digest {blob.digest}")
        return data

    async def download(self, blob: Descriptor, path: Path, on_size: Callable[[int], None]) -> None:
        """Bring the file at ``path`` to the blob's size, going on where it ends. Not verified.

        A connection that breaks is tried again as long as each try brings something. Invalid for too many bytes.
        """
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            have = os.lseek(fd, 0, os.SEEK_END)
            if have > blob.size:
                os.ftruncate(fd, 0)
                have = os.lseek(fd, 0, os.SEEK_SET)
            barren = 0
            while have < blob.size:
                before = have
                try:
                    have = await self._continue(blob, fd, have, on_size)
                    failure: Exception | None = None
                except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                    failure = error
                    have = os.lseek(fd, 0, os.SEEK_END)
                if have < blob.size:
                    barren = barren + 1 if have == before else 0
                    if barren >= TRIES:
                        cause = failure or "the connection ends early"
                        raise Unavailable(
                            f"layer {blob.digest}: {have} of {blob.size} bytes came: {cause}"
                        ) from failure
                    await self._transport.pause(barren or 1)
        finally:
            os.close(fd)

    async def _continue(self, blob: Descriptor, fd: int, have: int, on_size: Callable[[int], None]) -> int:
        """One request for what is missing; how much is there afterwards."""
        headers = {"Range": f"bytes={have}-"} if have else {}
        url = self._base / "blobs" / blob.digest
        async with self._transport.request("GET", url, scopes=self._pull, headers=headers) as response:
            skip = 0
            if response.status == 200:
                skip = have  # the registry knows no ranges: what we have already comes again
            elif response.status != 206 or not _begins_at(response, have):
                raise await self._failure(response, f"layer {blob.digest}")
            async for piece in response.content.iter_chunked(_CHUNK):
                data = memoryview(piece)
                if skip:
                    dropped = min(skip, len(data))
                    skip -= dropped
                    data = data[dropped:]
                if have + len(data) > blob.size:
                    raise Invalid(f"layer {blob.digest}: the registry sends more than the {blob.size} bytes announced")
                while data:
                    written = os.write(fd, data)
                    data = data[written:]
                    have += written
                on_size(have)
        return have

    # --- push ---

    async def has_blob(self, blob: Digest) -> bool:
        """Whether the repository has a blob."""
        async with self._transport.request("HEAD", self._base / "blobs" / blob, scopes=self._push) as response:
            if response.status in (401, 403):
                raise await self._failure(response, "push")
            return response.status == 200

    async def mount(self, blob: Digest, source: str) -> URL | None:
        """Take a blob over from another repository of the registry; None when done, else where to upload it."""
        scopes = (*self._push, f"repository:{source}:pull")
        return await self._open_upload({"mount": blob, "from": source}, scopes)

    async def open_upload(self) -> URL:
        """Where to send a blob."""
        url = await self._open_upload({}, self._push)
        if url is None:
            raise Unavailable(f"registry {self._transport.host}: it opened no upload")
        return url

    async def _open_upload(self, query: dict[str, str], scopes: tuple[str, ...]) -> URL | None:
        url = (self._base / "blobs" / "uploads" / "").with_query(query)
        async with self._transport.request("POST", url, scopes=scopes) as response:
            if response.status == 201:
                return None
            if response.status != 202:
                raise await self._failure(response, "push")
            return self._transport.resolve(response.headers.get("Location", ""), response.url)

    async def upload(self, url: URL, path: Path, blob: Digest, on_sent: Callable[[int], None]) -> None:
        """Send a blob in one request, or in chunks to a registry that refuses that."""
        size = path.stat().st_size
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        target = url.update_query({"digest": blob})
        async with self._transport.request(
            "PUT", target, scopes=self._push, headers=headers, body=lambda: _pieces(path, 0, size, on_sent), tries=1
        ) as response:
            if response.status in (201, 204):
                return
            if response.status not in (400, 404, 405, 411, 413, 416, 501):
                raise await self._failure(response, f"push of {blob}")
        await self._upload_chunks(path, size, blob, on_sent)

    async def _upload_chunks(self, path: Path, size: int, blob: Digest, on_sent: Callable[[int], None]) -> None:
        url = await self.open_upload()
        for begin in range(0, size, _UPLOAD_CHUNK_BYTES):
            end = min(begin + _UPLOAD_CHUNK_BYTES, size)
            headers = {
                "Content-Length": str(end - begin),
                "Content-Range": f"{begin}-{end - 1}",
                "Content-Type": "application/octet-stream",
            }
            body = _piece_factory(path, begin, end, on_sent)
            async with self._transport.request(
                "PATCH", url, scopes=self._push, headers=headers, body=body, tries=1
            ) as response:
                if response.status not in (202, 204):
                    raise await self._failure(response, f"push of {blob}")
                url = self._transport.resolve(response.headers.get("Location", ""), response.url)
        async with self._transport.request(
            "PUT", url.update_query({"digest": blob}), scopes=self._push, headers={"Content-Length": "0"}
        ) as response:
            if response.status not in (201, 204):
                raise await self._failure(response, f"push of {blob}")

    async def put_manifest(self, name: str, data: bytes, media_type: str) -> None:
        """Store a manifest under a tag or digest."""
        async with self._transport.request(
            "PUT",
            self._base / "manifests" / name,
            scopes=self._push,
            headers={"Content-Type": media_type},
            body=lambda: data,
        ) as response:
            if response.status not in (201, 202):
                raise await self._failure(response, f"push of manifest {name}")

    # --- failures ---

    async def _failure(self, response: aiohttp.ClientResponse, what: str) -> EnisleError:
        """The error that an answer stands for, in Docker's wording where clients know it."""
        said = await _said(response)
        name = self._reference.familiar_name
        if response.status in (401, 403) and response.method in ("GET", "HEAD") and "push" not in what:
            return Unauthenticated(
                f"pull access denied for {name}, repository does not exist or may require 'docker login': {said}"
            )
        if response.status in (401, 403):
            return Unauthenticated(f"denied: requested access to {name} is denied: {said}")
        if response.status == 404:
            return NotFound(f"{what} not found: {said}")
        if response.status == 429:
            return Unavailable(f"{what}: the registry answers toomanyrequests: {said}.", remedy="Log in, or wait.")
        if response.status >= 500:
            return Unavailable(f"{what}: registry {self._transport.host} answers with status {response.status}: {said}")
        return Invalid(f"{what}: registry {self._transport.host} refuses (status {response.status}): {said}")


def _begins_at(response: aiohttp.ClientResponse, offset: int) -> bool:
    header = response.headers.get("Content-Range", "")
    return header.startswith(f"bytes {offset}-")


async def _read_bounded(response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    parts = []
    size = 0
    try:
        async for piece in response.content.iter_chunked(_CHUNK):
            size += len(piece)
            if size > limit:
                raise Invalid(f"{what}: the registry sends more than {limit} bytes")
            parts.append(piece)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"{what}: the registry hung up: {error or type(error).__name__}") from error
    return b"".join(parts)


async def _said(response: aiohttp.ClientResponse) -> str:
    """What the registry gives as a reason: its error's code and message, else the status line; made printable."""
    text = ""
    try:
        body = await response.content.read(_ERROR_LIMIT_BYTES)
        document: Any = json.loads(body)
        first = document["errors"][0]
        text = f"{str(first.get('code', '')).lower().replace('_', ' ')}: {first.get('message', '')}"
    except (
        aiohttp.ClientError,
        TimeoutError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        pass
    text = text or f"{response.status} {response.reason or ''}".strip()
    return "".join(c if c.isprintable() else " " for c in text[:500])


async def _pieces(path: Path, begin: int, end: int, on_sent: Callable[[int], None]) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(begin)
        while begin < end:
            piece = file.read(min(_CHUNK, end - begin))
            if not piece:
                return
            yield piece
            begin += len(piece)
            on_sent(begin)


def _piece_factory(
    path: Path, begin: int, end: int, on_sent: Callable[[int], None]
) -> Callable[[], AsyncIterator[bytes]]:
    return lambda: _pieces(path, begin, end, on_sent)


async def with_tries(work: Callable[[], Awaitable[None]], transport: Transport) -> None:
    """Do an upload, from its beginning again after passing failures."""
    for attempt in range(1, TRIES + 1):
        try:
            await work()
            return
        except Unavailable:
            if attempt == TRIES:
                raise
            await transport.pause(attempt)
