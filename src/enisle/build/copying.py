"""COPY and ADD: from the instruction to the files it puts over an image. No process runs, nothing is mounted."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from enisle.archive.entry import ArchiveError, FileKind
from enisle.archive.reader import parse_header
from enisle.build import git, remote
from enisle.build.archive_tree import ArchiveTree, spool
from enisle.build.layer_plan import LayerPlan, Planned
from enisle.build.owners import mode as changed_mode
from enisle.build.sources import Excluded, found
from enisle.build.tree import Node, Path, Tree, split
from enisle.errors import Invalid

_BLOCK = 512
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_PIVOT = re.compile(r"(?:^|/)\./")


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyStep:
    """One COPY or ADD with its variables expanded. ``owner`` None: root for a context, as they were for an image.

    ``heredocs``: name to content of sources that are written in the Dockerfile itself.
    """

    keyword: str
    sources: tuple[str, ...]
    destination: str
    heredocs: dict[str, str]
    from_image: bool = False
    owner: tuple[int, int] | None = None
    chmod: str = ""
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git: bool = False
    unpack: bool | None = None
    allow_local: bool = False


class Copier:
    """Fills one plan. Use as an async context: what was fetched is there until the end, the layer is read within."""

    def __init__(self, step: CopyStep, plan: LayerPlan, tree: Tree, directory: FilePath) -> None:
        self._step = step
        self.plan = plan
        self._tree = tree
        self._directory = directory
        self._stack = AsyncExitStack()
        self._excluded = Excluded(step.exclude)

    async def __aenter__(self) -> Copier:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self) -> None:
        """Plan every source. Raises Invalid in Docker's words."""
        step = self._step
        if step.checksum:
            _check_form(step.checksum)
            if not all(remote.is_url(source) and git.parse(source) is None for source in step.sources):
                raise Invalid("checksum can't be specified for non-HTTP(S) sources")
            if len(step.sources) > 1:
                raise Invalid("checksum can't be specified for multiple sources")
        selected: list[tuple[str, Path, Path, Node]] = []
        for source in step.sources:
            if source.startswith("<<") or self._is_remote(source):
                continue
            places = await asyncio.to_thread(found, self._tree, source, what=step.keyword, deep=step.parents)
            selected += [(source, *place) for place in places]
        others = [source for source in step.sources if source.startswith("<<") or self._is_remote(source)]
        several = len(selected) + len(others) > 1
        if several and not _names_directory(step.destination) and not step.parents:
            raise Invalid(
                f"When using {step.keyword} with more than one source file, "
                "the destination must be a directory and end with a /"
            )
        for source in others:
            await self._other(source)
        for source, named, where, node in selected:
            await self._local(source, named, where, node)

    def _is_remote(self, source: str) -> bool:
        return self._step.keyword == "ADD" and (remote.is_url(source) or git.parse(source) is not None)

    # --- what is not in a tree yet ---

    async def _other(self, source: str) -> None:
        step = self._step
        if source.startswith("<<"):
            name = source.removeprefix("<<")
            data = step.heredocs[name].encode("utf-8", "surrogateescape")
            node = Node(kind=FileKind.REGULAR, mode=0o644, size=len(data), mtime_ns=self.plan.now_ns)
            self._put_file(self._target(name.encode()), self._owned(node), data=data)
            return
        repository = git.parse(source)
        if repository is not None:
            if not step.allow_local:
                await remote.check_outside(git.host_of(repository))
            tree = await self._stack.enter_async_context(
                git.cloned(repository, self._directory, keep_git=step.keep_git)
            )
            await asyncio.to_thread(self._put_directory, tree, (), split(step.destination))
            return
        await self._download(source)

    async def _download(self, url: str) -> None:
        step = self._step
        got = await remote.download(url, self._fresh(), allow_local=step.allow_local)
        self._stack.callback(got.path.unlink)
        if step.checksum:
            await asyncio.to_thread(_check, got.path, step.checksum, url)
        tree = FileTree(got.path, size=got.size, mtime_ns=got.mtime_ns)
        if step.unpack and await self._unpacked(tree, (b"file",), tree.node):
            return
        if not got.name and _names_directory(step.destination):
            raise Invalid(f"cannot determine filename for source {url}")
        self._put_file(self._target(got.name.encode()), self._owned(tree.node), tree=tree, source=(b"file",))

    def _fresh(self) -> FilePath:
        return self._directory / secrets.token_hex(8)

    # --- what is ---

    async def _local(self, source: str, named: Path, place: Path, node: Node) -> None:
        step = self._step
        if step.parents:
            destination = (*split(step.destination), *_kept_parents(source, named))
            if node.is_directory:
                await asyncio.to_thread(self._put_directory, self._tree, place, destination)
            elif not self._excluded.matches(named):
                await asyncio.to_thread(self._put_from_tree, destination, place, node)
            return
        if node.is_directory:
            await asyncio.to_thread(self._put_directory, self._tree, place, split(step.destination))
            return
        if self._excluded.matches(named) or self._excluded.matches(named[-1:]):
            return
        unpacks = step.keyword == "ADD" and step.unpack is not False and node.kind is FileKind.REGULAR
        if unpacks and await self._unpacked(self._tree, place, node):
            return
        name = named[-1] if named else place[-1]
        await asyncio.to_thread(self._put_from_tree, self._target(name), place, node)

    async def _unpacked(self, tree: Tree, place: Path, node: Node) -> bool:
        """Unpack an archive into the destination; False when the file is none."""
        head = await asyncio.to_thread(_head, tree, place, node)
        if not head.startswith(_MAGIC) and not _is_header(head):
            return False
        path = self._fresh()
        try:
            await spool(_pieces(tree, place, node), path)
            with path.open("rb") as file:
                if not _is_header(file.read(_BLOCK)):
                    path.unlink()
                    return False
        except Invalid:
            path.unlink(missing_ok=True)
            return False
        self._stack.callback(path.unlink)
        archive = ArchiveTree(path)
        self._stack.callback(archive.close)
        await asyncio.to_thread(archive.index)
        await asyncio.to_thread(self._put_directory, archive, (), split(self._step.destination), keep_owner=True)
        return True

    def _target(self, name: bytes) -> Path:
        """Where a file of that name goes."""
        destination = split(self._step.destination)
        if _names_directory(self._step.destination) or self.plan.kind_at(destination) is FileKind.DIRECTORY:
            return (*destination, name)
        return destination

    def _put_directory(self, tree: Tree, place: Path, destination: Path, *, keep_owner: bool = False) -> None:
        self.plan.directory(destination, owner=self._step.owner or (0, 0), mode=self._mode(0o755, is_directory=True))
        for path, node in tree.walk(place):
            inside = path[len(place) :]
            if self._excluded.matches(inside):
                continue
            owned = self._owned(node, keep=keep_owner or self._step.from_image)
            if node.is_directory:
                self.plan.directory(
                    (*destination, *inside), owner=(owned.uid, owned.gid), mode=owned.mode, mtime_ns=node.mtime_ns
                )
            else:
                self._put((*destination, *inside), owned, tree, path)

    def _put_from_tree(self, destination: Path, place: Path, node: Node) -> None:
        self._put(destination, self._owned(node, keep=self._step.from_image), self._tree, place)

    def _put(self, destination: Path, node: Node, tree: Tree, place: Path) -> None:
        xattrs = tuple(sorted(tree.xattrs(place, node).items()))
        self.plan.put(destination, Planned(node=node, tree=tree, source=place, xattrs=xattrs))

    def _put_file(
        self, destination: Path, node: Node, *, data: bytes | None = None, tree: Tree | None = None, source: Path = ()
    ) -> None:
        self.plan.put(destination, Planned(node=node, data=data, tree=tree, source=source))

    def _owned(self, node: Node, *, keep: bool = False) -> Node:
        uid, gid = self._step.owner or ((node.uid, node.gid) if keep else (0, 0))
        mode = node.mode
        if node.kind is not FileKind.SYMBOLIC_LINK:
            mode = self._mode(mode, is_directory=node.is_directory)
        return replace(node, uid=uid, gid=gid, mode=mode)

    def _mode(self, old: int, *, is_directory: bool) -> int:
        return changed_mode(self._step.chmod, old, is_directory=is_directory) if self._step.chmod else old


class FileTree(Tree):
    """One file of the host's, under the name "file"."""

    def __init__(self, path: FilePath, *, size: int, mtime_ns: int) -> None:
        super().__init__()
        self._path = path
        self.node = Node(kind=FileKind.REGULAR, mode=0o600, size=size, mtime_ns=mtime_ns, key=str(path))

    def look(self, path: Path) -> Node | None:
        if not path:
            return Node(kind=FileKind.DIRECTORY, mode=0o755)
        return self.node if path == (b"file",) else None

    def names(self, path: Path) -> list[bytes]:
        return [] if path else [b"file"]

    def content(self, path: Path, node: Node) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while piece := file.read(1 << 18):
                yield piece


def _names_directory(destination: str) -> bool:
    return destination.endswith(("/", "/.")) or destination in (".", "", "/")


def _kept_parents(source: str, named: Path) -> Path:
    """What --parents keeps of a source's path: all of it, or what follows "/./"."""
    match = _PIVOT.search(source)
    return named[len(split(source[: match.start()])) :] if match else named


def _head(tree: Tree, place: Path, node: Node) -> bytes:
    head = b""
    for piece in tree.content(place, node):
        head += piece
        if len(head) >= _BLOCK:
            break
    return head[:_BLOCK]


def _is_header(block: bytes) -> bool:
    try:
        return len(block) == _BLOCK and any(block) and bool(parse_header(block))
    except ArchiveError:
        return False


async def _pieces(tree: Tree, place: Path, node: Node) -> AsyncIterator[bytes]:
    pieces = tree.content(place, node)
    while (piece := await asyncio.to_thread(next, pieces, b"")) != b"":
        yield piece


def _check_form(checksum: str) -> None:
    algorithm, _, expected = checksum.partition(":")
    digits = {"sha256": 64, "sha384": 96, "sha512": 128}.get(algorithm, 0)
    if not digits or not re.fullmatch(f"[0-9a-f]{{{digits}}}", expected):
        raise Invalid(f"invalid checksum {checksum}: it is sha256:, sha384: or sha512: and hexadecimal digits")


def _check(path: FilePath, checksum: str, url: str) -> None:
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, algorithm).hexdigest()
    if actual != expected:
        raise Invalid(f"digest mismatch {algorithm}:{actual}: {url} was to have {checksum}")
