"""Named contexts: what a FROM or --from of that name means instead of a stage or an image.

``docker-image://REFERENCE``, a git repository or the URL of a tar, or ``input:DIRECTORY``: a directory of the context
that was sent, which is no part of the main context then, or ``local:NAME``: a directory that the client is asked for.
(The spellings are BuildKit's.)
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path as FilePath

from enisle.build import git, remote
from enisle.build.archive_tree import ArchiveTree, spool
from enisle.build.client import Client
from enisle.build.tree import Tree, split
from enisle.errors import Invalid

_IMAGE = "docker-image://"
_INPUT = "input:"
_LOCAL = "local:"


class NamedContexts:
    """The named contexts of one build; each is fetched once, when it is needed. Close it at the end."""

    def __init__(self, given: Mapping[str, str], main: Tree, directory: FilePath, client: Client | None = None) -> None:
        self._client = client
        self._given = {_normal(name): value for name, value in given.items()}
        self._directory = directory
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._trees: dict[str, Tree] = {}
        self._main = main
        for name, value in self._given.items():
            if value.startswith(_INPUT) or (client is not None and value.startswith(_LOCAL)):
                continue
            if not value.startswith(_IMAGE) and git.parse(value) is None and not remote.is_url(value):
                raise Invalid(f"invalid context {name}={value[:200]}: it is an image, a git repository or a URL")

    async def __aenter__(self) -> NamedContexts:
        for name, value in self._given.items():
            if value.startswith(_INPUT):
                if not isinstance(self._main, ArchiveTree):
                    raise Invalid(f"the context {name} needs a build context that it was sent with")
                tree = self._main.detached(split(value.removeprefix(_INPUT)))
                self._stack.callback(tree.close)
                self._trees[name] = tree
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _normal(name) in self._given

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def image(self, name: str) -> str:
        """The image that a name stands for; "" when it stands for files."""
        value = self._given[_normal(name)]
        return value.removeprefix(_IMAGE) if value.startswith(_IMAGE) else ""

    async def tree(self, name: str) -> Tree:
        """The files that a name stands for."""
        name = _normal(name)
        async with self._lock:
            if name not in self._trees:
                self._trees[name] = await self._fetched(self._given[name])
            return self._trees[name]

    async def _fetched(self, value: str) -> Tree:
        if self._client is not None and value.startswith(_LOCAL):
            files = self._client.files(value.removeprefix(_LOCAL), self._directory)
            return await self._stack.enter_async_context(files)
        repository = git.parse(value)
        if repository is not None:
            return await self._stack.enter_async_context(git.cloned(repository, self._directory))
        fetched = await remote.download(value, self._directory / secrets.token_hex(8), allow_local=True)
        path = self._directory / secrets.token_hex(8)
        try:
            await spool(remote.read(fetched.path), path)
        finally:
            fetched.path.unlink()
        tree = ArchiveTree(path)
        self._stack.callback(tree.close)
        path.unlink()
        await asyncio.to_thread(tree.index)
        return tree


def _normal(name: str) -> str:
    """Names are compared without case, and images' without what is left out when they are typed."""
    return name.lower().removeprefix("docker.io/").removeprefix("library/").removesuffix(":latest")
