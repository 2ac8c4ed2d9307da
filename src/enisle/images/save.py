"""Saving images: one archive that is both a docker-archive and an OCI layout, as Docker writes since 25."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

from enisle.archive.entry import Entry, FileKind
from enisle.archive.writer import TarWriter
from enisle.errors import Invalid
from enisle.formats.json_document import SIZE_LIMIT_BYTES, canonical
from enisle.formats.oci import OCI_INDEX, Index, Manifest, encode_index, parse_manifest
from enisle.formats.reference import Reference, parse_reference
from enisle.images.archive_plan import docker_manifest
from enisle.images.content import ContentStore, digest_of
from enisle.images.index import ImageRecord
from enisle.images.index import Index as Records
from enisle.images.ingest import Parts
from enisle.images.lookup import Lookup
from enisle.images.manifests import manifest_of
from enisle.images.variants import Member, family_of
from enisle.model.ids import Digest
from enisle.model.image import Descriptor

_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """An image to save, and the names to save with it."""

    record: ImageRecord
    names: tuple[Reference, ...] = ()


def choose_images(lookup: Lookup, texts: Iterable[str]) -> list[Chosen]:
    """What is to be saved: a name with its image, an id without names, a bare repository with all its tags."""
    names: dict[str, list[Reference]] = {}
    for text in texts:
        tags = _bare_repository(lookup, text)
        if tags:
            for tag in tags:
                names.setdefault(lookup.index.names[str(tag)], []).append(tag)
            continue
        record = lookup.find(text)
        known = names.setdefault(record.id, [])
        if lookup.named(text) == record.id:
            name = parse_reference(text).or_latest()
            known += [name] if not name.digest else []
    return [
        Chosen(record=lookup.index.images[image], names=tuple(dict.fromkeys(found))) for image, found in names.items()
    ]


def _bare_repository(lookup: Lookup, text: str) -> list[Reference]:
    try:
        name = parse_reference(text)
    except Invalid:
        return []
    return [] if name.tag or name.digest else lookup.tags_of(name)


@asynccontextmanager
async def saved(parts: Parts, images: Sequence[Chosen]) -> AsyncIterator[AsyncIterator[bytes]]:
    """The archive as a stream; its content cannot be removed while the block lasts."""
    families = [
        family_of(parts.content, parts.index, image.record, name=str(name or ""))
        for image in images
        for name in image.names or (None,)
    ]
    siblings = [member.record for family in families if family for member in family.members if member.record]
    with parts.pinned(blob for record in (*(image.record for image in images), *siblings) for blob in record.blobs):
        yield _stream(parts.content, parts.index, images)


async def _stream(content: ContentStore, records: Records, images: Sequence[Chosen]) -> AsyncIterator[bytes]:
    """Pieces of about a megabyte; reading them blocks as page cache does, for less than a millisecond each."""
    sink = _Sink()
    writer = TarWriter(sink)
    for name in ("blobs/", "blobs/sha256/"):
        writer.add(Entry(name=name.encode(), kind=FileKind.DIRECTORY, mode=0o755))
    documents, blobs = _plan(content, records, images)
    for blob in blobs:
        path = content.path(blob)
        size = path.stat().st_size
        with path.open("rb") as file:
            for _ in writer.adding(Entry(name=_member(blob), size=size), _pieces(file)):
                yield sink.take()
    for name, data in documents.items():
        writer.add(Entry(name=name.encode(), size=len(data)), [data])
    writer.close()
    yield sink.take()


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        yield piece


class _Sink:
    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes | memoryview, /) -> None:
        self._parts.append(bytes(data))

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _member(blob: Digest) -> bytes:
    return b"blobs/" + blob.replace(":", "/").encode()


def _plan(content: ContentStore, records: Records, images: Sequence[Chosen]) -> tuple[dict[str, bytes], list[Digest]]:
    """The documents by name, and the blobs in the store that go with them, each once."""
    documents: dict[str, bytes] = {}
    blobs: dict[Digest, None] = {}
    children: list[Descriptor] = []
    entries = []
    repositories: dict[str, dict[str, str]] = {}
    for image in images:
        data = manifest_of(content, image.record)
        manifest = parse_manifest(data)
        assert isinstance(manifest, Manifest)
        documents[_member(digest_of(data)).decode()] = data
        blobs |= dict.fromkeys([manifest.config.digest, *(layer.digest for layer in manifest.layers)])
        plain = Descriptor(media_type=manifest.media_type, digest=digest_of(data), size=len(data))
        for name in image.names or (None,):
            own = plain
            family = family_of(content, records, image.record, name=str(name or ""))
            if family is not None and family.whole:
                documents[_member(family.descriptor.digest).decode()] = family.data
                blobs |= dict.fromkeys(blob for member in family.members for blob in _blobs(member))
                own = family.descriptor
            children.append(_named(own, name) if name else own)
        entries.append(
            {
                "Config": _member(manifest.config.digest).decode(),
                "RepoTags": [name.familiar for name in image.names] or None,
                "Layers": [_member(layer.digest).decode() for layer in manifest.layers],
            }
        )
        for name in image.names:
            repositories.setdefault(name.familiar_name, {})[name.tag] = image.record.id.partition(":")[2]
    documents["index.json"] = encode_index(Index(media_type=OCI_INDEX, manifests=tuple(children)))
    documents["manifest.json"] = docker_manifest(entries)
    documents["oci-layout"] = canonical({"imageLayoutVersion": "1.0.0"})
    if repositories:
        documents["repositories"] = canonical(repositories)
    wanted = [blob for blob in blobs if _member(blob).decode() not in documents]
    for blob in wanted:
        if content.size(blob) <= SIZE_LIMIT_BYTES:
            content.read(blob)  # which verifies it; large ones are verified by who loads the archive
    return documents, wanted


def _blobs(member: Member) -> list[Digest]:
    """All blobs of one entry of an index, its manifest among them."""
    assert member.manifest is not None
    manifest = member.manifest
    return [member.descriptor.digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]


def _named(plain: Descriptor, name: Reference) -> Descriptor:
    """The descriptor with the name that it has in the archive."""
    return replace(
        plain,
        annotations={"io.containerd.image.name": str(name), "org.opencontainers.image.ref.name": name.tag},
    )
