"""The build context: where it comes from, what of it is seen, and the Dockerfile in it."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath

from enisle.archive.entry import ArchiveError
from enisle.archive.reader import parse_header
from enisle.build import git, remote
from enisle.build.archive_tree import ArchiveTree, spool
from enisle.build.options import BuildOptions
from enisle.build.tree import EmptyTree, Tree, split
from enisle.errors import Invalid
from enisle.formats import dockerignore

_BLOCK = 512
_DOCKERFILE_LIMIT_BYTES = 16 << 20
DEFAULT_NAME = "Dockerfile"


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """``name``: what the Dockerfile is called in messages. ``whole``: opens all of it, where ``tree`` has no more than
    what the Dockerfile names."""

    tree: Tree
    text: str
    name: str
    whole: Callable[[], AbstractAsyncContextManager[Tree]] | None = None


@asynccontextmanager
async def opened(options: BuildOptions, body: AsyncIterator[bytes], directory: FilePath) -> AsyncIterator[Context]:
    """The context of a build; what it takes on the disk lies in ``directory``. Invalid: no Dockerfile, no archive."""
    repository = git.parse(options.remote) if options.remote else None
    if repository is not None:
        async with git.cloned(repository, directory) as tree:
            yield _context(tree, options, apply_ignore=True)
        return
    path = directory / "context"
    if options.remote:
        if not remote.is_url(options.remote):
            raise Invalid(f"remote URL {options.remote[:200]} is neither a git repository nor http(s)")
        fetched = await remote.download(options.remote, directory / "fetched", allow_local=True)
        await spool(remote.read(fetched.path), path)
        fetched.path.unlink()
    else:
        await spool(body, path)
    head = path.open("rb").read(_BLOCK)
    if not _is_tar(head):
        text = path.read_bytes() if path.stat().st_size <= _DOCKERFILE_LIMIT_BYTES else b"\0"
        path.unlink()
        yield _alone(text, options)
        return
    tree = ArchiveTree(path)
    try:
        await asyncio.to_thread(tree.index)
        yield _context(tree, options, apply_ignore=bool(options.remote))
    finally:
        tree.close()


def _alone(data: bytes, options: BuildOptions) -> Context:
    """A Dockerfile without a context."""
    if not data:
        raise Invalid(f"Cannot locate specified Dockerfile: {options.dockerfile or DEFAULT_NAME}")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise Invalid("the build context is neither a tar archive nor a Dockerfile")
    return Context(tree=EmptyTree(), text=text, name=DEFAULT_NAME)


def _context(tree: ArchiveTree, options: BuildOptions, *, apply_ignore: bool) -> Context:
    name = posixpath.normpath(options.dockerfile or DEFAULT_NAME)
    if name.startswith("../") or name == "..":
        raise Invalid(f"the Dockerfile ({options.dockerfile}) must be within the build context")
    data = tree.read(split(name), limit=_DOCKERFILE_LIMIT_BYTES)
    if data is None and not options.dockerfile:
        data = tree.read(split(name.lower()), limit=_DOCKERFILE_LIMIT_BYTES)
    if data is None:
        raise Invalid(f"Cannot locate specified Dockerfile: {name}")
    _apply_ignore(tree, name, everything=apply_ignore)
    return Context(tree=tree, text=data.decode("utf-8", "surrogateescape"), name=name)


def _apply_ignore(tree: ArchiveTree, name: str, *, everything: bool) -> None:
    """Leave out what .dockerignore says: of a context that a client sent, which has left out the rest itself, the
    Dockerfile and the file itself, which it had to send."""
    own = tree.read(split(f"{name}.dockerignore"), limit=_DOCKERFILE_LIMIT_BYTES)
    text = own if own is not None else tree.read(split(".dockerignore"), limit=_DOCKERFILE_LIMIT_BYTES)
    if text is None:
        return
    ignore = dockerignore.parse(text.decode("utf-8", "surrogateescape"))
    if everything:
        tree.hide(ignore.matches)
        return
    for path in (name, ".dockerignore", f"{name}.dockerignore"):
        if ignore.matches(path):
            tree.forget(split(path))


def _is_tar(head: bytes) -> bool:
    if not any(head):
        return len(head) == _BLOCK  # an empty archive
    try:
        return len(head) == _BLOCK and bool(parse_header(head))
    except ArchiveError:
        return False
