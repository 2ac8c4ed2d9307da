"""The context of a BuildKit client's build: fetched from the client, file by file, as far as a Dockerfile names it."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from enisle.build import git, graph, remote
from enisle.build.archive_tree import ArchiveTree
from enisle.build.context import Context, opened
from enisle.build.options import BuildOptions
from enisle.build.tree import EmptyTree, Tree, split
from enisle.buildkit.attributes import Locations
from enisle.buildkit.filesync import Progress as Amount
from enisle.buildkit.filesync import Wanted, received
from enisle.buildkit.session_client import SessionClient, exclusions
from enisle.buildkit.status import Progress, Step
from enisle.errors import EnisleError, Invalid
from enisle.formats.dockerfile.instructions import Copy, Dockerfile, Instruction, Run
from enisle.formats.dockerfile.parse import parse

_SESSION_URL = "http://buildkit-session/"
_DOCKERFILE_LIMIT_BYTES = 16 << 20
_IGNORE = ".dockerignore"
_PATHS_LIMIT = 1000  # patterns travel in headers


@dataclass(frozen=True, slots=True)
class _Definition:
    """A Dockerfile, and the patterns of the .dockerignore that is for it alone, if there is one."""

    text: str
    excluded: list[str] | None


class ClientContext:
    """Opens the context of one build."""

    def __init__(self, places: Locations, options: BuildOptions, client: SessionClient, progress: Progress) -> None:
        self._places = places
        self._options = options
        self._client = client
        self._progress = progress

    @asynccontextmanager
    async def opened(self, directory: Path) -> AsyncIterator[Context]:
        """The context; what it takes on the disk lies in ``directory``. Invalid: no Dockerfile, no files."""
        places = self._places
        text = (await self._definition(directory)).text if places.context and places.dockerfile_name else None
        if places.context:
            async with self._remote(directory) as context:
                yield context if text is None else replace(context, text=text, name=places.dockerfile)
            return
        definition = await self._definition(directory)
        paths = paths_of(parse(definition.text), self._options.target)
        excluded = await self._excluded(definition, directory)
        name = "[internal] load build context"

        def load(paths: list[str] | None) -> AbstractAsyncContextManager[ArchiveTree]:
            wanted = Wanted(name=places.context_name, paths=paths or (), excluded=excluded)
            return self._files(wanted, name, directory)

        async with AsyncExitStack() as stack:
            tree: Tree = await stack.enter_async_context(load(paths)) if paths != [] else EmptyTree()
            whole = None if paths is None else partial(load, None)
            yield Context(tree=tree, text=definition.text, name=places.dockerfile, whole=whole)

    @asynccontextmanager
    async def _remote(self, directory: Path) -> AsyncIterator[Context]:
        url = self._places.context
        name = "upload context" if url.startswith(_SESSION_URL) else f"load remote build context {url[:200]}"
        dockerfile = "" if self._places.dockerfile_name else self._places.dockerfile
        step = self._progress.vertex(f"[internal] {name}")
        if url.startswith(_SESSION_URL):
            source = opened(
                replace(self._options, dockerfile=dockerfile, remote=""), self._client.upload(url), directory
            )
        else:
            source = opened(replace(self._options, dockerfile=dockerfile, remote=url), _nothing(), directory)
        with _failing(step):
            async with source as context:
                step.done()
                yield context

    async def _definition(self, directory: Path) -> _Definition:
        """The Dockerfile."""
        name = self._places.dockerfile
        own = f"{name}.dockerignore"
        lower = posixpath.join(posixpath.dirname(name), posixpath.basename(name).lower())
        wanted = Wanted(name=self._places.dockerfile_name or "dockerfile", paths=(name, own, lower))
        async with self._files(wanted, f"[internal] load build definition from {name}", directory) as tree:
            data = tree.read(split(name), limit=_DOCKERFILE_LIMIT_BYTES)
            if data is None and posixpath.basename(name) == "Dockerfile":
                data = tree.read(split(lower), limit=_DOCKERFILE_LIMIT_BYTES)
            if data is None:
                raise Invalid(f"failed to read dockerfile: open {name}: no such file or directory")
            return _Definition(data.decode("utf-8", "surrogateescape"), exclusions(tree, own))

    async def _excluded(self, definition: _Definition, directory: Path) -> list[str]:
        if definition.excluded is not None:
            return definition.excluded
        wanted = Wanted(name=self._places.context_name, paths=(_IGNORE,))
        async with self._files(wanted, f"[internal] load {_IGNORE}", directory) as tree:
            return exclusions(tree, _IGNORE) or []

    @asynccontextmanager
    async def _files(self, wanted: Wanted, name: str, directory: Path) -> AsyncIterator[ArchiveTree]:
        step = self._progress.vertex(name)
        amount = _Told(step)
        with _failing(step):
            async with received(self._client.session, wanted, directory, amount) as tree:
                amount.end()
                step.done()
                yield tree


class _Told(Amount):
    """Tells of what comes, now and then."""

    _EVERY_BYTES = 4 << 20

    def __init__(self, step: Step) -> None:
        self._step = step
        self._size = 0
        self._next = self._EVERY_BYTES

    @property
    def size(self) -> int:
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        self._size = size
        if size >= self._next:
            self._next = size + self._EVERY_BYTES
            self._step.amount("transferring context:", size)

    def end(self) -> None:
        """All has come."""
        self._step.amount("transferring context:", self._size, self._size, ended=True)


@contextmanager
def _failing(step: Step) -> Iterator[None]:
    """What goes wrong goes wrong in this step, unless it is over."""
    try:
        yield
    except EnisleError as error:
        step.failed(str(error))
        raise


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def paths_of(dockerfile: Dockerfile, target: str) -> list[str] | None:
    """What of its context a target needs, as patterns; None: all of it, or what cannot be told yet. Pure.

    Raises Invalid for a target that is not there.
    """
    found: set[str] = set()
    fixed = not any("$" in stage.base.image for stage in dockerfile.stages)
    index = graph.target_index(dockerfile, target)
    needed = graph.needed(dockerfile, index, str) if fixed else range(len(dockerfile.stages))
    for number in needed:
        for instruction in dockerfile.stages[number].instructions:
            for source in _sources(instruction):
                path = posixpath.normpath("/" + _ahead_of_depth(source)).strip("/")
                if "$" in source or not path:
                    return None
                found.add(path)
    return sorted(found) if len(found) <= _PATHS_LIMIT else None


def _ahead_of_depth(source: str) -> str:
    """What names one place, ahead of a "**" for directories however deep."""
    return "/".join(itertools.takewhile(lambda part: part != "**", source.split("/")))


def _sources(instruction: Instruction) -> Iterator[str]:
    if isinstance(instruction, Copy) and not instruction.source:
        for source in instruction.sources:
            if not source.startswith("<<") and not remote.is_url(source) and not (instruction.add and _is_git(source)):
                yield source
    elif isinstance(instruction, Run):
        for mount in instruction.mounts:
            if mount.kind == "bind" and not mount.options.get("from"):
                yield mount.options.get("source", mount.options.get("src", "/"))


def _is_git(url: str) -> bool:
    return git.parse(url) is not None
