"""Indexes and manifests (OCI image-spec 1.1, Docker's schema 2) <-> model. For configs see oci_config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from enisle.errors import Invalid
from enisle.formats.json_document import canonical, parse_object
from enisle.model.ids import digest, is_digest
from enisle.model.image import Descriptor, Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_DOCKER_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))

_LAYERS_LIMIT = 500
_CHILDREN_LIMIT = 2000
_BLOB_LIMIT_BYTES = 1 << 40
_LAYER_SUFFIXES = ("", ".gzip", "+gzip", "+zstd", ".zstd")
_LAYER_TYPES = frozenset(
    base + suffix
    for base in (OCI_LAYER, DOCKER_LAYER, "application/vnd.oci.image.layer.nondistributable.v1.tar")
    for suffix in _LAYER_SUFFIXES
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One image: its config and layers, bottom first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """A list of manifests, one per platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]


def parse_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """The manifest or index in ``data``. ``media_type``: what its sender called it, "" for unknown.

    Raises Invalid for a document that could be read as both (CVE-2021-41190), is neither, or is over a limit.
    """
    document = parse_object(data, "manifest")
    own = document.get("mediaType", "")
    if not isinstance(own, str):
        raise Invalid("manifest: mediaType is not a text")
    media_type = media_type.partition(";")[0].strip()
    known = INDEX_TYPES | MANIFEST_TYPES
    if own and media_type in known and own != media_type:
        raise Invalid(f"manifest: it says it is {own[:100]}, but was sent as {media_type}")
    kind = own or (media_type if media_type in known else "")
    if document.get("schemaVersion") == 1 or kind.startswith(_DOCKER_SCHEMA_1):
        raise Invalid(
            "manifest: Docker image format v1 and schema version 1 are not supported.",
            remedy="Push the image again with a current Docker.",
        )
    has_layers = "layers" in document or "config" in document or "fsLayers" in document
    if has_layers == ("manifests" in document):
        raise Invalid("manifest: ambiguous: it has to have either layers and a config, or manifests")
    if kind and kind not in (MANIFEST_TYPES if has_layers else INDEX_TYPES):
        raise Invalid(f"manifest: its content does not fit the media type {kind[:100]}")
    return _parse_image(document, kind) if has_layers else _parse_index(document, kind)


def _parse_image(document: dict[str, Any], kind: str) -> Manifest:
    layers = document.get("layers")
    if not isinstance(layers, list) or len(layers) > _LAYERS_LIMIT:
        raise Invalid(f"manifest: layers is not a list of at most {_LAYERS_LIMIT}")
    return Manifest(
        media_type=kind or OCI_MANIFEST,
        config=parse_descriptor(document.get("config"), "config"),
        layers=tuple(parse_descriptor(layer, "layer") for layer in layers),
    )


def _parse_index(document: dict[str, Any], kind: str) -> Index:
    children = document.get("manifests")
    if not isinstance(children, list) or len(children) > _CHILDREN_LIMIT:
        raise Invalid(f"index: manifests is not a list of at most {_CHILDREN_LIMIT}")
    return Index(
        media_type=kind or OCI_INDEX, manifests=tuple(parse_descriptor(child, "manifest") for child in children)
    )


def parse_descriptor(document: Any, what: str) -> Descriptor:
    """A descriptor. Raises Invalid; the digest it returns is safe as a part of a path."""
    if not isinstance(document, dict):
        raise Invalid(f"manifest: the {what} is not described")
    media_type, size = document.get("mediaType", ""), document.get("size")
    if not isinstance(media_type, str) or not isinstance(size, int) or isinstance(size, bool):
        raise Invalid(f"manifest: a {what} without media type or size")
    if not 0 <= size <= _BLOB_LIMIT_BYTES:
        raise Invalid(f"manifest: a {what} of {size} bytes")
    text = document.get("digest")
    if not isinstance(text, str):
        raise Invalid(f"manifest: a {what} without a digest")
    platform = document.get("platform")
    return Descriptor(
        media_type=media_type,
        digest=digest(text),
        size=size,
        platform=parse_platform(platform) if isinstance(platform, dict) else None,
        annotations=_texts(document.get("annotations")),
    )


def check_layer(layer: Descriptor) -> None:
    """Raise Invalid for a layer of a kind that cannot be unpacked."""
    if layer.media_type == DOCKER_FOREIGN_LAYER or layer.media_type.startswith(DOCKER_FOREIGN_LAYER):
        raise Invalid(f"layer {layer.digest}: it is to be fetched from elsewhere, which is not done")
    if layer.media_type not in _LAYER_TYPES:
        raise Invalid(f"layer {layer.digest}: the media type {layer.media_type[:100]!r} is not a layer's")


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}


def parse_platform(document: dict[str, Any]) -> Platform:
    """The platform object of an index or a config; unknown parts are "unknown"."""

    def text(key: str) -> str:
        value = document.get(key, "")
        return value if isinstance(value, str) else ""

    features = document.get("os.features")
    return Platform(
        os=text("os") or "unknown",
        architecture=text("architecture") or "unknown",
        variant=text("variant"),
        os_version=text("os.version"),
        os_features=tuple(str(item) for item in features) if isinstance(features, list) else (),
    )


def descriptor_document(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as JSON has it."""
    document: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.annotations:
        document["annotations"] = descriptor.annotations
    if descriptor.platform is not None:
        platform = {"architecture": descriptor.platform.architecture, "os": descriptor.platform.os}
        if descriptor.platform.variant:
            platform["variant"] = descriptor.platform.variant
        document["platform"] = platform
    return document


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest's bytes, always the same for the same manifest."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": manifest.media_type,
            "config": descriptor_document(manifest.config),
            "layers": [descriptor_document(layer) for layer in manifest.layers],
        }
    )


def encode_index(index: Index) -> bytes:
    """An index's bytes, always the same for the same index."""
    children = [descriptor_document(child) for child in index.manifests]
    return canonical({"schemaVersion": 2, "mediaType": index.media_type, "manifests": children})


def check_digest(text: object, what: str) -> str:
    """The text, if it is a digest. Raises Invalid that names ``what``."""
    if not isinstance(text, str) or not is_digest(text):
        raise Invalid(f"{what}: {str(text)[:100]!r} is no digest")
    return text
