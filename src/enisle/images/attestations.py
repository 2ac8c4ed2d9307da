"""BuildKit's attestations: manifests of documents that an index lists beside the image they speak of.

They travel with the image, so that an index whose other entries are here can be sent on whole; nothing reads them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from pathlib import Path

from enisle.errors import EnisleError, Invalid
from enisle.formats.oci import Index, Manifest, parse_manifest
from enisle.images.content import ContentStore, storage_errors
from enisle.images.registry.client import Repository
from enisle.model.ids import Digest
from enisle.model.image import Descriptor

BLOB_LIMIT_BYTES = 64 << 20  # lists of all files of an image can be large
_BLOBS_LIMIT = 100
_TYPE = ("vnd.docker.reference.type", "attestation-manifest")
_ABOUT = "vnd.docker.reference.digest"


def is_attestation(entry: Descriptor) -> bool:
    """Whether an index's entry is one, rather than an image."""
    return entry.annotations.get(_TYPE[0]) == _TYPE[1]


def about(entries: Iterable[Descriptor], manifest: Digest) -> list[Descriptor]:
    """Those of an index's entries that speak of one of its images."""
    return [entry for entry in entries if is_attestation(entry) and entry.annotations.get(_ABOUT) == manifest]


def contents(manifest: Manifest) -> tuple[Descriptor, ...]:
    """The blobs of one. Invalid for one that is larger than any should be."""
    blobs = (manifest.config, *manifest.layers)
    if len(blobs) > _BLOBS_LIMIT or any(blob.size > BLOB_LIMIT_BYTES for blob in blobs):
        raise Invalid("an attestation is over the limits")
    return blobs


async def fetch_attestations(
    content: ContentStore, repository: Repository, index: bytes, manifest: Digest
) -> tuple[Digest, ...]:
    """Store what an index says of an image; the digests. () when that cannot be had: the image is whole without."""
    parsed = parse_manifest(index)
    found: list[Digest] = []
    try:
        for entry in about(parsed.manifests, manifest) if isinstance(parsed, Index) else ():
            document = await repository.manifest(entry.digest, size=entry.size)
            attestation = parse_manifest(document.data, document.media_type)
            if not isinstance(attestation, Manifest):
                return ()
            for blob in contents(attestation):
                await _fetch(content, repository, blob)
                found.append(blob.digest)
            found.append(content.put(document.data))
    except EnisleError:
        return ()
    return tuple(dict.fromkeys(found))


async def _fetch(content: ContentStore, repository: Repository, blob: Descriptor) -> None:
    if content.has(blob.digest, blob.size):
        return
    path = content.partial(blob.digest)
    with storage_errors():
        await repository.download(blob, path, lambda _: None)
        if await asyncio.to_thread(_digest, path) != blob.digest:
            path.unlink()
            raise Invalid(f"attestation verification failed for digest {blob.digest}")
        content.adopt(path, blob.digest)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
