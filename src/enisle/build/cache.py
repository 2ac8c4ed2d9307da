"""Which image came of which step: a file of keys and image ids, written by builds alone.

A key says the parent, the whole instruction and the content it used, so no image that was pulled, loaded or tagged can
pass for the result of a step (CVE-2024-24557).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from enisle.model.ids import ImageId

_LIMIT = 50_000
log = logging.getLogger("enisle.build")


def key_of(*parts: object) -> str:
    """The key of a step: a digest over everything that its result depends on."""
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()


class BuildCache:
    """The keys in memory and in a file. Losing the file costs time, nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._images: dict[str, ImageId] = {}
        self._read()

    def get(self, key: str) -> ImageId | None:
        """The image that the step gave; it may have been removed since."""
        return self._images.get(key)

    def put(self, key: str, image: ImageId) -> None:
        """Remember the result of a step."""
        self._images.pop(key, None)
        self._images[key] = image
        self._append([(key, image)])

    def images(self) -> set[ImageId]:
        """Every image that is the result of a step."""
        return set(self._images.values())

    def forget(self, images: Iterable[ImageId]) -> None:
        """Drop what led to these images."""
        gone = set(images)
        self._images = {key: image for key, image in self._images.items() if image not in gone}
        self._rewrite()

    def _read(self) -> None:
        lines = 0
        try:
            for line in self._path.read_text().splitlines():
                lines += 1
                key, space, image = line.partition(" ")
                if space and len(key) == 64 and image.startswith("sha256:"):
                    self._images[key] = ImageId(image)
        except (OSError, UnicodeDecodeError):
            return
        if lines > 2 * len(self._images) + 1000 or len(self._images) > _LIMIT:
            self._images = dict(list(self._images.items())[-_LIMIT:])
            self._rewrite()

    def _append(self, items: Iterable[tuple[str, ImageId]], *, path: Path | None = None) -> None:
        data = "".join(f"{key} {image}\n" for key, image in items).encode()
        try:
            fd = os.open(path or self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("the build cache cannot be written: %s", error)

    def _rewrite(self) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        self._append(self._images.items(), path=temporary)
        if temporary.exists():
            temporary.rename(self._path)
