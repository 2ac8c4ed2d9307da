"""The manifest of an image."""

from __future__ import annotations

from enisle.formats.oci import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Manifest,
    encode_manifest,
)
from enisle.images.content import ContentStore
from enisle.images.index import ImageRecord
from enisle.model.ids import Digest
from enisle.model.image import Descriptor


def manifest_of(content: ContentStore, record: ImageRecord) -> bytes:
    """The manifest an image came with, or one made for it: schema 2 where that can say it, which everybody reads."""
    if record.manifest:
        return content.read(Digest(record.manifest))
    gzipped = all(layer.media_type.endswith("gzip") for layer in record.layers)
    config = Digest(record.id)
    return encode_manifest(
        Manifest(
            media_type=DOCKER_MANIFEST if gzipped else OCI_MANIFEST,
            config=Descriptor(
                media_type=DOCKER_CONFIG if gzipped else OCI_CONFIG, digest=config, size=content.size(config)
            ),
            layers=tuple(
                Descriptor(
                    media_type=DOCKER_LAYER + ".gzip" if gzipped else layer_type(layer.media_type),
                    digest=layer.blob,
                    size=layer.size,
                )
                for layer in record.layers
            ),
        )
    )


def layer_type(media_type: str) -> str:
    """A layer's media type in OCI's words."""
    if media_type.startswith(DOCKER_LAYER):
        return OCI_LAYER + media_type[len(DOCKER_LAYER) :].replace(".", "+")
    return media_type
