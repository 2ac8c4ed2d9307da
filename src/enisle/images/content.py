"""Blobs by digest. What is visible here was verified; what is on its way lies in ``ingest``."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from enisle.errors import EnisleError, Exhausted, Internal, Invalid
from enisle.formats.json_document import SIZE_LIMIT_BYTES
from enisle.linux.disk_usage import allocated_bytes
from enisle.linux.syncfs import syncfs
from enisle.model.ids import Digest, digest, is_digest

_STALE_S = 24 * 3600.0
_UNUSED_S = 3600.0


class ContentStore:
    """A directory of blobs. Calls block for the time of a few file operations."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        self._given: dict[str, float] = {}  # names of files that somebody may be working on, and since when
        for path in (root, self._blobs, self._ingest):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, blob: Digest) -> Path:
        """Where a blob is, or would be."""
        algorithm, _, name = digest(blob).partition(":")
        if algorithm != "sha256":
            raise Invalid(f"{blob}: only sha256 digests are supported")
        return self._blobs / name

    def has(self, blob: Digest, size: int | None = None) -> bool:
        """Whether the blob is here (and of that size)."""
        try:
            found = self.path(blob).stat().st_size
        except FileNotFoundError:
            return False
        return size is None or found == size

    def size(self, blob: Digest) -> int:
        """Bytes; 0 for a blob that is not here."""
        try:
            return self.path(blob).stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, blob: Digest) -> bytes:
        """A document's bytes, verified once more: they are small, and disks do fail."""
        path = self.path(blob)
        try:
            with path.open("rb") as file:
                data = file.read(SIZE_LIMIT_BYTES + 1)
        except FileNotFoundError as error:
            raise Internal(f"blob {blob} is missing from the image store.", remedy="Pull the image again.") from error
        if digest_of(data) != blob:
            with storage_errors():
                path.rename(self._ingest / f"{path.name}.damaged")  # so that a pull fetches it anew
            raise Internal(f"blob {blob} is damaged in the image store.", remedy="Pull the image again.")
        return data

    def put(self, data: bytes) -> Digest:
        """Store a document."""
        blob = digest_of(data)
        if not self._is_sound(blob, data):
            path = self.temporary()
            with storage_errors():
                path.write_bytes(data)
                self.adopt(path, blob)
        return blob

    def _is_sound(self, blob: Digest, data: bytes) -> bool:
        try:
            return self.path(blob).read_bytes() == data
        except FileNotFoundError:
            return False

    def partial(self, blob: Digest) -> Path:
        """Where a blob is downloaded to; what is there from an earlier try is continued."""
        return self._ingest / f"{self.path(blob).name}.partial"

    def temporary(self) -> Path:
        """A new name in the ingest directory."""
        name = secrets.token_hex(16)
        self._given[name] = time.monotonic()
        return self._ingest / name

    def adopt(self, path: Path, blob: Digest) -> None:
        """Make a verified file the blob."""
        path.rename(self.path(blob))

    def disk_bytes(self) -> dict[str, int]:
        """Bytes on the disk of each blob, and of each file that is on its way, by its name."""
        blobs = {f"sha256:{path.name}": allocated_bytes(path) for path in self._blobs.iterdir()}
        return blobs | {f"{path.parent.name}/{path.name}": allocated_bytes(path) for path in self._ingest.iterdir()}

    def delete(self, blob: Digest) -> None:
        """Remove a blob."""
        self.path(blob).unlink(missing_ok=True)

    def all(self) -> list[Digest]:
        """Every blob."""
        return [Digest("sha256:" + name) for name in os.listdir(self._blobs) if is_digest("sha256:" + name)]

    def sweep(self, keep: Iterable[Digest], *, age_s: float = _STALE_S) -> int:
        """Remove blobs not in ``keep`` and broken downloads, both older than ``age_s``, and what a crash left behind;
        the bytes freed on the disk.

        What a broken pull left behind is young, and makes the next try shorter.
        """
        self._forget_unused()
        kept = {self.path(blob).name for blob in keep}
        limit = time.time() - age_s
        freed = 0
        for path in [*self._blobs.iterdir(), *self._ingest.iterdir()]:
            resumable = path.parent == self._blobs or path.suffix == ".partial"
            if path.name.removesuffix(".partial") in kept or path.name in self._given:
                continue
            status = path.lstat()
            if not resumable or status.st_mtime <= limit:
                freed += allocated_bytes(path)
                path.unlink()
        return freed

    def _forget_unused(self) -> None:
        """Names whose files are gone; but not young ones, whose files may be still to come."""
        present, limit = set(os.listdir(self._ingest)), time.monotonic() - _UNUSED_S
        for name, since in list(self._given.items()):
            if name not in present and since <= limit:
                self._given.pop(name, None)

    def sync(self) -> None:
        """Put everything written so far on the disk, layers included: they share its file system."""
        with storage_errors():
            fd = os.open(self._blobs, os.O_RDONLY | os.O_DIRECTORY)
            try:
                syncfs(fd)
            finally:
                os.close(fd)


def digest_of(data: bytes) -> Digest:
    """The digest of bytes in hand."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def storage_error(error: OSError) -> EnisleError:
    """A failure of the store's own disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Exhausted(
            "the image store is full: no space left on device.", remedy="Remove images or enlarge the disk."
        )
    return Internal(f"the image store cannot be written: {error}")


@contextmanager
def storage_errors() -> Iterator[None]:
    """Failures of the disk become errors of ours."""
    try:
        yield
    except OSError as error:
        raise storage_error(error) from error
