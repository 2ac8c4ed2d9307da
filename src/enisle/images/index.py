"""The record of images and names: one small file, replaced as a whole, so that a crash leaves the old or the new.

It carries a checksum, and has a copy beside it for the case that the disk damages it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from enisle.errors import Internal
from enisle.images.content import storage_errors
from enisle.linux.syncfs import syncfs
from enisle.model.ids import Digest, ImageId

GENERATION = 1
_CHECKSUM = b'{"checksum":"'

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRecord:
    """One layer of an image. ``size`` of the blob, ``unpacked`` of the files, bytes."""

    chain: Digest
    diff_id: Digest
    blob: Digest
    media_type: str
    size: int
    unpacked: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecord:
    """One image; its id is the digest of its config, which is a blob. ``layers`` are bottom first.

    ``documents``: the manifest and, where it was found through one, the index. ``manifest`` is "" for an image made
    here. ``attached``: blobs that come along and are no part of it. ``parent``: the image it was committed from.
    """

    id: ImageId
    manifest: str = ""
    documents: tuple[Digest, ...] = ()
    attached: tuple[Digest, ...] = ()
    layers: tuple[LayerRecord, ...] = ()
    parent: str = ""
    tagged_at: int = 0

    @property
    def blobs(self) -> set[Digest]:
        """All the content it needs."""
        return {Digest(self.id), *self.documents, *self.attached, *(layer.blob for layer in self.layers)}


@dataclass(kw_only=True, slots=True)
class _Document:
    generation: int = GENERATION
    images: dict[str, ImageRecord] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # normalised reference -> image id
    tops: dict[str, Digest] = field(default_factory=dict)  # reference -> digest of the manifest or index it came as


class Index:
    """All records in memory, and on the disk before a change counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._document = _read(path)
        self._unsaved = False

    @property
    def images(self) -> dict[str, ImageRecord]:
        """By id. Not to be changed by callers."""
        return self._document.images

    @property
    def names(self) -> dict[str, str]:
        """Normalised reference -> image id. Not to be changed by callers."""
        return self._document.names

    @property
    def tops(self) -> dict[str, Digest]:
        """Normalised reference -> digest of the manifest or index that it stands for, where that is known."""
        return self._document.tops

    def names_of(self, image: str) -> list[str]:
        """All names of an image, sorted."""
        return sorted(name for name, target in self.names.items() if target == image)

    async def change(
        self,
        *,
        add: Iterable[ImageRecord] = (),
        name: Mapping[str, str] | None = None,
        tops: Mapping[str, Digest] | None = None,
        remove: Iterable[str] = (),
        unname: Iterable[str] = (),
        keep: bool = True,
    ) -> None:
        """Add images, give names, remove images (with their names), drop names; all of it or nothing.

        ``tops``: the manifest or index that names stand for; given anew without one, a name stands for its image only.
        Without ``keep`` the change is in memory only, until the next one that is kept.
        """
        async with self._lock:
            images, names = dict(self.images), dict(self.names)
            for record in add:
                images[record.id] = record
            names.update(name or {})
            for reference in unname:
                names.pop(reference, None)
            for gone in remove:
                images.pop(gone, None)
            names = {reference: image for reference, image in names.items() if image in images}
            known = {reference: top for reference, top in self.tops.items() if reference not in (name or {})}
            known.update(tops or {})
            known = {reference: top for reference, top in known.items() if reference in names}
            document = _Document(images=images, names=names, tops=known)
            if keep:
                with storage_errors():
                    await asyncio.to_thread(_write, self._path, document, sync_content=self._unsaved)
            self._unsaved = not keep
            self._document = document

    async def save(self) -> None:
        """Put changes that were not kept on the disk."""
        if self._unsaved:
            await self.change()


def _read(path: Path) -> _Document:
    """The records, or their copy if they are damaged or lost; empty ones where there was never any."""
    damage: Exception | None = None
    for each in (path, _copy(path)):
        try:
            document = _checked(each.read_bytes())
        except FileNotFoundError:
            continue
        except (msgspec.DecodeError, ValueError) as error:
            damage = damage or error
            _log.error("the record of images %s is damaged: %s", each, error)
            continue
        if document.generation > GENERATION:
            raise Internal(f"the record of images {each} was written by a newer version.", remedy="Upgrade this one.")
        return document
    if damage is None:
        return _Document()
    raise Internal(
        f"the record of images {path} cannot be read, nor its copy: {damage}.",
        remedy="Restore one of them, or move both away to start anew.",
    ) from damage


def _copy(path: Path) -> Path:
    return path.with_suffix(".copy")


def _checked(data: bytes) -> _Document:
    """What a file says. ValueError or DecodeError if it is not what was written."""
    if data.startswith(_CHECKSUM):  # older versions wrote none
        said, _, rest = data[len(_CHECKSUM) :].partition(b'",')
        if said != _checksum(rest):
            raise ValueError("its checksum does not fit")
    return msgspec.json.decode(data, type=_Document)


def _checksum(rest: bytes) -> bytes:
    return hashlib.sha256(rest).hexdigest().encode()


def _write(path: Path, document: _Document, *, sync_content: bool) -> None:
    if sync_content:  # the blobs and layers of what was not kept so far lie on the same file system
        _sync_filesystem(path.parent)
    rest = msgspec.json.encode(document)[1:]
    data = _CHECKSUM + _checksum(rest) + b'",' + rest
    _replace(path, data, sync=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    with suppress(OSError):  # it is for a disk that fails later on; what it misses is in the records themselves
        _replace(_copy(path), data, sync=False)


def _replace(path: Path, data: bytes, *, sync: bool) -> None:
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _sync_filesystem(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def now_ns() -> int:
    """The time, for records."""
    return time.time_ns()
