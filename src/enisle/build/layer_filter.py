"""The layer that a RUN has left, without the places its mounts were put on, and with times that can be repeated."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path as FilePath

from enisle.archive.entry import ArchiveError, FileKind
from enisle.archive.reader import TarReader
from enisle.archive.writer import TarWriter
from enisle.build.layer_plan import Sink
from enisle.build.tree import Path, Tree, split
from enisle.errors import Invalid

_CHUNK = 1 << 18


def stubs(targets: Collection[str], base: Tree) -> set[Path]:
    """Places that do not exist in the image below, and were made for mounts only."""
    found: set[Path] = set()
    for target in targets:
        path = base.evaluate(split(target))
        for count in range(1, len(path) + 1):
            if base.look(path[:count]) is None:
                found.add(path[:count])
    return found


def filtered(layer: FilePath, unwanted: set[Path], *, limit_ns: int | None) -> Iterator[bytes]:
    """The layer's tar again, without the empty ones of ``unwanted`` and with no file younger than ``limit_ns``.

    Nothing is removed from any file system, so that nothing a RUN has put there can lead the removal astray.
    """
    if not unwanted and limit_ns is None:
        with layer.open("rb", buffering=0) as file:
            while piece := file.read(_CHUNK):
                yield piece
        return
    try:
        yield from _rewritten(layer, _empty(layer, unwanted) if unwanted else set(), limit_ns)
    except ArchiveError as error:
        raise Invalid(f"the layer cannot be read: {error}") from error


def _empty(layer: FilePath, unwanted: set[Path]) -> set[Path]:
    candidates: set[Path] = set()
    needed: set[Path] = set()
    with layer.open("rb", buffering=0) as file:
        for entry in TarReader(file):
            path = split(entry.name)
            is_stub = entry.kind is FileKind.DIRECTORY or (entry.kind is FileKind.REGULAR and entry.size == 0)
            if path in unwanted and is_stub:
                candidates.add(path)
            else:  # what stays needs the directories above it
                needed.update(path[:count] for count in range(1, len(path)))
    return candidates - needed


def _rewritten(layer: FilePath, dropped: set[Path], limit_ns: int | None) -> Iterator[bytes]:
    sink = Sink()
    writer = TarWriter(sink)
    with layer.open("rb", buffering=0) as file:
        reader = TarReader(file)
        for entry in reader:
            if split(entry.name) in dropped:
                continue
            if limit_ns is not None:
                entry = replace(entry, mtime_ns=min(entry.mtime_ns, limit_ns), sparse=entry.sparse)
            for _ in writer.adding(entry, (piece for _, piece in reader.data())):
                yield from sink.taken()
            yield from sink.taken()
    writer.close()
    yield from sink.taken()
