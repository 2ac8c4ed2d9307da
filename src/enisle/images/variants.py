"""The platforms of an image: what the index it came with lists, and what of that is here.

Each platform that was pulled or loaded is an image of its own; the index is a document that they share.
"""

from __future__ import annotations

from dataclasses import dataclass

from enisle.errors import NotFound
from enisle.formats.oci import Index, Manifest, parse_manifest
from enisle.formats.oci_config import parse_config
from enisle.images.attestations import is_attestation
from enisle.images.content import ContentStore, digest_of
from enisle.images.index import ImageRecord
from enisle.images.index import Index as Records
from enisle.images.manifests import manifest_of
from enisle.images.platforms import choose
from enisle.model.ids import Digest, ImageId
from enisle.model.image import Descriptor, ImageVariant, Platform


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One entry of an index. ``record``: its image, if all of it is here. ``attached``: an attestation that is here."""

    descriptor: Descriptor
    manifest: Manifest | None = None
    record: ImageRecord | None = None
    attached: bool = False

    @property
    def here(self) -> bool:
        """Whether all of it is."""
        return self.record is not None or self.attached


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """An index with what it lists."""

    descriptor: Descriptor
    data: bytes
    members: tuple[Member, ...]

    @property
    def whole(self) -> bool:
        """Whether everything it lists is here."""
        return all(member.here for member in self.members)

    def fitting(self, platform: Platform, what: str) -> Member:
        """The entry for a platform, here or not. NotFound when there is none."""
        chosen = choose([member.descriptor for member in self.members], platform, what)
        return next(member for member in self.members if member.descriptor is chosen)


def family_of(content: ContentStore, records: Records, record: ImageRecord, *, name: str = "") -> Family | None:
    """The index that a name of the image stands for, or the newest that lists it; None for an image that came without.

    ``name``: a normalised reference, "" for none.
    """
    if not record.manifest:
        return None
    top = records.tops.get(name)
    for document in (top,) if top and top in record.documents else record.documents:
        if document == record.manifest or not content.has(document):
            continue
        data = content.read(document)
        index = parse_manifest(data)
        if isinstance(index, Index) and any(child.digest == record.manifest for child in index.manifests):
            members = tuple(_member(content, records, child) for child in index.manifests)
            own = Descriptor(media_type=index.media_type, digest=digest_of(data), size=len(data))
            return Family(descriptor=own, data=data, members=members)
    return None


def _member(content: ContentStore, records: Records, child: Descriptor) -> Member:
    if not content.has(child.digest, child.size):
        return Member(descriptor=child)
    manifest = parse_manifest(content.read(child.digest), child.media_type)
    if not isinstance(manifest, Manifest):
        return Member(descriptor=child)
    if is_attestation(child):
        blobs = (manifest.config, *manifest.layers)
        return Member(
            descriptor=child, manifest=manifest, attached=all(content.has(blob.digest, blob.size) for blob in blobs)
        )
    record = records.images.get(ImageId(manifest.config.digest))
    known = {layer.blob for layer in record.layers} if record else set()
    here = all(layer.digest in known and content.has(layer.digest, layer.size) for layer in manifest.layers)
    return Member(descriptor=child, manifest=manifest, record=record if here else None)


def sibling(content: ContentStore, records: Records, record: ImageRecord, platform: Platform) -> ImageRecord | None:
    """The image for another platform out of the same index, if it is here."""
    family = family_of(content, records, record)
    try:
        return family.fitting(platform, "").record if family else None
    except NotFound:
        return None


def variants(content: ContentStore, records: Records, record: ImageRecord) -> list[ImageVariant]:
    """Every manifest of an image's index; of an image without index its own."""
    family = family_of(content, records, record)
    if family is None:
        data = manifest_of(content, record)
        manifest = parse_manifest(data)
        assert isinstance(manifest, Manifest)
        own = Descriptor(media_type=manifest.media_type, digest=digest_of(data), size=len(data))
        return [_variant(content, Member(descriptor=own, manifest=manifest, record=record))]
    return [_variant(content, member) for member in family.members]


def _variant(content: ContentStore, member: Member) -> ImageVariant:
    blobs: set[Digest] = set()
    if member.manifest:
        config, layers = member.manifest.config, member.manifest.layers
        blobs = {member.descriptor.digest, config.digest, *(layer.digest for layer in layers)}
    return ImageVariant(
        descriptor=member.descriptor,
        image=ImageId(member.record.id) if member.record else ImageId(""),
        available=member.here,
        platform=_platform(content, member),
        content_bytes=sum(content.size(blob) for blob in blobs),
        unpacked_bytes=sum(layer.unpacked for layer in member.record.layers) if member.record else 0,
    )


def _platform(content: ContentStore, member: Member) -> Platform:
    """As the index says it; an image that came without is asked itself."""
    if member.descriptor.platform is not None:
        return member.descriptor.platform
    if member.record is not None:
        return parse_config(content.read(Digest(member.record.id))).platform
    return Platform(os="unknown", architecture="unknown")
