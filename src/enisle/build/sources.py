"""Which files of a tree the sources of a COPY, ADD or bind mount name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from enisle.build.tree import Node, Path, Tree, split
from enisle.errors import Invalid
from enisle.formats.dockerignore import compile_pattern

_WILD = re.compile(r"[*?\[\\]")


def found(
    tree: Tree, text: str, *, what: str, pattern: bool = True, deep: bool = False
) -> list[tuple[Path, Path, Node]]:
    """(where it was named, where it is, what it is) for each file that a source names; links at the end are followed.

    ``what`` begins messages ("COPY"). ``deep``: ``**`` stands for directories, however many. Invalid in Docker's words
    when there is none, or it lies outside of the tree.
    """
    if _climbs(text):
        raise Invalid(f"{what} failed: forbidden path outside the build context: {text} ()")
    if not pattern or not _WILD.search(text):
        return [_one(tree, split(text), text, what)]
    places: list[Path] = [()]
    for part in split(text):
        if deep and part == b"**":
            places = list(dict.fromkeys(below for place in places for below in _directories(tree, place)))
            continue
        places = [(*place, name) for place in places for name in _matching(tree, place, part, text)]
    if not places:
        raise Invalid(f"{what} failed: no source files were specified")
    return [_one(tree, place, text, what) for place in places]


def _one(tree: Tree, path: Path, text: str, what: str) -> tuple[Path, Path, Node]:
    there = tree.find(path)
    if there is None:
        shown = text.strip("/") or "."
        raise Invalid(
            f"{what} failed: file not found in build context or excluded by .dockerignore: "
            f"stat {shown}: file does not exist"
        )
    return path, *there


def _matching(tree: Tree, place: Path, part: bytes, text: str) -> list[bytes]:
    directory = tree.evaluate(place)
    shown = part.decode("utf-8", "surrogateescape")
    if not _WILD.search(shown):
        return [part] if tree.look((*directory, part)) is not None else []
    expression = compile_pattern(shown)
    names = tree.names(directory)
    return [name for name in names if expression.fullmatch(name.decode("utf-8", "surrogateescape"))]


def _directories(tree: Tree, place: Path) -> Iterator[Path]:
    """A directory and all those below it; links are not followed there."""
    yield place
    yield from (path for path, node in tree.walk(tree.evaluate(place)) if node.is_directory)


def _climbs(text: str) -> bool:
    depth = 0
    for part in text.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


class Excluded:
    """The patterns of --exclude."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._expressions = [compile_pattern(pattern.strip("/")) for pattern in patterns]

    def matches(self, path: Path) -> bool:
        """Whether a path, or a directory above it, is excluded."""
        if not self._expressions:
            return False
        parts = [part.decode("utf-8", "surrogateescape") for part in path]
        prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        return any(expression.fullmatch(prefix) for expression in self._expressions for prefix in prefixes)
