"""From what a user wrote to an image, and from records to what the user is shown."""

from __future__ import annotations

from enisle.errors import Conflict, Internal, Invalid, NotFound
from enisle.formats.oci_config import ImageDocument, parse_config
from enisle.formats.reference import Reference, parse_reference
from enisle.images.content import ContentStore
from enisle.images.index import ImageRecord, Index
from enisle.model.ids import Digest, ImageId, is_id_prefix
from enisle.model.image import Image, ImageConfig, Platform

_HEX_ID_DIGITS = 64


class Lookup:
    """Finds images. Configs are parsed once and kept."""

    def __init__(self, index: Index, content: ContentStore) -> None:
        self.index = index
        self.content = content
        self._documents: dict[str, ImageDocument] = {}

    def find(self, text: str) -> ImageRecord:
        """The image by id, name, name@digest or id prefix, in this order. NotFound in Docker's wording."""
        images = self.index.images
        if text.startswith("sha256:") and text in images:
            return images[text]
        if is_id_prefix(text) and len(text) == _HEX_ID_DIGITS and f"sha256:{text}" in images:
            return images[f"sha256:{text}"]
        name = self.named(text)
        if name is not None:
            return images[name]
        prefix = text.removeprefix("sha256:")
        if is_id_prefix(prefix):
            found = [image for image in images if image.partition(":")[2].startswith(prefix)]
            if len(found) == 1:
                return images[found[0]]
            if found:
                raise Conflict(f"multiple images match the id {text}.", remedy="Give more digits.")
        raise NotFound(f"No such image: {self._shown(text)}")

    def named(self, text: str) -> str | None:
        """The id of the image that has this name; None if none has, or it is no name."""
        try:
            reference = parse_reference(text).or_latest()
        except Invalid:
            return None
        if reference.digest:
            reference = reference.with_digest(Digest(reference.digest))
        return self.index.names.get(str(reference))

    def _shown(self, text: str) -> str:
        try:
            return parse_reference(text).or_latest().familiar
        except Invalid:
            return text[:300]

    def document(self, record: ImageRecord) -> ImageDocument:
        """The image's config."""
        found = self._documents.get(record.id)
        if found is None:
            found = self._documents[record.id] = parse_config(self.content.read(Digest(record.id)))
        return found

    def forget(self, image: str) -> None:
        """Drop what is kept of an image that was removed."""
        self._documents.pop(image, None)

    def image(self, record: ImageRecord) -> Image:
        """The model of an image."""
        damage = ""
        try:
            document = self.document(record)
        except (Internal, Invalid) as error:  # one bad blob must not hide all other images, nor itself from removal
            document, damage = ImageDocument(config=ImageConfig(), platform=Platform()), str(error)
        names = [parse_reference(name) for name in self.index.names_of(record.id)]
        return Image(
            id=ImageId(record.id),
            manifest=record.manifest,
            config=document.config,
            platform=document.platform,
            created=document.created,
            author=document.author,
            comment=document.comment,
            parent=record.parent if record.parent in self.index.images else "",
            diff_ids=document.diff_ids,
            history=document.history,
            size_bytes=sum(layer.unpacked for layer in record.layers),
            repo_tags=tuple(name.familiar for name in names if name.tag),
            repo_digests=tuple(name.familiar for name in names if name.digest),
            last_tagged_at=record.tagged_at,
            damage=damage,
        )

    def references(self, image: str) -> list[Reference]:
        """All names of an image."""
        return [parse_reference(name) for name in self.index.names_of(image)]

    def tags_of(self, repository: Reference) -> list[Reference]:
        """All tagged names of a repository, sorted."""
        names = [parse_reference(name) for name in sorted(self.index.names)]
        return [name for name in names if name.name == repository.name and name.tag]
