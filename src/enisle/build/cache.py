"""Which image came of which step: a file of lines, written by builds alone.

A key says the parent, the whole instruction and the content it used, so no image that was pulled, loaded or tagged can
pass for the result of a step (CVE-2024-24557).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enisle.model.ids import ImageId

_LIMIT = 50_000
_TEXT_LIMIT = 1000
log = logging.getLogger("enisle.build")


def key_of(*parts: object) -> str:
    """The key of a step: a digest over everything that its result depends on."""
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()


@dataclass(kw_only=True, slots=True)
class CacheRecord:
    """The result of one step. ``text``: the step as the history shows it. ``count``: how often it was used again."""

    key: str
    image: ImageId
    text: str
    created_ns: int
    used_ns: int
    count: int = 0


class BuildCache:
    """The records in memory and in a file. Losing the file costs time, nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, CacheRecord] = {}
        self._results: set[ImageId] = set()
        self._touched: set[str] = set()
        self._read()

    def get(self, key: str) -> ImageId | None:
        """The image that the step gave; it may have been removed since."""
        record = self._records.get(key)
        return record.image if record else None

    def put(self, key: str, image: ImageId, text: str = "") -> None:
        """Remember the result of a step."""
        now = time.time_ns()
        self._records.pop(key, None)
        self._records[key] = CacheRecord(key=key, image=image, text=text[:_TEXT_LIMIT], created_ns=now, used_ns=now)
        self._append([_put_line(self._records[key])])

    def touch(self, key: str) -> None:
        """The step was used once more; written down by ``flush``."""
        record = self._records[key]
        record.used_ns, record.count = time.time_ns(), record.count + 1
        self._touched.add(key)

    def flush(self) -> None:
        """Write down what was used."""
        used = [self._records[key] for key in self._touched if key in self._records]
        self._touched.clear()
        if used:
            self._append([_use_line(record) for record in used])

    def add_result(self, image: ImageId) -> None:
        """The image is what a whole build has given: whoever asked for it has its id, even without a name."""
        if image not in self._results:
            self._results.add(image)
            self._append([["result", image]])

    def is_result(self, image: ImageId) -> bool:
        """Whether the image was given to whoever asked for a build."""
        return image in self._results

    def records(self) -> list[CacheRecord]:
        """All records, the longest unused first."""
        return sorted(self._records.values(), key=lambda record: record.used_ns)

    def forget(self, images: Iterable[ImageId]) -> None:
        """Drop what led to these images."""
        gone = set(images)
        self.drop(key for key, record in self._records.items() if record.image in gone)

    def drop(self, keys: Iterable[str]) -> None:
        """Drop these records."""
        doomed = set(keys)
        if doomed & self._records.keys():
            self._records = {key: record for key, record in self._records.items() if key not in doomed}
            self._rewrite()

    def keep_results(self, images: Iterable[ImageId]) -> None:
        """Forget results that are not among the images there are."""
        self._results &= set(images)

    def _read(self) -> None:
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, IndexError):
                continue  # cut off by a crash, or of an older version
        if len(lines) > 2 * len(self._records) + 1000 or len(self._records) > _LIMIT:
            self._records = {record.key: record for record in self.records()[-_LIMIT:]}
            self._rewrite()

    def _take(self, line: list[Any]) -> None:
        match line:
            case ["put", str(key), str(image), str(text), int(created), int(used), int(count)]:
                self._records[key] = CacheRecord(
                    key=key, image=ImageId(image), text=text, created_ns=created, used_ns=used, count=count
                )
            case ["use", str(key), int(used), int(count)] if key in self._records:
                self._records[key].used_ns, self._records[key].count = used, count
            case ["result", str(image)]:
                self._results.add(ImageId(image))

    def _append(self, lines: Iterable[list[Any]], *, path: Path | None = None) -> None:
        data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
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
        lines = [["result", image] for image in sorted(self._results)]
        self._append(lines + [_put_line(record) for record in self._records.values()], path=temporary)
        if temporary.exists():
            temporary.rename(self._path)


def _put_line(record: CacheRecord) -> list[Any]:
    return ["put", record.key, record.image, record.text, record.created_ns, record.used_ns, record.count]


def _use_line(record: CacheRecord) -> list[Any]:
    return ["use", record.key, record.used_ns, record.count]
